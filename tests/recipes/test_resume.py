"""A run that is killed with SIGKILL and resumed gives the numbers and weights of an unbroken one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from recipe_tools import RECIPES

from s2f_rl.runs import read_rows, without_times


def start(recipe, overrides):
    return subprocess.Popen(
        [sys.executable, str(RECIPES / f"{recipe}.py"), *overrides], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def iterations(path):
    return read_rows(path)[-1]["iteration"] if path.exists() and path.read_text().count("\n") else -1


@pytest.mark.parametrize("recipe", ["ppo", "supervised"])
def test_sigkill(recipe, rl_overrides, workshop, tmp_path):
    if recipe == "ppo":
        options = [*rl_overrides, "group_size=2", "minibatch_lanes=2", "ema_decay=0.9", "kl=fixed", "kl.weight=0.1"]
    else:
        options = [f"corpus.root={workshop / 'corpus'}", "ema_decay=0.9", "batch_size=2", "progress=false",
                   "actor.audio.width=16", "actor.feature_dim=16", "optimizer.lr=1e-3"]  # fmt: skip
    options += ["iterations=40", "evaluation.every=4", "logger=csv", "page=none", f"root={tmp_path}"]
    often = ["checkpoint_minutes=1e-9"] if recipe == "ppo" else []  # one between validations is as good
    unbroken = start(recipe, [*options, "name=unbroken"])
    broken = start(recipe, [*options, *often, "name=broken"])
    rows = tmp_path / "broken" / "metrics.jsonl"
    while iterations(rows) < 6:
        assert broken.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    broken.send_signal(signal.SIGKILL)
    broken.wait()
    killed_at = iterations(rows)
    assert 6 <= killed_at < 40
    assert unbroken.wait() == 0
    assert start(recipe, [*options, "name=broken", "resume=true"]).wait() == 0

    a, b = ([without_times(r) for r in read_rows(tmp_path / n / "metrics.jsonl")] for n in ("unbroken", "broken"))
    assert len(a) == len(b) == (41 if recipe == "ppo" else 40)
    assert a == b
    for name in ("last.pt", "best.pt"):
        first, second = (torch.load(tmp_path / n / name, weights_only=True) for n in ("unbroken", "broken"))
        assert_equal(first, second, name)
    logs = [sorted((tmp_path / n / "logs").rglob("*.csv")) for n in ("unbroken", "broken")]
    assert [p.name for p in logs[0]] == [p.name for p in logs[1]]
    for one, other in zip(*logs, strict=True):
        if "time" not in one.parts:
            assert one.read_text() == other.read_text(), one.name


def assert_equal(a, b, where):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for k in a:
            assert_equal(a[k], b[k], f"{where}[{k!r}]")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}[{i}]")
    else:
        assert a == b or a != a, where
