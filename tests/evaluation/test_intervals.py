from __future__ import annotations

import math

import numpy as np
import pytest

from s2f_rl.errors import UserError
from s2f_rl.evaluation import bootstrap_intervals, summarise


def _rows(values, subjects, conditions=1):
    """values [U, conditions]."""
    return [
        {"utterance": f"u{k}", "subject": subjects[k], "condition": str(c), "lve": float(values[k][c]), "frames": 3}
        for k in range(len(values))
        for c in range(conditions)
    ]


def test_against_drawing_the_rows_themselves():
    rng = np.random.default_rng(0)
    rows = _rows(rng.normal(size=(9, 3)), list("aaaabbbbb"), 3)
    rows[4]["lve"] = math.nan
    for row in rows:
        row["fdd"] = -abs(row["lve"])
    found = bootstrap_intervals(rows, draws=400, seed=5)
    draw, means, absolute = np.random.default_rng(5), [], []
    for _ in range(400):
        chosen = []
        for own in (range(4), range(4, 9)):
            for k in draw.integers(len(own), size=len(own)):
                chosen += [r for r in rows if r["utterance"] == f"u{own[k]}"]
        finite = [r["lve"] for r in chosen if math.isfinite(r["lve"])]
        means.append(np.mean(finite))
        absolute.append(summarise(chosen)["fdd_abs"])
    np.testing.assert_allclose(found["lve"], np.percentile(means, [2.5, 97.5]), rtol=1e-12)
    np.testing.assert_allclose(found["fdd_abs"], np.percentile(absolute, [2.5, 97.5]), rtol=1e-12)
    assert set(found) == {"lve", "fdd", "fdd_abs"}
    assert bootstrap_intervals(rows, draws=400, seed=5) == found


@pytest.mark.parametrize("n", [40])
def test_coverage_on_normal_data(n):
    """Of 95% intervals on 40 utterances of 2 subjects, about 95% hold the mean (a little fewer: percentiles are)."""
    rng = np.random.default_rng(1)
    subjects = ["a"] * (n // 2) + ["b"] * (n // 2)
    held = 0
    for k in range(300):
        low, high = bootstrap_intervals(_rows(rng.normal(2.0, 1.0, (n, 1)), subjects), draws=300, seed=k)["lve"]
        held += low <= 2.0 <= high
    assert 0.90 <= held / 300 <= 0.98


def test_conditions_of_an_utterance_are_one_draw():
    """Repeating every row under another condition adds no evidence."""
    values = np.random.default_rng(2).normal(size=(12, 1))
    one = bootstrap_intervals(_rows(values, ["a"] * 12))
    many = bootstrap_intervals(_rows(np.repeat(values, 5, 1), ["a"] * 12, 5))
    np.testing.assert_allclose(one["lve"], many["lve"])


def test_subjects_are_kept_unless_asked_for():
    values = np.array([[0.0]] * 6 + [[10.0]] * 6)
    rows = _rows(values, list("aaaaaabbbbbb"))
    assert bootstrap_intervals(rows)["lve"] == (5.0, 5.0)
    assert bootstrap_intervals(rows, resample_subjects=True)["lve"] == (0.0, 10.0)


def test_nothing_and_mistakes():
    assert bootstrap_intervals([]) == {}
    with pytest.raises(UserError, match="level"):
        bootstrap_intervals([], level=95)
