"""The built-in corpus keeps the contract that the rest of the package asks for."""

from __future__ import annotations

from pathlib import Path

from s2f_rl.data import FaceCorpus
from s2f_rl.data.contract import Corpus, SpokenUtterance
from tests.tiny import make_tiny_corpus


def test_face_corpus_is_a_corpus(tmp_path: Path) -> None:
    corpus: Corpus = FaceCorpus(make_tiny_corpus(tmp_path))  # and the type checker agrees
    utterance: SpokenUtterance = corpus[0]
    assert isinstance(corpus, Corpus) and isinstance(utterance, SpokenUtterance)
    assert not isinstance(object(), Corpus)
