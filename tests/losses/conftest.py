"""A small policy, its rollout of unequal lengths, and a corpus of two utterances, one of them without vertices."""

from __future__ import annotations

import pytest
import torch
from losses_rollout import S, SmallCorpus, T, V, rollout

from s2f_rl.models import FaceFormer, FaceFormerPolicy, MelAudioEncoder


@pytest.fixture
def corpus():
    return SmallCorpus()


@pytest.fixture
def policy():
    torch.manual_seed(0)
    actor = FaceFormer(MelAudioEncoder(width=10), V, feature_dim=16, n_subjects=S)
    torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=1e-3)
    torch.nn.init.normal_(actor.decoder.vertice_map.weight, std=30.0)
    return FaceFormerPolicy(actor, noise_mm=1.0)


@pytest.fixture
def batch(policy):
    return rollout(policy, torch.tensor([T, 9, 7, 5]))
