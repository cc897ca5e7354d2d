"""Curves are where their numbers are."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from s2f_rl.runs.report.charts import line_chart, round_ticks, thinned


def svg(figure: str) -> ET.Element:
    found = ET.fromstring(figure.replace("<span class=keys>", '<span class="keys">')).find("svg")
    assert found is not None
    return found


def test_points_lie_between_the_ticks_in_proportion() -> None:
    values = [(1.0, 0.2), (3.0, 0.9), (11.0, 0.4)]
    drawn = svg(line_chart("loss & co", {"train": values, "test": [(5.0, 0.5)]}))
    line = drawn.find("polyline")
    assert line is not None
    points = np.array([[float(x) for x in pair.split(",")] for pair in line.attrib["points"].split()])
    labels = {float(text.text or "nan"): text for text in drawn.findall("text") if text.attrib["text-anchor"] == "end"}
    heights = {value: float(text.attrib["y"]) - 3.5 for value, text in labels.items()}
    (low, low_y), (high, high_y) = min(heights.items()), max(heights.items())
    expected = [low_y + (y - low) / (high - low) * (high_y - low_y) for _, y in values]
    assert np.allclose(points[:, 1], expected, atol=0.2) and high_y < low_y
    assert (points[1, 0] - points[0, 0]) / (points[2, 0] - points[0, 0]) == pytest.approx(0.2, abs=1e-3)
    dot = drawn.find("circle")
    assert dot is not None and float(dot.attrib["cx"]) == pytest.approx(
        points[0, 0] + 0.4 * np.ptp(points[:, 0]), abs=0.1
    )
    assert drawn.attrib["aria-label"] == "loss & co by iteration: train 0.2 to 0.4, test 0.5 to 0.5"


def test_numbers_that_do_not_change() -> None:
    for value in (0.0, 7.0, -1e-9, 1e12):
        drawn = line_chart("a", {"a": [(0.0, value), (1.0, value)]})
        assert "nan" not in drawn and len(re.findall("polyline", drawn)) == 1


def test_names_do_not_become_markup() -> None:
    drawn = line_chart('<script>"', {"<b>": [(0.0, 1.0)], "c": [(0.0, 1.0)]})
    assert "<script" not in drawn and "<b>" not in drawn
    svg(drawn)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, [0, 0.5, 1]),
        (0.13, 0.52, [0.2, 0.3, 0.4, 0.5]),
        (-3.0, 5.0, [-2, 0, 2, 4]),
        (1e-6, 2e-6, [1e-6, 1.5e-6, 2e-6]),
    ],
)
def test_ticks(low: float, high: float, ticks: list[float]) -> None:
    assert round_ticks(low, high) == pytest.approx(ticks, rel=1e-12)


def test_thinning_keeps_every_peak() -> None:
    rng = np.random.default_rng(0)
    values = [(float(x), float(y)) for x, y in enumerate(rng.normal(size=5000))]
    kept = thinned(values)
    assert len(kept) <= 240 and kept[-1] == values[-1] and kept == sorted(kept)
    assert max(y for _, y in kept) == max(y for _, y in values) and min(y for _, y in kept) == min(y for _, y in values)
    assert thinned(values[:240]) == values[:240]
