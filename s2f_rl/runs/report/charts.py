"""Curves as SVG that stands inside a page: colours, and so light and dark, are the page's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from s2f_rl.errors import printable

Points = Sequence[tuple[float, float]]
"""(x, y), sorted by x, finite."""
_WIDTH, _HEIGHT = 340, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 8, 22
_MOST_POINTS = 240


def line_chart(title: str, series: Mapping[str, Points], x_label: str = "iteration") -> str:
    """A figure with its title, a line (class ``s0``, ``s1``, ...) for each series, and ticks at round numbers.

    A series of one point is a dot. Long series are thinned to 240 points: of every stretch its lowest and highest, so
    that no peak is lost.

    Raises:
        ValueError: no points at all.
    """
    points = [point for each in series.values() for point in each]
    x_low, x_high = _span([x for x, _ in points])
    y_low, y_high = _span([y for _, y in points])
    y_ticks, x_ticks = round_ticks(y_low, y_high), round_ticks(x_low, x_high, 4)
    y_low, y_high = min(y_low, y_ticks[0]), max(y_high, y_ticks[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)
        return _LEFT + across, _TOP + (y_high - y) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = []
    for tick in y_ticks:
        y = place(x_low, tick)[1]
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in x_ticks:
        x = place(tick, y_low)[0]
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{tick:g}</text>')
    for number, each in enumerate(series.values()):
        placed = [place(x, y) for x, y in thinned(each)]
        if len(placed) == 1:
            parts.append(f'<circle class="dot s{number}" cx="{placed[0][0]:.1f}" cy="{placed[0][1]:.1f}" r="2.5"/>')
        elif placed:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
            parts.append(f'<polyline class="s{number}" points="{path}"/>')
    name = escape(printable(title))
    ends = ", ".join(f"{escape(printable(n))} {p[0][1]:.4g} to {p[-1][1]:.4g}" for n, p in series.items() if p)
    keys = "".join(f'<span class="key s{k}">{escape(printable(n))}</span>' for k, n in enumerate(series))
    legend = f"<span class=keys>{keys}</span>" if len(series) > 1 else ""
    return (
        f'<figure><figcaption>{name}{legend}</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{name} by {escape(x_label)}: {ends}">{"".join(parts)}</svg></figure>'
    )


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


def round_ticks(low: float, high: float, most: int = 4) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten between two numbers, at most ``most`` + 1; ``low`` < ``high``."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12 - math.floor(math.log10(step))) for k in range(first, last + 1)] or [low]


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest, apart."""
    low, high = min(values), max(values)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-12):
        margin = 0.05 * abs(low) or 1.0
        return low - margin, high + margin
    return low, high
