from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from s2f_rl.view.curves import Curve, draw, rounded_up

HOSTILE = "</figure><script>alert(1)</script>\"'&\x1b"


def points(path: str) -> list[list[tuple[float, float]]]:
    strokes = [re.findall(r"([-\d.]+) ([-\d.]+)", stroke) for stroke in path.split("M")[1:]]
    return [[(float(x), float(y)) for x, y in stroke] for stroke in strokes]


def test_lines_go_through_their_points_and_break_where_there_is_none() -> None:
    x = np.arange(5) / 10
    html = draw(
        Curve("Opening", "mm", {"a": (x, np.array([0, 4, np.nan, 8, 2.0])), "b": (x, np.full(5, 8.0))}), (0, 0.8)
    )
    root = ElementTree.fromstring(html)
    first, second = (points(path.attrib["d"]) for path in root.iter("path"))
    assert root.find(".//span[@class='top']").text == "8" and root.find(".//span[@class='bottom']").text == "0"
    assert first == [[(0.0, 100.0), (125.0, 50.0)], [(375.0, 0.0), (500.0, 75.0)]]
    assert second == [[(125.0 * i, 0.0) for i in range(5)]]


def test_a_thing_keeps_its_colour_where_another_has_no_line() -> None:
    x = np.arange(3)
    html = draw(Curve("Distance", "mm", {"truth": (np.empty(0), np.empty(0)), "ours": (x, x)}))
    assert 'class="c2"' in html and 'class="c1"' not in html and 'data-series="1"' in html
    assert 'aria-label="Distance (mm) of ours"' in html


def test_the_ends_of_x_are_said_and_a_lone_point_is_a_dot() -> None:
    x = np.array([1.0, 3.0, 11.0])
    html = draw(Curve("Loss", "", {"a": (x, np.array([4.0, np.nan, 8.0])), "b": (x[1:2], x[1:2])}), x_label="iteration")
    root = ElementTree.fromstring(html)
    assert ["".join(each.itertext()) for each in root.iter("p")] == ["1iteration11"]
    assert [path.attrib["d"] for path in root.iter("path")] == ["M0.0 50.0h0M1000.0 0.0h0", "M200.0 62.5h0"]
    assert 'aria-label="Loss of a, b by iteration"' in html


def test_names_of_any_origin_are_text() -> None:
    html = draw(Curve(HOSTILE, HOSTILE, {HOSTILE: (np.arange(2), np.arange(2))}))
    assert "<script" not in html and "\x1b" not in html
    ElementTree.fromstring(html)


@pytest.mark.parametrize(
    ("values", "top", "bottom"),
    [([0.61, 0.74], "0.75", "0.6"), ([-3, 5], "6", "-4"), ([0, 0], "1", "0"), ([7, 7], "10", "0"), ([], "1", "0")],
)
def test_limits_are_round(values: list[float], top: str, bottom: str) -> None:
    y = np.array(values, float)
    html = draw(Curve("", "", {"a": (np.arange(len(y)), y)}))
    assert f'"top">{top}<' in html and f'"bottom">{bottom}<' in html


def test_the_end_of_a_scale() -> None:
    assert [rounded_up(x) for x in (0.013, 1, 1.01, 2.2, 2.6, 7, 0, float("nan"))] == [0.02, 1, 2, 2.5, 5, 10, 1, 1]


@pytest.mark.parametrize("values", [(0.12345671, 0.12345674), (-7.0, -7.0 + 1e-9), (3e5, 3e5 + 1e-3)])
def test_what_hardly_changes_is_drawn(values: tuple[float, float]) -> None:
    with np.errstate(all="raise"):
        text = draw(Curve("a", "", {"b": (np.arange(2.0), np.array(values))}))
    assert re.search(r'd="M0\.0 [-\d.]+L\d+\.0 [-\d.]+"', text)
