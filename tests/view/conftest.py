from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.render.shapes import ball
from tests.view_browser import Browser, found_browser

FPS = 25.0
CLICKS_S = (0.0, 0.48, 1.2, 1.72)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    there = pytest.mark.skipif(found_browser() is None, reason="needs chromium or google-chrome to open a page in")
    for item in items:
        if "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker(there)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests; each opens its own page in it."""
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def balls() -> tuple[list[np.ndarray], np.ndarray]:
    """Three balls [T, V, 3] of 50, 50 and 30 frames that swell and shift, each in its own way; their triangles."""
    rest, faces = ball(24, 32)
    t = np.arange(50)[:, None, None] / FPS
    first = rest * (1 + np.concatenate([0.05 * np.sin(4 * t), 0.04 * np.sin(7 * t), 0.03 * np.cos(5 * t)], -1))
    second = first + np.array([0.0, 0.009, 0.0]) * np.sin(9 * t) * (rest[:, 1:2] > 0.05)
    third = first[:30] + np.array([0.004, 0.0, 0.0]) * np.cos(3 * t[:30])
    return [each.astype(np.float32) for each in (first, second, third)], faces


@pytest.fixture(scope="session")
def clicks() -> tuple[np.ndarray, int]:
    """Two seconds of silence with bursts of 1 kHz that begin at CLICKS_S."""
    rate = 16000
    waveform = np.zeros(2 * rate, np.float32)
    burst = 0.7 * np.sin(2 * np.pi * 1000 * np.arange(320) / rate)
    for start in CLICKS_S:
        waveform[round(start * rate) :][:320] = burst
    return waveform, rate
