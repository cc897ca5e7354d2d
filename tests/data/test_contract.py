"""The built-in corpus keeps the contract that the rest of the package asks for, and the contract is enough."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.data.contract import Corpus, SpokenUtterance, metres_per_file_unit, place_of, recorded, speech_at
from s2f_rl.data.sequences import metres_per_unit_of
from s2f_rl.errors import UserError
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.recordings import MotionBank
from tests.tiny import make_tiny_corpus

CONTRACT = sorted(name for name in vars(Corpus) if not name.startswith("_"))
UTTERANCE = sorted(name for name in vars(SpokenUtterance) if not name.startswith("_"))


@dataclass
class Only:
    """Nothing but some of the attributes of another object."""

    source: Any
    names: list[str]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in self.names:
            raise AttributeError(name)
        return getattr(self.source, name)


class OnlyCorpus(Only):
    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: int) -> Any:
        return Only(self.source[key], UTTERANCE)


@pytest.fixture
def whole(tmp_path: Path) -> FaceCorpus:
    return FaceCorpus(make_tiny_corpus(tmp_path / "corpus", audio_only=["S0_sentence02"]))


@pytest.fixture
def bare(whole: FaceCorpus) -> Any:
    return OnlyCorpus(whole, CONTRACT)


def test_face_corpus_is_a_corpus(whole: FaceCorpus) -> None:
    corpus: Corpus = whole  # and the type checker agrees
    utterance: SpokenUtterance = corpus[0]
    assert isinstance(corpus, Corpus) and isinstance(utterance, SpokenUtterance)
    assert not isinstance(object(), Corpus)


class TestWhatACorpusNeedNotHave:
    def test_a_place_and_a_unit_of_files(self, whole: FaceCorpus, bare: Any, tmp_path: Path) -> None:
        assert (place_of(whole), place_of(bare)) == (str(tmp_path / "corpus"), "the corpus")
        in_mm = FaceCorpus(make_tiny_corpus(tmp_path / "mm", metres_per_unit=1e-3))
        assert (metres_per_file_unit(in_mm), metres_per_file_unit(bare)) == (1e-3, 1.0)

    def test_a_recorded_face(self, whole: FaceCorpus) -> None:
        assert torch.equal(recorded(whole["S0_sentence01"]), whole["S0_sentence01"].vertices)
        with pytest.raises(UserError, match="^S0_sentence02: its face was not recorded"):
            recorded(whole["S0_sentence02"])

    def test_other_speeds(self, whole: FaceCorpus, bare: Any) -> None:
        assert torch.equal(speech_at(whole[0], 16000, 1.1), whole[0].speech_at(16000, 1.1))
        with pytest.raises(UserError, match="S0_sentence01: its corpus cannot play it faster or slower"):
            speech_at(bare[0], 16000, 1.1)


class TestTheContractIsEnough:
    """A corpus that has nothing but the contract gives what FaceCorpus gives."""

    def test_for_a_motion_subspace(self, whole: FaceCorpus, bare: Any) -> None:
        assert torch.equal(MotionSubspace.fit(bare).basis, MotionSubspace.fit(whole).basis)

    def test_for_a_bank_of_recordings(self, whole: FaceCorpus, bare: Any) -> None:
        ours, theirs = MotionBank(bare), MotionBank(whole)
        assert ours.utterances == theirs.utterances and len(ours) == 3
        assert torch.equal(ours[1].displacement, theirs[1].displacement)
        assert torch.equal(ours[1].mel_clips, theirs[1].mel_clips)

    def test_for_the_unit_of_a_sequence(self, whole: FaceCorpus, bare: Any) -> None:
        frame = recorded(whole[0])[0].numpy()
        assert metres_per_unit_of(frame, bare, "motion.npy") == 1.0
        with pytest.raises(UserError, match=r"motion.npy: its face is .* long, the faces of the corpus are"):
            metres_per_unit_of(frame * np.float32(10), bare, "motion.npy")
