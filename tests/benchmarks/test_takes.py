"""The script that draws several takes of one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import takes
from s2f_rl.data import FaceCorpus
from s2f_rl.errors import UserError
from s2f_rl.runs import save_checkpoint

EXPLORATION = "exploration: {exploration: latent, noise_mm: 0.2, correlation: 0.0, learn_noise: true}\n"


@pytest.fixture
def run(actor_place: Path, tmp_path: Path) -> Path:
    """A run of reinforcement learning that has learnt three times the noise."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(EXPLORATION)
    saved = torch.load(actor_place / "actor.pt", weights_only=True)
    save_checkpoint(folder / "best.pt", saved)
    corpus = FaceCorpus(actor_place / "corpus", split="validation")
    _, policy = takes.open_policy(folder, corpus, {"noise_mm": 0.6})
    save_checkpoint(folder / "last.pt", {**saved, "parts": {"policy": policy.state_dict()}})
    return folder


def test_a_run_explores_as_it_has_learnt(actor_place: Path, run: Path) -> None:
    corpus = FaceCorpus(actor_place / "corpus", split="validation")
    exploration = takes.exploration_of(run)
    assert exploration == takes.exploration_of(run / "best.pt") and exploration["noise_mm"] == 0.2
    learnt = takes.open_policy(run, corpus, exploration)[1].core.exploration()["noise"]
    started = takes.open_policy(actor_place / "actor.pt", corpus, exploration)[1].core.exploration()["noise"]
    torch.testing.assert_close(learnt, 3 * started)


def test_the_script(actor_place: Path, run: Path, tmp_path: Path) -> None:
    options = [str(actor_place / "corpus"), str(tmp_path / "out"), f"--reward={actor_place / 'reward'}"]
    options += [f"--judge={actor_place / 'judge'}", "--takes=3"]
    start = f"--checkpoint=start={actor_place / 'actor.pt'}"
    rows = takes.main([*options, start, f"--checkpoint=rl={run}"])
    before, after = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    assert [row["utterance"] for row in before] == [row["utterance"] for row in after]
    for one, other in zip(before, after, strict=True):
        assert other["diversity_lips"] > 2 * one["diversity_lips"] > 0
        assert one["judge_plain"] == pytest.approx(other["judge_plain"])
        assert one["judge_mean"] <= one["judge_best"] and one["judge_picked"] <= one["judge_best"]
    lines = (tmp_path / "out" / "takes.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| start", "| rl"]
    mean = sum(row["diversity_lips"] for row in before) / len(before)
    assert lines[0].startswith("| checkpoint | diversity_lips mm") and f"{1e3 * mean:.3f}" in lines[2]
    with pytest.raises(UserError, match="none is of a run"):
        takes.main([*options, start])
    with pytest.raises(UserError, match="give it a name"):
        takes.main([*options, "--checkpoint=run"])
