from __future__ import annotations

import numpy as np
import pytest

from s2f_rl.render.curves import COLOURS, CurveStrip, lip_openings
from s2f_rl.render.layout import INK


def near(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.abs(pixels.astype(int) - colour).max(-1) < 40


def test_openings_are_distances_of_the_lips() -> None:
    rng = np.random.default_rng(0)
    sequence = rng.normal(size=(5, 9, 3))
    (curve,) = lip_openings([sequence], {"upper_lip": [7, 2], "lower_lip": np.array([4])})
    expected = [1000 * np.linalg.norm((frame[7] + frame[2]) / 2 - frame[4]) for frame in sequence]
    np.testing.assert_allclose(curve, expected)


def test_curves_cursor_and_phones_are_where_they_belong() -> None:
    level, ramp = np.full(60, 5.0), np.linspace(0, 10, 60)
    strip = CurveStrip([level, ramp], ["a", "b"], 30.0, [("aa", 0.5, 1.0), ("m", 1.0, 1.02)])
    picture = strip.frame(45, 400, 100)
    assert picture.shape == (100, 400, 3) and picture.dtype == np.uint8
    first, last, half = round(0.17 * 100), 100 - round(0.17 * 100), 50
    cursor = np.flatnonzero(near(picture[first + 3 : last - 3], INK).all(0))
    assert abs(cursor.mean() - 400 * 45 / 60) <= 1  # 1.5 s of 2 s
    rows = np.flatnonzero(near(picture[first:last, 40], COLOURS[0])) + first
    assert abs(rows.mean() - half) <= 1  # 5 of 10 mm
    for x in (100, 360):
        row = first + np.abs(picture[first:last, x].astype(int) - COLOURS[1]).sum(-1).argmin()
        assert abs(row - (last - x / 400 * 60 / 59 * (last - first))) <= 2
    label = near(picture[last + 3 :], INK).any(0)
    assert label[101:199].any() and not label[210:].any()  # the second phone is too short for its name


@pytest.mark.parametrize(("t", "start"), [(0, 0.0), (150, 3.0), (299, 6.0)])
def test_a_long_film_scrolls(t: int, start: float) -> None:
    strip = CurveStrip([np.zeros(300), np.zeros(200)], ["a", "b"], 30.0)
    assert strip.window(t) == (pytest.approx(start), 4.0)
    assert strip.frame(t, 64, 40).shape == (40, 64, 3)
