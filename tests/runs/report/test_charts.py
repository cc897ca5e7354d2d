"""Curves of a report hold what the rows do."""

from __future__ import annotations

import re

import numpy as np

from s2f_rl.runs.report.charts import line_chart, thinned


def test_points_of_rows_and_seconds_are_drawn_in_proportion() -> None:
    drawn = line_chart("loss", "mm", {"train": [(1.0, 0.2), (3.0, 0.9), (11.0, 0.4)], "test": [(6.0, 0.5)], "none": []})
    lines = [re.findall(r"([\d.]+) ([\d.]+)", path) for path in re.findall(' d="([^"]*)"', drawn)]
    assert lines == [[("0.0", "80.0"), ("200.0", "10.0"), ("1000.0", "60.0")], [("500.0", "50.0")]]
    assert "(mm)" in drawn and "<span>iteration</span>" in drawn


def test_thinning_keeps_every_peak() -> None:
    rng = np.random.default_rng(0)
    values = [(float(x), float(y)) for x, y in enumerate(rng.normal(size=5000))]
    kept = thinned(values)
    assert len(kept) <= 240 and kept[-1] == values[-1] and kept == sorted(kept)
    assert max(y for _, y in kept) == max(y for _, y in values) and min(y for _, y in kept) == min(y for _, y in values)
    assert thinned(values[:240]) == values[:240]
    assert line_chart("a", "", {"a": values}).count("L") == len(kept) - 1
