"""What the scripts that look at one actor need: a tiny corpus, actors of it and of another one, reward and judge."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from s2f_rl.models import FaceFormer, MelAudioEncoder
from s2f_rl.models.checkpoint import actor_payload
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from tests.tiny import make_tiny_corpus


@pytest.fixture(scope="module")
def actor_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("actors")
    make_tiny_corpus(root / "corpus", n_subjects=4, n_sentences=2)
    torch.manual_seed(0)
    for name, n_subjects in (("actor", 2), ("other", 3)):
        actor = FaceFormer(MelAudioEncoder(width=8), 40, n_subjects=n_subjects, feature_dim=16)
        torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=1e-3)
        torch.save({"actor": actor_payload(actor, [f"S{k}" for k in range(n_subjects)])}, root / f"{name}.pt")
    for name in ("reward", "judge"):
        RewardModel(SpeechMeshTransformer(120, width=16, depth=1, n_heads=2), ScoreHead(16, 16, 8)).save(root / name)
    return root
