"""The example of an algorithm of one's own runs as a recipe does: rows, resume, control, one-line mistakes."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from s2f_rl import keys
from s2f_rl.errors import UserError
from s2f_rl.runs import read_rows, without_times

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "algorithm" / "sign_rloo.py"


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("sign_rloo", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sign_rloo"] = module  # dataclasses look for their annotations there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["sign_rloo"]


def test_runs_resumes_and_has_its_control(example, rl_overrides, tmp_path, monkeypatch):
    seen = []
    update = example.gradient_step

    def watched(loss, batch, *rest):
        seen.append(batch[keys.ADVANTAGE][batch[keys.FRAME_MASK]])
        return update(loss, batch, *rest)

    monkeypatch.setattr(example, "gradient_step", watched)
    rows = {}
    for name, options in {
        "unbroken": ["iterations=4"],
        "resumed": ["iterations=2"],
        "control": ["iterations=4", "control=true"],
    }.items():
        given = [*rl_overrides, f"root={tmp_path}", f"name={name}", "logger=none", "group_size=2", "evaluation.every=2"]
        given += ["optimizer.lr=3e-4", "optimizer.final_lr=3e-4"]  # a decay over the iterations would differ
        example.main.run([*given, *options])
        if name == "resumed":
            example.main.run([*given, "iterations=4", "resume=true"])
        rows[name] = [without_times(row) for row in read_rows(tmp_path / name / "metrics.jsonl")]
    assert set(torch.cat(seen).tolist()) == {-1.0, 0.0, 1.0}  # 0: a frame that no score credits
    last = {name: own[-1] for name, own in rows.items()}
    assert last["unbroken"] == last["resumed"]
    assert last["control"]["loss_policy"] == 0
    assert last["unbroken"]["validation/lve"] != last["control"]["validation/lve"]


def test_its_own_key_is_checked(example):
    with pytest.raises(UserError, match="margin=-1"):
        example.main.run(["start=x", "reward.folder=y", "margin=-1"])
