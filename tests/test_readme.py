"""The README's Python examples run, in order, as a reader would type them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def demo_folder(tmp_path, monkeypatch):
    """What `make demo` leaves behind, in small: data/demo, checkpoints/demo/{reward,supervised}."""
    import torch
    from tiny import make_tiny_corpus

    from s2f_rl.data import FaceCorpus
    from s2f_rl.models import FaceFormer, MelAudioEncoder
    from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
    from s2f_rl.training import actor_entry

    torch.manual_seed(0)
    make_tiny_corpus(tmp_path / "data" / "demo", n_subjects=4)
    checkpoints = tmp_path / "checkpoints" / "demo"
    RewardModel(SpeechMeshTransformer(120, width=16, depth=1, n_heads=2), ScoreHead(16, 16, 8)).save(
        checkpoints / "reward"
    )
    corpus = FaceCorpus(tmp_path / "data" / "demo", split="train")
    actor = FaceFormer(MelAudioEncoder(width=16), corpus.n_vertices, feature_dim=16, n_subjects=len(corpus.subjects))
    torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=1e-3)
    (checkpoints / "supervised").mkdir(parents=True)
    torch.save({"actor": actor_entry(actor, corpus)}, checkpoints / "supervised" / "best.pt")
    monkeypatch.chdir(tmp_path)
    yield
    shutil.rmtree(tmp_path, ignore_errors=True)


def test_examples(demo_folder, capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    printed = capsys.readouterr().out
    assert "frames animated" in printed and "grad_norm_policy" in printed
    import torch

    torch.testing.assert_close(names["in_step"]["next", "reward"].shape, names["deferred"]["next", "reward"].shape)
    assert float(names["out"]["grad_norm_policy"]) > 0
