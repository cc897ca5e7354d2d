"""The judge's recipe: it learns, goes on after a kill to the same numbers, and is written down where asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from recipe_tools import load_recipe
from tiny import make_tiny_corpus

from s2f_rl.data import FaceCorpus
from s2f_rl.errors import UserError
from s2f_rl.rewards.judge.judge import Judge
from s2f_rl.runs import read_rows, without_times
from s2f_rl.training import cosine_decay

TINY = (
    "judge_model.width=16", "judge_model.hidden=16", "stretches.n_stretches=4", "stretches.stretch_frames=30",
    "stretches.n_corruptions=2", "optimizer.warmup=5", "device=cpu", "logger=none", "progress=false",
    "rough_directions=4",
)  # fmt: skip
LEARNABLE = ("jitter", "over_smoothing", "shift_late")  # by so small a judge in a few seconds
TRAINING = (
    "iterations=80", "evaluation.every=30", "optimizer.lr=1e-2", f"corruptions=[{','.join(LEARNABLE)}]",
)  # fmt: skip


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judge_corpus")
    return make_tiny_corpus(folder, n_subjects=5, n_sentences=3, n_vertices=45, seconds=(1.2, 1.8))


def options(root: Path, out: Path, *overrides: str) -> list[str]:
    return [f"corpus.root={root}", f"root={out}", *TINY, *overrides]


def test_learns_and_resumes_to_the_same_numbers(root: Path, tmp_path: Path, monkeypatch) -> None:
    main, judges = load_recipe("judge"), tmp_path / "judges.json"
    main.run(options(root, tmp_path, "name=whole", f"register={judges}", *TRAINING))
    judge = Judge.load(tmp_path / "whole")
    report = json.loads((tmp_path / "whole" / "auc.json").read_text())
    assert report["judge"] == judge.content_hash()
    learned = {row["corruption"]: row["auc"] for row in report["rows"] if row["routed"] and row["base"] == "truth"}
    assert np.mean([learned[name] for name in LEARNABLE]) > 0.85, "on a speaker it has not seen"
    assert len((tmp_path / "whole" / "auc.csv").read_text().splitlines()) == len(report["rows"]) + 1

    (entry,) = json.loads(judges.read_text())
    assert entry["name"] == "whole" and entry["hash"] == judge.content_hash() and entry["seed"] == 1000
    assert entry["corpus"]["utterances"] == len(FaceCorpus(root, "train")) and entry["auc"]["auc_routed_mean"] > 0.5

    module = sys.modules[main.function.__module__]

    def decay_until_killed(optimizer, settings, iteration, iterations):
        if iteration == 40:  # past the checkpoint of iteration 30
            raise Killed
        return cosine_decay(optimizer, settings, iteration, iterations)

    broken = options(root, tmp_path, "name=broken", f"register={judges}", *TRAINING)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(module, "cosine_decay", decay_until_killed)
        main.run(broken)
    main.run([*broken, "resume=true"])
    rows = [[without_times(row) for row in read_rows(tmp_path / n / "metrics.jsonl")] for n in ("whole", "broken")]
    assert rows[0] == rows[1] and len(rows[0]) == 80
    assert Judge.load(tmp_path / "broken").content_hash() == judge.content_hash()
    assert len(json.loads(judges.read_text())) == 1, "the same judge is listed once"

    # a finished run that is resumed has nothing left to do but to be listed, if it was killed before that
    judges.unlink()
    assert main.run([*broken, "resume=true"]) == {}
    assert Judge.load(tmp_path / "broken").content_hash() == judge.content_hash()
    assert json.loads(judges.read_text())[0]["auc"] == entry["auc"]


def test_policy_samples_and_short_utterances(root: Path, tmp_path: Path) -> None:
    train = FaceCorpus(root, "train")
    (tmp_path / "predictions").mkdir()
    for i in range(len(train)):
        np.save(tmp_path / "predictions" / f"{train.names[i]}.npy", np.tile(train[i].template, (40, 1)))
    samples = (f"policy_samples={tmp_path / 'predictions'}", "corruptions=[policy_samples]")
    load_recipe("judge").run(options(root, tmp_path, "iterations=2", *samples))
    assert Judge.load(tmp_path / "judge").n_vertices == 45

    short = make_tiny_corpus(tmp_path / "brief", n_subjects=5, n_sentences=6, n_vertices=45, seconds=(0.5, 1.0))
    values = load_recipe("judge").run(options(short, tmp_path, "name=short", "iterations=2"))
    assert np.isfinite(list(values.values())).all() and values


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("corruptions=[nonsense]", "nonsense"),
        ("corpus.root=nowhere", "nowhere"),
        ("policy_samples=nowhere", "nowhere"),
        ("judge_model.depth=3", "depth"),
        ("judge_model.width=15", "width"),
    ],
)
def test_mistakes(root: Path, tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe("judge").run(options(root, tmp_path, "iterations=1", override))
    assert not (tmp_path / "judge" / "judge.pt").exists()


def test_a_list_that_cannot_be_written_is_told_before_training(root: Path, tmp_path: Path) -> None:
    for wrong in (tmp_path, root / "corpus.json"):
        with pytest.raises(UserError, match="a folder|not a list of judges"):
            load_recipe("judge").run(options(root, tmp_path, "name=early", f"register={wrong}", *TRAINING))
    assert not (tmp_path / "early").exists()
