"""What the figures of the documents draw, against plain loops over the rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.figures import algorithms, findings
from benchmarks.findings import open_runs

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"


def lip_scores(place: str, variant: str) -> list[float]:
    rows = [json.loads(line) for line in (RESULTS / place / "runs.jsonl").read_text(encoding="utf-8").splitlines()]
    own = [row for row in rows if row["variant"] == variant and row["gain"] == 1 and row["checkpoint"] != "best"]
    return [row["judge_lip_score"] for row in sorted(own, key=lambda row: row["seed"] or 0)]


def test_share_of_every_seed() -> None:
    (truth,) = lip_scores("algorithms_test", "truth")
    pairs = zip(lip_scores("algorithms_test", "grpo"), lip_scores("algorithms_test", "control_grpo"), strict=True)
    expected = [(ours - theirs) / (truth - theirs) for ours, theirs in pairs]
    runs = open_runs("algorithms_test")
    assert len(expected) == 5
    assert algorithms.gaps(runs, "grpo").ravel() == pytest.approx(expected, rel=1e-12)
    assert findings.shares(runs, "grpo")[0] == pytest.approx(expected, rel=1e-12)


def test_a_curve_is_in_order_and_whole() -> None:
    rows = [
        {"variant": "ppo", "iteration": 6, "frames": 60, "a": 3.0, "b": 0.5},
        {"variant": "ppo", "iteration": 3, "frames": 30, "a": 2.0, "b": 0.25},
        {"variant": "ppo", "iteration": 4, "frames": 40, "a": 9.0},  # not validated
        {"variant": "control", "iteration": 3, "frames": 30, "a": 7.0, "b": 7.0},
    ]
    frames, values = algorithms.curve(rows, "ppo", ("a", "b"))
    assert np.array_equal(frames, [30, 60]) and np.array_equal(values, [2.25, 3.5])


@pytest.mark.parametrize("variant", algorithms.ALGORITHMS)
def test_every_algorithm_and_its_control_have_a_curve(variant: str) -> None:
    rows = [json.loads(line) for line in algorithms.CURVES.read_text(encoding="utf-8").splitlines()]
    control = open_runs("algorithms").control_of[variant]
    for columns, _ in algorithms.SHOWN.values():
        lengths = [len(algorithms.curve(rows, str(name), columns)[0]) for name in (variant, control)]
        assert lengths[0] == lengths[1] > 3
    page = (RESULTS.parent / "algorithms" / f"{variant}.md").read_text(encoding="utf-8")
    assert algorithms.told(rows, variant, str(control)) in page


def test_where_curves_end() -> None:
    rows = [
        {"variant": name, "iteration": k, "frames": k, "validation/lip_score": lip, "validation/real_score": 0.5,
         "validation/lve": lve}
        for name, k, lip, lve in (("a", 0, 0.25, 1e-5), ("a", 1, 0.5, 9e-6), ("b", 0, 0.25, 1e-5), ("b", 1, 0.3, 8e-6))
    ]  # fmt: skip
    said = "from 0.75 to 1.00 (its control: 0.80), the lip error from 10.00 to 9.00 mm² (8.00)."
    assert algorithms.told(rows, "a", "b") == f"The train reward goes {said}"
