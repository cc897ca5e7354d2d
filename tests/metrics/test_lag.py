from __future__ import annotations

import math

import numpy as np
import pytest

from s2f_rl.errors import UserError
from s2f_rl.metrics import lag_ms

LIPS = {"upper_lip": 0, "lower_lip": 1}


def mouth(opening: np.ndarray) -> np.ndarray:
    vertices = np.zeros((len(opening), 2, 3))
    vertices[:, 1, 1] = -opening
    return vertices


def opening(time_s: np.ndarray) -> np.ndarray:
    return 0.01 + 0.003 * np.sin(2 * np.pi * 2.3 * time_s) + 0.003 * np.sin(2 * np.pi * 1.1 * time_s + 1)


@pytest.mark.parametrize("fps", [25, 30])
@pytest.mark.parametrize("late_ms", [-120, -50, -10, 0, 15, 80, 150])
def test_a_known_delay_is_found_between_frames(late_ms, fps):
    time = np.arange(3 * fps) / fps
    value = float(lag_ms(mouth(opening(time - late_ms / 1000)), mouth(opening(time)), fps=fps, **LIPS))
    assert value == pytest.approx(late_ms, abs=3)


def test_against_a_loop_over_whole_frames():
    random = np.random.default_rng(3)
    truth = 0.02 + 0.001 * random.normal(size=40).cumsum()
    prediction = np.roll(truth, 3) + 0.0005 * random.normal(size=40)
    best, best_score = 0, -2.0
    for lag in range(-6, 7):
        pairs = [(prediction[t], truth[t - lag]) for t in range(40) if 0 <= t - lag < 40]
        score = np.corrcoef(np.array(pairs).T)[0, 1]
        if score > best_score:
            best, best_score = lag, score
    assert best == 3
    value = float(lag_ms(mouth(prediction), mouth(truth), fps=30, **LIPS))
    assert abs(value - best * 1000 / 30) <= 0.5 * 1000 / 30


def test_amplitude_and_offset_do_not_matter():
    time = np.arange(60) / 30
    value = float(lag_ms(mouth(0.3 * opening(time - 2 / 30) + 0.02), mouth(opening(time)), fps=30, **LIPS))
    assert value == pytest.approx(2000 / 30, abs=2)


def test_nan_and_mistakes():
    still, moving = mouth(np.full(30, 0.01)), mouth(opening(np.arange(30) / 30))
    assert math.isnan(lag_ms(still, moving, fps=30, **LIPS))
    assert math.isnan(lag_ms(moving, still, fps=30, **LIPS))
    assert math.isnan(lag_ms(moving[:3], moving[:3], fps=30, **LIPS))
    assert float(lag_ms(moving[:4], moving[:4], fps=30, **LIPS)) == 0
    with pytest.raises(UserError, match="fps is 0"):
        lag_ms(moving, moving, fps=0, **LIPS)
    with pytest.raises(UserError, match="max_lag_ms is -1"):
        lag_ms(moving, moving, fps=30, max_lag_ms=-1, **LIPS)
