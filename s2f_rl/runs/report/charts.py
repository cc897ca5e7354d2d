"""Curves of a report: columns of a run's rows, or a measure over the seconds of an utterance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from s2f_rl.view.curves import Curve, draw

Points: TypeAlias = Sequence[tuple[float, float]]
"""(x, y), sorted by x, finite."""
_MOST_POINTS = 240


def line_chart(title: str, unit: str, series: Mapping[str, Points], x_label: str = "iteration") -> str:
    """The :func:`~s2f_rl.view.curves.draw` of some series, long ones :func:`thinned`."""
    arrays = {name: np.array(thinned(points), np.float64).reshape(-1, 2).T for name, points in series.items()}
    return draw(Curve(title, unit, {name: (x, y) for name, (x, y) in arrays.items()}), x_label=x_label)


def thinned(points: Points) -> Points:
    """At most 240 points: the lowest and the highest of every stretch, and the last."""
    if len(points) <= _MOST_POINTS:
        return points
    kept: list[tuple[float, float]] = []
    n_stretches = _MOST_POINTS // 2 - 1
    for k in range(n_stretches):
        stretch = points[k * len(points) // n_stretches : (k + 1) * len(points) // n_stretches]
        low, high = min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])
        kept += sorted({low, high})
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]
