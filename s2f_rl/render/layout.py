"""Captions and panels: text without system fonts, pictures side by side."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from s2f_rl.render.extras import import_extra

INK = (232, 232, 228)
PAPER = (27, 29, 34)


@lru_cache(maxsize=64)
def caption_strip(text: str, width: int, height: int) -> np.ndarray:
    """One line of text in the middle of a strip, set smaller and then cut to fit: uint8 [height, width, 3]."""
    image_module, draw_module = import_extra("PIL.Image"), import_extra("PIL.ImageDraw")
    font_module = import_extra("PIL.ImageFont")
    strip = image_module.new("RGB", (width, height), PAPER)
    draw = draw_module.Draw(strip)
    text = " ".join(text.split())
    points = max(6, round(0.62 * height))
    while True:
        font = font_module.load_default(points)
        if draw.textlength(text, font=font) <= 0.94 * width or points <= max(6, 0.35 * height):
            break
        points -= 1
    shown = text
    while len(shown) > 1 and draw.textlength(shown, font=font) > 0.94 * width:
        shown = shown[:-2] + "…"
    draw.text((width / 2, height / 2), shown, fill=INK, font=font, anchor="mm")
    strip_array = np.asarray(strip).copy()
    strip_array.flags.writeable = False  # it is shared by the cache
    return strip_array


def caption_height(size: int) -> int:
    """Height of the strip over a picture of ``size`` pixels."""
    return max(12, round(0.085 * size))


def join_panels(pictures: Sequence[np.ndarray], captions: Sequence[str] | None, columns: int) -> np.ndarray:
    """Pictures [size, size, 3] in rows of ``columns``, each under its caption: uint8 [H, W, 3]."""
    size = pictures[0].shape[1]
    if captions is not None:
        strip = caption_height(size)
        pictures = [
            np.concatenate([caption_strip(text, size, strip), picture])
            for text, picture in zip(captions, pictures, strict=True)
        ]
    columns = min(columns, len(pictures))
    blank = np.broadcast_to(np.array(PAPER, np.uint8), pictures[0].shape)
    padded = [*pictures, *[blank] * (-len(pictures) % columns)]
    rows = [np.concatenate(padded[i : i + columns], 1) for i in range(0, len(padded), columns)]
    return np.concatenate(rows)
