"""Recipes on two ranks and with workers: one writer, the same numbers after a kill, one line when a process is lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from recipe_tools import load_recipe
from two_ranks import on_ranks, start_ranks, wait_for

from s2f_rl import ranks
from s2f_rl.errors import UserError
from s2f_rl.runs import read_rows, without_times
from s2f_rl.training import RLRun, WorkerLost

COMMON = ["corpus.root=corpus", "root=runs", "progress=false", "logger=csv", "device=cpu", "resume=true"]
RL = [*COMMON, "start=start", "reward.folder=reward", "lanes=4", "group_size=2", "max_frames=12", "evaluation.every=2",
      "kl=adaptive", "constraint=lve", "reward.normalise=running"]  # fmt: skip
SUPERVISED = [*COMMON, "actor.audio.width=16", "actor.feature_dim=16", "batch_size=4", "iterations=4",
              "evaluation.every=2", "optimizer.lr=1e-3", "ema_decay=0.9", "max_frames=20"]  # fmt: skip
REWARD = [
    *COMMON, "iterations=6", "listening.iterations=3", "listening.recordings=2", "listening.clips=2",
    "evaluation.every=3", "evaluation.utterances=1", "reward_model.width=16", "reward_model.mlp_width=16",
    "reward_model.n_heads=2", "motion_directions=4", "rough_directions=2", "hardening.steps=1", "clips.n_stretches=2",
    "clips.n_windows=2", "clips.stretch_frames=16", "clips.n_corruptions=1",
]  # fmt: skip
RUNS = {
    "supervised": SUPERVISED,
    "reward": REWARD,
    "ppo": [*RL, "minibatch_lanes=2", "epochs=1", "critic=decoder", "iterations=5"],
    "awr": [*RL, "minibatch_lanes=2", "replay.capacity=6", "updates=2", "critic=decoder", "iterations=5"],
}


@pytest.fixture
def place(workshop, tmp_path, monkeypatch) -> Path:
    for name in ("corpus", "reward"):
        (tmp_path / name).symlink_to(workshop / name)
    (tmp_path / "start").symlink_to(workshop / "runs" / "start")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(recipe: str, name: str, *more: str) -> dict[str, float]:
    return load_recipe(recipe).run([*RUNS[recipe], f"name={name}", *more])


def rows_of(name: str) -> list[dict[str, object]]:
    return [without_times(row) for row in read_rows(Path("runs") / name / "metrics.jsonl")]


def assert_same_weights(one: str, other: str, rel: float = 0.0) -> None:
    first, second = (torch.load(f"runs/{name}/last.pt", weights_only=True) for name in (one, other))
    part = "policy" if "policy" in first["parts"] else "actor" if "actor" in first["parts"] else "head"
    for key, value in first["parts"][part].items():
        torch.testing.assert_close(second["parts"][part][key], value, rtol=rel, atol=rel, msg=key)


def fail_at(iteration: int, who: int, how: str) -> None:
    """In a child: this rank ends by SIGKILL before the row of ``iteration``."""
    from s2f_rl.runs.progress import Progress

    update = Progress.update

    def counted(self, *args, **kwargs):
        update(self, *args, **kwargs)
        counted.calls += 1
        if counted.calls == iteration and ranks.rank() == who:
            os.kill(os.getpid(), signal.SIGKILL)

    counted.calls = 0
    Progress.update = counted


def test_supervised_takes_the_steps_of_one_process(place):
    run("supervised", "one", "actor.dropout=0")
    values = on_ranks(lambda: run("supervised", "both", "parallel=ddp", "actor.dropout=0"), place / "out", join=False)
    one, both = rows_of("one"), rows_of("both")
    assert len(one) == len(both) == 4 and values[0] == values[1]
    for row, other in zip(one, both, strict=True):
        assert row.keys() == other.keys() and row["frames"] == other["frames"]
        for key in ("loss", "loss_position_mm2", "loss_velocity_mm2", "grad_norm", "validation/lve"):
            assert other.get(key, 0.0) == pytest.approx(row.get(key, 0.0), rel=1e-4), key
    assert_same_weights("one", "both", 1e-4)


@pytest.mark.parametrize("recipe", ["supervised", "reward", "ppo", "awr"])
def test_a_rank_is_killed(recipe, place):
    """The other ends with one line by itself, and the run goes on to the numbers of an unbroken one."""
    on_ranks(lambda: run(recipe, "unbroken", "parallel=ddp"), place / "unbroken", join=False)

    def broken():
        fail_at(4, 1, "kill")
        try:
            run(recipe, "broken", "parallel=ddp")
        except UserError as error:
            return [type(error).__name__, str(error)]
        return []

    processes = start_ranks(broken, place / "broken", join=False)
    assert wait_for(processes) == [0, -signal.SIGKILL]
    kind, told = torch.load(place / "broken" / "0.pt", weights_only=True)
    assert kind == "RankLost" and "resume=true" in told and "\n" not in told
    assert rows_of("broken")[-1]["iteration"] < 5

    on_ranks(lambda: run(recipe, "broken", "parallel=ddp"), place / "resumed", join=False)
    assert rows_of("broken") == rows_of("unbroken")
    assert_same_weights("unbroken", "broken")
    if recipe == "awr":  # and in one process, which draws from what both had stored
        run(recipe, "broken", "iterations=6")
        assert rows_of("broken")[-1]["iteration"] == 6


def test_a_worker_is_killed(place, monkeypatch):
    fork = multiprocessing.get_context("fork")  # no imports to wait for
    monkeypatch.setattr("torchrl.collectors._multi_base._get_mp_ctx", lambda: fork)
    run("ppo", "unbroken", "parallel=workers")
    log = RLRun.log

    def killing(self, *args, **kwargs):
        log(self, *args, **kwargs)
        if self.iteration == 3:
            workers = self.collector._workers.collector.procs
            workers[1].kill()

    monkeypatch.setattr(RLRun, "log", killing)
    started = time.monotonic()
    with pytest.raises(WorkerLost, match="a worker ended while it collected.*resume=true"):
        run("ppo", "broken", "parallel=workers")
    assert time.monotonic() - started < 60  # it does not wait for the dead
    monkeypatch.setattr(RLRun, "log", log)
    run("ppo", "broken", "parallel=workers")
    assert rows_of("broken") == rows_of("unbroken")
    assert_same_weights("unbroken", "broken")


class TestMistakes:
    def test_one_process_of_ddp(self, place):
        with pytest.raises(UserError, match="torchrun --nproc-per-node"):
            run("ppo", "x", "parallel=ddp")

    def test_torchrun_without_ddp(self, place, monkeypatch):
        for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UserError, match="parallel=ddp"):
            run("ppo", "x")

    def test_lanes_that_cannot_be_shared(self, place):
        with pytest.raises(UserError, match="parallel.workers=3: .* lanes=4"):
            run("ppo", "x", "parallel=workers", "parallel.workers=3")

        def told():
            try:
                run("ppo", "x", "parallel=ddp", "minibatch_lanes=3")
            except UserError as error:
                return str(error)
            return ""

        line = "minibatch_lanes=3 must be a multiple of the 2 ranks that share it"
        assert on_ranks(told, place / "out", join=False) == [line] * 2
        assert not (place / "runs" / "x" / "metrics.jsonl").exists()
