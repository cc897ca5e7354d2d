"""Recipes of RL tune a CodeTalker by their own defaults: tiny runs from random weights, resumed, and refusals."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from recipe_tools import dies_at, load_recipe
from small_codetalker import small_checkpoint

from s2f_rl.data import FaceCorpus
from s2f_rl.data.tensor_files import save_tensors
from s2f_rl.errors import UserError
from s2f_rl.models.checkpoint import load_actor
from s2f_rl.runs import read_rows, without_times

RECIPES = {
    "rloo": ["group_size=2", "credit=around"],
    "reinforce": ["critic=decoder", "group_size=1", "supervised=teacher_forced"],
    "ppo": ["group_size=2", "minibatch_lanes=2", "constraint=lve", "optimizer.output_lr_factor=0.03"],
    "ppo_kl": ["group_size=2", "minibatch_lanes=2", "supervised.feature_weight=0"],
    "awr": ["critic=decoder", "replay.capacity=6", "minibatch_lanes=3"],
    "reward_gradient": ["constraint=lve"],
}
COLUMNS = ["reward", "amplitude_mm", "changed_codes", "code_entropy", "code_perplexity", "grad_norm_policy"]


@pytest.fixture(scope="session")
def start(workshop: Path) -> Path:
    """A random CodeTalker of the workshop's corpus, whose codes follow the sound."""
    corpus = FaceCorpus(workshop / "corpus", split="train")
    save_tensors(workshop / "codes.pt", small_checkpoint(corpus))
    return workshop / "codes.pt"


@pytest.fixture
def run(rl_overrides: list[str], start: Path, tmp_path: Path):
    def run(recipe: str, name: str, *options: str):
        given = [
            *rl_overrides,
            f"start={start}",
            f"root={tmp_path}",
            f"name={name}",
            "logger=none",
            "max_frames=12",
            *options,
        ]
        load_recipe(recipe).run(given)
        return read_rows(tmp_path / name / "metrics.jsonl")

    return run


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes(recipe: str, run, start: Path, tmp_path: Path) -> None:
    rows = run(recipe, "run", *RECIPES[recipe])
    assert len(rows) == 3
    for row in rows[1:]:
        assert all(math.isfinite(row[column]) for column in COLUMNS) and "noise_mm" not in row
        assert row["grad_norm_policy"] > 0 and row["skipped_steps"] == 0
        assert ("supervised_features" in row) == (recipe != "ppo_kl")
    before, after = load_actor(start)[0].state_dict(), load_actor(tmp_path / "run" / "last.pt")[0].state_dict()
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    stage1 = {name for name in moved if name.startswith("codebook.")}
    assert stage1 == ({"codebook.decoder.output.weight", "codebook.decoder.output.bias"} if recipe == "ppo" else set())
    assert {"decoder.feature_map.weight", "decoder.vertice_map.weight", "decoder.style_embedding.weight"} <= moved


def test_resumes_to_the_same_numbers(run, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["iterations=4", "evaluation.every=2", "group_size=2", "minibatch_lanes=2"]
    unbroken = run("grpo", "unbroken", *options)
    with dies_at(3, monkeypatch):
        run("grpo", "broken", *options)
    broken = run("grpo", "broken", *options, "resume=true")
    assert [without_times(row) for row in unbroken] == [without_times(row) for row in broken]


def test_workers_draw_by_the_same_temperature(run) -> None:
    """The first update would refuse ratios that are not 1."""
    rows = run("grpo", "run", "parallel=workers", "parallel.workers=2", "lanes=4", "group_size=2", "minibatch_lanes=2")
    assert len(rows) == 3 and 0 < rows[1]["changed_codes"] < 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["exploration=vertex"], "exploration.exploration=vertex: an actor of kind codetalker draws codes"),
        (["exploration=correlated"], "exploration.correlation=0.7: an actor of kind codetalker draws codes"),
        (["exploration.learn_noise=true"], "exploration.learn_noise=True: an actor of kind codetalker draws codes"),
        (["credit=discounted"], "credit=discounted: this actor's frames move those before them too"),
        (["credit=window"], "credit=window: this actor's frames move"),
        (["exploration.changed_codes=0"], "exploration.changed_codes=0: above 0 and at most 0.5"),
    ],
)
def test_refused(options: list[str], message: str, run, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        run("rloo", "run", *options)
    assert message in str(error.value) and len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "run").exists()
