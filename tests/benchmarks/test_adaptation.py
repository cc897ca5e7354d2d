"""The corpus of new voices without meshes: who is in it, what is left out, and that training cannot see them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.adaptation import make
from s2f_rl.data import FaceCorpus, check_corpus
from s2f_rl.errors import UserError
from tests.tiny import make_tiny_corpus


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_tiny_corpus(tmp_path_factory.mktemp("source") / "c", n_subjects=5, n_sentences=4)
    description = root / "corpus.json"
    text = description.read_text()
    import json

    content = json.loads(text)
    for split in ("validation", "test"):
        content["splits"][split]["sentences"] = [3, 4]
    description.write_text(json.dumps(content))
    return root


def test_new_voices_join_without_meshes(source: Path, tmp_path: Path) -> None:
    out = make(source, tmp_path / "adapt", sentences=1, new=2)
    train, before = FaceCorpus(out, "train"), FaceCorpus(source, "train")
    assert list(train.subjects) == list(before.subjects), "style columns stay"
    names = set(train.names)
    new = {"NEW_S3_sentence01", "NEW_S3_sentence02"}
    assert new < names and names - new == {f"{subject}_sentence01" for subject in before.subjects}
    for name in new:
        assert train[train.index(name)].vertices is None
    heard = train[train.index("NEW_S3_sentence01")]
    assert torch.equal(heard.waveform_raw, FaceCorpus(source, "all")["S3_sentence01"].waveform_raw)
    assert torch.equal(heard.template, FaceCorpus(source, "all")["S3_sentence01"].template)
    for split in ("validation", "test"):
        old, kept = FaceCorpus(source, split), FaceCorpus(out, split)
        assert kept.names == old.names and torch.equal(kept[0].vertices, old[0].vertices)
    adapted = FaceCorpus(out, "adapted")
    assert set(adapted.names) == {"S3_sentence01", "S3_sentence02"} and not {*adapted.names} & names
    assert torch.equal(adapted["S3_sentence01"].vertices, FaceCorpus(source, "all")["S3_sentence01"].vertices)
    assert not check_corpus(out).has_errors


def test_mistakes(source: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="exists already"):
        make(source, tmp_path / "there")
    with pytest.raises(UserError, match="split=train"):
        make(source, tmp_path / "x", split="train")
    with pytest.raises(UserError, match="nothing is left"):
        make(source, tmp_path / "x", new=0)
