"""A tiny corpus and its statistics, shared by the reward tests."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from s2f_rl.data import FaceCorpus
from s2f_rl.rewards.corruptions import CorruptionContext, smoothed
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.recordings import MotionBank
from tests.tiny import make_tiny_corpus


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("reward_corpus")
    return make_tiny_corpus(
        root, n_subjects=5, n_sentences=3, n_vertices=45, seconds=(1.2, 1.8), audio_only=("S0_sentence03",)
    )


@pytest.fixture(scope="session")
def corpus(tiny_root) -> FaceCorpus:
    return FaceCorpus(tiny_root, "train")


@pytest.fixture(scope="session")
def validation(tiny_root) -> FaceCorpus:
    return FaceCorpus(tiny_root, "validation")


@pytest.fixture(scope="session")
def bank(corpus: FaceCorpus) -> MotionBank:
    return MotionBank(corpus)


@pytest.fixture(scope="session")
def motion(corpus: FaceCorpus) -> MotionSubspace:
    return MotionSubspace.fit(corpus)


@pytest.fixture
def displacement(bank: MotionBank) -> Tensor:
    return bank[0].displacement


@pytest.fixture
def context(bank: MotionBank, motion: MotionSubspace) -> CorruptionContext:
    generator = torch.Generator().manual_seed(0)
    context = bank.context(0, motion, generator, bank.fit_regressor(motion))
    sample = smoothed(bank[0].displacement, 4.0) + 1e-3 * torch.randn(bank[0].displacement.shape)
    return dataclasses.replace(context, policy_sample=sample)
