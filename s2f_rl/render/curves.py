"""Lip opening under a film: a curve for each face, the phones that are said, a cursor at the frame that is shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from s2f_rl.metrics.lips import lip_distance
from s2f_rl.render.extras import import_extra
from s2f_rl.render.layout import INK, PAPER

WINDOW_S = 4.0
"""Seconds that are seen at once; the strip then scrolls."""
COLOURS = ((102, 178, 255), (255, 176, 82), (120, 214, 130), (240, 120, 160), (200, 170, 255), (240, 228, 66))
"""Of the curves, in the order of the faces; told apart with any colour vision, on dark ground."""
_GRID = (70, 74, 82)
_FINE = 2  # drawn larger and shrunk: Pillow's lines have jagged edges


def lip_openings(sequences: Sequence[np.ndarray], regions: Mapping[str, npt.ArrayLike]) -> list[np.ndarray]:
    """Distance between the lips in every frame, mm: [T] of each sequence [T, V, 3] in metres.

    Args:
        regions: with ``upper_lip`` and ``lower_lip``, vertex numbers; a corpus's own raise a UserError without them.
    """
    upper, lower = (np.asarray(regions[name]).reshape(-1) for name in ("upper_lip", "lower_lip"))
    which, at = np.concatenate([upper, lower]), np.arange(len(upper) + len(lower))
    parts = [
        np.asarray(sequence[:, which], np.float64) for sequence in sequences
    ]  # the rest of a long one stays unread
    return [1e3 * lip_distance(part, at[: len(upper)], at[len(upper) :]).numpy() for part in parts]


@dataclass(frozen=True)
class CurveStrip:
    """What is drawn under the faces.

    Attributes:
        curves: [T] of each face, 0 or more, in ``unit``.
        captions: a name for each.
        fps: frames per second.
        phones: (phone, start, end) in seconds.
        title: what the curves are.
    """

    curves: Sequence[np.ndarray]
    captions: Sequence[str]
    fps: float
    phones: Iterable[tuple[str, float, float]] = ()
    title: str = "lip opening, mm"

    def frame(self, t: int, width: int, height: int) -> np.ndarray:
        """The strip at frame t: uint8 [height, width, 3]."""
        image, draw, font = (import_extra(f"PIL.Image{name}") for name in ("", "Draw", "Font"))
        w, h = _FINE * width, _FINE * height
        canvas = image.new("RGB", (w, h), PAPER)
        pen = draw.Draw(canvas)
        letters = font.load_default(max(8, round(0.12 * h)))
        line, row = max(_FINE, round(0.012 * h)), round(0.17 * h)
        top, bottom = row, h - row
        start, seconds = self.window(t)
        highest = self._highest

        def across(second: float) -> float:
            return (second - start) / seconds * w

        def down(value: float) -> float:
            return bottom - value / highest * (bottom - top)

        for value in (0.0, highest):
            pen.line([(0, down(value)), (w, down(value))], _GRID, line // 2)
        for phone, begins, ends in self.phones:
            if ends > start and begins < start + seconds:
                pen.line([(across(begins), bottom), (across(begins), h)], _GRID, line // 2)
                if pen.textlength(phone, font=letters) < across(ends) - across(begins):
                    pen.text((across((begins + ends) / 2), h - row / 2), phone, INK, letters, anchor="mm")
        for curve, colour in zip(self.curves, _cycled(len(self.curves)), strict=True):
            seen = range(max(0, int(start * self.fps) - 1), min(len(curve), int((start + seconds) * self.fps) + 2))
            points = [(across(i / self.fps), down(float(curve[i]))) for i in seen]
            pen.line(points, colour, line, joint="curve")
        self._legend(pen, letters, w, row, highest)
        now = across(t / self.fps)
        pen.line([(now, top), (now, bottom)], INK, line)
        return np.asarray(canvas.reduce(_FINE))

    @cached_property
    def _highest(self) -> float:
        return max(1.0, *(float(np.nanmax(curve)) for curve in self.curves))

    def window(self, t: int) -> tuple[float, float]:
        """First second and length of what is seen at frame t: the cursor stays in the middle but at the ends."""
        whole = max(len(curve) for curve in self.curves) / self.fps
        seconds = min(WINDOW_S, whole)
        return min(max(0.0, t / self.fps - seconds / 2), whole - seconds), seconds

    def _legend(self, pen, letters, w: int, row: int, highest: float) -> None:  # type: ignore[no-untyped-def]
        at = 0.4 * row
        words = [(f"{self.title} (0 to {highest:.0f})", INK)]
        words += [
            (" ".join(text.split()), colour)
            for text, colour in zip(self.captions, _cycled(len(self.curves)), strict=True)
        ]
        for text, colour in words:
            pen.text((at, row / 2), text, colour, letters, anchor="lm")
            at += pen.textlength(text, font=letters) + row


def _cycled(n: int) -> list[tuple[int, int, int]]:
    return [COLOURS[k % len(COLOURS)] for k in range(n)]
