"""Every recipe skips and counts updates that are not finite; a run that diverges leaves its last good checkpoint."""

from __future__ import annotations

import itertools
import math
import sys

import pytest
import torch
from recipe_tools import load_recipe
from tiny import make_tiny_corpus

from s2f_rl.data.tensor_files import load_tensors
from s2f_rl.envs import FrozenRewardTransform
from s2f_rl.errors import Diverged
from s2f_rl.runs import read_rows
from s2f_rl.training import StepGuard

RL = ("iterations=6", "evaluation.every=3", "group_size=2", "supervised.weight=1.0")
ONE_UPDATE = ("epochs=1", "minibatch_lanes=4")
TINY = ("progress=false", "logger=none", "device=cpu")
# recipe -> options with which it makes one update per iteration
RECIPES = {
    "supervised": ("iterations=6", "evaluation.every=3", "batch_size=2", "actor.audio.width=16",
                   "actor.feature_dim=16", "mode=teacher_forced", "ema_decay=0.9"),
    "reward": ("iterations=6", "listening.iterations=2", "evaluation.every=3", "evaluation.utterances=1",
               "reward_model.width=16", "reward_model.depth=1", "reward_model.n_heads=2", "reward_model.mlp_width=32",
               "listening.recordings=2", "listening.clips=4", "corruptions=[jitter]", "rough_directions=4",
               "motion_directions=8"),
    "judge": ("iterations=6", "evaluation.every=3", "judge_model.width=16", "judge_model.hidden=16",
              "stretches.n_stretches=2", "stretches.stretch_frames=30", "corruptions=[jitter]", "rough_directions=4"),
    "reinforce": (*RL, "critic=decoder", "reward.normalise=running"),
    "a2c": (*RL, "critic=decoder", "constraint=lve"),
    "ppo": (*RL, *ONE_UPDATE, "ema_decay=0.9", "kl=adaptive"),
    "ppo_kl": (*RL, *ONE_UPDATE, "reward.normalise=batch"),
    "rloo": RL,
    "grpo": (*RL, *ONE_UPDATE, "kl=fixed"),
    "reward_gradient": (*RL, "reward.normalise=running"),
    "awr": (*RL, "updates=1", "minibatch_lanes=4", "critic=decoder"),
}  # fmt: skip
OFFLINE = ("supervised", "reward", "judge")


class SpoiltGradient(torch.autograd.Function):
    """Nothing on the way forward, nan on the way back."""

    @staticmethod
    def forward(ctx, x):
        return torch.zeros_like(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.nan


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("longer")
    return make_tiny_corpus(folder, n_subjects=5, n_sentences=2, n_vertices=45, seconds=(1.2, 1.6))


@pytest.fixture
def options(corpus, rl_overrides, tmp_path):
    def options(recipe, *more):
        common = [f"corpus.root={corpus}"] if recipe in OFFLINE else rl_overrides
        return [*common, f"root={tmp_path}", "name=run", *TINY, *RECIPES[recipe], *more]

    return options


def spoil(monkeypatch, loss=(), gradient=(), reward=(), before=None, in_reward=True):
    """Spoil losses, gradients and rewards of the updates with these numbers, from 1."""
    step, forward = StepGuard.step, FrozenRewardTransform.forward
    updates, batches = itertools.count(1), itertools.count(1)

    def spoilt_step(self, value, optimizer, max_grad_norm):
        k = next(updates)
        if before is not None:
            before(k, optimizer)
        value = value * math.nan if k in loss else value + SpoiltGradient.apply(value) if k in gradient else value
        return step(self, value, optimizer, max_grad_norm)

    def spoilt_forward(self, batch):
        batch = forward(self, batch)
        if next(batches) in reward:
            batch["next", "lip_score"][0] = math.nan
            batch["next", "reward"][0] = math.nan if in_reward else 0.0
        return batch

    monkeypatch.setattr(StepGuard, "step", spoilt_step)
    monkeypatch.setattr(FrozenRewardTransform, "forward", spoilt_forward)


@pytest.mark.parametrize("recipe", RECIPES)
def test_skips_and_counts(recipe, options, tmp_path, monkeypatch):
    """Of six updates the second has a loss, the third a gradient, and in RL the fifth a score that is not finite."""
    in_reward = recipe in ("awr", "ppo_kl")  # in the others only the look at the batch notices it
    spoil(monkeypatch, loss=[2], gradient=[3], reward=[5], in_reward=in_reward)
    load_recipe(recipe).run(options(recipe))
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")[-6:]
    skipped = [0, 1, 1, 0, 0, 0] if recipe in OFFLINE else [0, 1, 1, 0, 1, 0]
    assert [row["skipped_steps"] for row in rows] == skipped
    if recipe not in OFFLINE:
        assert [row["updates"] for row in rows] == [1 - n for n in skipped]
        assert rows[4]["lip_score"] is None and math.isfinite(rows[5]["lip_score"])
    last = load_tensors(tmp_path / "run" / "last.pt")  # refuses what is not finite
    assert last["iteration"] == 6 and last["parts"]["guard"] == {"in_row": 0}
    for name, part in last["parts"].items():
        numbers = [value for value in _numbers(part) if not math.isfinite(value)]
        assert not numbers, f"{name} holds {numbers}"


def _numbers(value):
    if isinstance(value, dict):
        for inner in value.values():
            yield from _numbers(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _numbers(inner)
    elif isinstance(value, float):
        yield value


def end(recipe, arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"{recipe}.py", *arguments])
    try:
        load_recipe(recipe)()
    except SystemExit as leave:
        return leave.code or 0
    return 0


@pytest.mark.parametrize("recipe", ["supervised", "reward", "judge", "ppo"])
def test_lost_weights_leave_the_last_checkpoint(recipe, options, tmp_path, monkeypatch, capfd):
    """The fifth update is infinitely large; every file is then that of iteration 3, bit for bit, and can be resumed."""
    kept = {}

    def ruin(k, optimizer):
        if k == 5:
            kept.update({path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.pt*")})
            optimizer.param_groups[0]["lr"] = math.inf

    with monkeypatch.context() as patch:
        spoil(patch, before=ruin)
        assert end(recipe, options(recipe), patch) == 3
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error")]
    assert len(lines) == 1 and "run: the run diverged and its last checkpoint stays: an update was so large" in lines[0]
    assert "last.pt" in kept
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.pt*")} == kept
    assert [row["iteration"] for row in read_rows(tmp_path / "run" / "metrics.jsonl")][-2:] == [3, 4]
    assert end(recipe, options(recipe, "resume=true"), monkeypatch) == 0
    assert read_rows(tmp_path / "run" / "metrics.jsonl")[-1]["iteration"] == 6


def test_ten_in_a_row_end_a_run(options, tmp_path, monkeypatch):
    spoil(monkeypatch, loss=range(4, 99))
    with pytest.raises(Diverged, match=r"run: the run diverged and .*: 10 updates in a row were skipped"):
        load_recipe("supervised").run(options("supervised", "iterations=30"))
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert [row["skipped_steps"] for row in rows] == [0] * 3 + [1] * 9
    last = load_tensors(tmp_path / "run" / "last.pt")
    assert last["iteration"] == 12 and last["parts"]["guard"] == {"in_row": 9}


@pytest.mark.parametrize(
    ("recipe", "rate"),
    [("supervised", "1e30"), ("reward", "1e8"), ("ppo", "1e8"), ("awr", "1e8"), ("reward_gradient", "1e8")],
)
def test_a_rate_that_is_far_too_large(recipe, rate, options, tmp_path, capfd, monkeypatch):
    """One line and code 3, whatever breaks first; nothing in the folder holds a number that is not finite."""
    more = [f"optimizer.lr={rate}", f"optimizer.final_lr={rate}", "evaluation.every=1"]
    assert end(recipe, options(recipe, *more), monkeypatch) == 3
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error")]
    assert len(lines) == 1 and "run: the run diverged" in lines[0] and "smaller optimizer" in lines[0]
    for path in [*(tmp_path / "run").glob("*.pt"), *(tmp_path / "run").glob("*.pth")]:
        load_tensors(path)
    assert not (tmp_path / "run" / "model_loss.pth").exists()  # a reward is written after it has been scored


def test_noise_that_is_lost_is_in_no_checkpoint(options, tmp_path, capfd, monkeypatch):
    """Validation makes no noise: sigma overflows in the first update, and nothing else shows it."""
    more = ["optimizer.lr=1e-4", "optimizer.noise_lr_factor=1e7", "exploration.learn_noise=true", "evaluation.every=1"]
    assert end("ppo", options("ppo", *more, "ema_decay=null"), monkeypatch) == 3
    assert "the policy's noise is not finite" in capfd.readouterr().err
    assert not (tmp_path / "run" / "last.pt").exists()
