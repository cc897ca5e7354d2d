"""Curves over time as a piece of a page: an inline SVG that needs no script and follows the page's colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from s2f_rl.pages import escape

_HEIGHT = 100.0
_WIDTH = 1000.0
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Curve:
    """One measure of several things.

    Attributes:
        title: what is drawn, such as "Lip opening".
        unit: of the values, such as "mm"; may be empty.
        series: name -> (x [n], y [n]); y may hold NaN, where the line breaks. A name without finite values takes a
            colour and no line, so that one thing has one colour in all curves.
    """

    title: str
    unit: str
    series: Mapping[str, tuple[np.ndarray, np.ndarray]]


def plots_style() -> str:
    """CSS of all curves, and the colours of the page that they are on, light and dark."""
    return files("s2f_rl.view").joinpath("plots.css").read_text(encoding="utf-8")


def draw(curve: Curve, span: tuple[float, float] | None = None, x_label: str = "") -> str:
    """The curve as ``<figure class="plot">``: a legend, the limits of both axes and the lines.

    Args:
        curve: its series are coloured by ``--series-1`` .. ``--series-8`` of ``plots.css``, in their order.
        span: least and greatest x; None: those of the series.
        x_label: what x is, written below with its limits; "": neither is written.

    Returns:
        HTML. Element ``.area`` is the plane, ``.cursor`` in it a line that a script may move, ``output`` in the legend
        a place for the value there.
    """
    drawn = {name: (np.asarray(x, np.float64), np.asarray(y, np.float64)) for name, (x, y) in curve.series.items()}
    xs = [x[np.isfinite(x)] for x, y in drawn.values() if np.isfinite(y).any()]
    ys = [y[np.isfinite(y)] for _, y in drawn.values()]
    every_x, every_y = (np.concatenate([*each, np.empty(0)]) for each in (xs, ys))
    if span is None:
        span = (float(every_x.min()), float(every_x.max())) if len(every_x) else (0.0, 1.0)
    low, high = _limits(every_y)
    legend, lines = [], []
    for number, (name, (x, y)) in enumerate(drawn.items(), start=1):
        if not np.isfinite(y).any():
            continue
        colour = f"c{(number - 1) % 8 + 1}"
        place = f'<output data-series="{number - 1}"></output>'
        legend.append(f'<li class="{colour}"><span>{escape(name)}</span> {place}</li>')
        width = (span[1] - span[0]) or 1.0
        lines.append(f'<path class="{colour}" d="{_path((x - span[0]) / width, (y - low) / (high - low))}"/>')
    unit = f" ({curve.unit})" if curve.unit else ""
    told = f"{curve.title}{unit} of {', '.join(name for name, (_, y) in drawn.items() if np.isfinite(y).any())}"
    below = ""
    if x_label:
        told += f" by {x_label}"
        first, last = (round(x, 2) for x in span)
        below = f'<p class="x"><span>{first:g}</span><span>{escape(x_label)}</span><span>{last:g}</span></p>'
    return (
        f'<figure class="plot"><figcaption><b>{escape(curve.title)}</b>{escape(unit)}'
        f"<ul>{''.join(legend)}</ul></figcaption>"
        f'<div class="area"><svg role="img" aria-label="{escape(told)}" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" '
        f'preserveAspectRatio="none">{"".join(lines)}</svg>'
        f'<span class="top">{high:g}</span><span class="bottom">{low:g}</span>'
        f'<i class="cursor"></i></div>{below}</figure>'
    )


def _path(x: np.ndarray, y: np.ndarray) -> str:
    """SVG's path of points in the unit square; a new stroke after every gap, and a dot where a point stands alone."""
    words, n = [], 0  # points of the stroke so far
    for a, b in [*zip(x, y, strict=True), (np.nan, np.nan)]:
        if np.isfinite(a + b):
            words.append(f"{'L' if n else 'M'}{_WIDTH * a:.1f} {_HEIGHT * (1 - b):.1f}")
            n += 1
        else:
            words += ["h0"] if n == 1 else []
            n = 0
    return "".join(words)


def _limits(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Round numbers below and above all values, from zero where nothing is negative and zero is near."""
    if len(values) == 0:
        return 0.0, 1.0
    low, high = float(np.min(values)), float(np.max(values))
    if 0 <= low < 0.5 * high or low == high == 0:
        low = 0.0
    least = 1e-5 * max(abs(low), abs(high))  # below it six digits are the same
    step = _rounded(max((high - low) / 4 or abs(high), least) or 1.0)
    bottom, top = np.floor(low / step) * step, np.ceil(high / step) * step
    return float(f"{bottom:.6g}"), float(f"{top if top > bottom else bottom + step:.6g}")


def _rounded(value: float) -> float:
    """The next number of the form 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(power * next(step for step in _STEPS if step * power >= value * (1 - 1e-9)))


def rounded_up(value: float) -> float:
    """A round number at least as great as ``value``, for the end of a scale; 1 for what is not above 0."""
    return _rounded(value) if value > 0 and np.isfinite(value) else 1.0
