"""A tiny corpus, a supervised start and a small random reward, made once for all recipe tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from recipe_tools import load_recipe
from tiny import make_tiny_corpus


@pytest.fixture(scope="session")
def workshop(tmp_path_factory) -> Path:
    """Folder with ``corpus/``, ``reward/``, ``judge/`` and ``runs/start`` (a supervised run of a few iterations)."""
    from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer

    root = tmp_path_factory.mktemp("workshop")
    make_tiny_corpus(root / "corpus", n_subjects=4, n_sentences=3, n_vertices=40, audio_only=("S0_sentence02",))
    for seed, name in enumerate(("reward", "judge")):
        torch.manual_seed(seed)
        RewardModel(SpeechMeshTransformer(120, width=16, depth=1, n_heads=2), ScoreHead(16, 16, 8)).save(root / name)
    load_recipe("supervised").run(
        [
            f"corpus.root={root / 'corpus'}",
            f"root={root / 'runs'}",
            "name=start",
            "iterations=6",
            "evaluation.every=3",
            "mode=teacher_forced",
            "batch_size=2",
            "actor.audio.width=16",
            "actor.feature_dim=16",
            "optimizer.lr=1e-3",
            "logger=none",
        ]
    )
    return root


@pytest.fixture
def rl_overrides(workshop) -> list[str]:
    return [
        f"corpus.root={workshop / 'corpus'}",
        f"start={workshop / 'runs' / 'start'}",
        f"reward.folder={workshop / 'reward'}",
        "iterations=2",
        "lanes=4",
        "evaluation.every=1",
        "progress=false",
    ]
