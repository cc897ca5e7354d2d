"""A picture of a corpus's regions: lips and upper face coloured on the face at rest, to see what was found."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from s2f_rl.data.coefficients.rig import description_of, load_rig, require_basis, resting_faces
from s2f_rl.data.regions import load_regions
from s2f_rl.data.units import published_unit
from s2f_rl.errors import one_line
from s2f_rl.render.camera import Camera, frame_camera
from s2f_rl.render.colours import SKIN
from s2f_rl.render.extras import import_extra
from s2f_rl.render.faces import find_faces
from s2f_rl.render.layout import INK, PAPER, join_panels
from s2f_rl.render.still import render_still, save_png

SHOWN = {
    "upper_face": (72, 120, 200),
    "lips": (214, 62, 62),
    "upper_lip": (250, 214, 70),
    "lower_lip": (120, 220, 120),
}
"""Colours (sRGB) of the regions that measures and rewards use; later ones are drawn over earlier ones."""


def corpus_regions_picture(
    root: str | os.PathLike[str], out: str | os.PathLike[str], topology: str | None = None
) -> np.ndarray:
    """:func:`regions_picture` of the first face of a corpus folder; regions that cannot be read are shown as missing.

    Raises:
        UserError: no face or no description that can be read, or the extra is missing.
    """
    root = Path(root)
    rig = load_rig(root)
    require_basis(root, rig, "a picture of the face")
    described = description_of(root, rig, topology).metres_per_unit
    templates, in_metres = resting_faces(root, rig, ["everybody"])
    size = 1.0 if in_metres else described or published_unit(templates)
    subject, flat = next(iter(templates.items()))
    points = flat.reshape(-1, 3).astype(np.float64) * size
    regions = load_regions(root, len(points), points, on_fault=lambda *_: None)
    found = {name: numbers.numpy() for name, numbers in regions.items()}
    faces = find_faces(root, len(points))
    return regions_picture(points, faces, found, out, f"{root.resolve().name}, {subject}")


def regions_picture(
    points: np.ndarray,
    faces: np.ndarray | None,
    regions: Mapping[str, npt.ArrayLike],
    out: str | os.PathLike[str] | None = None,
    title: str = "",
    size: int = 420,
) -> np.ndarray:
    """The face from the front, from its left and its mouth, with a legend that counts vertices.

    Args:
        points: [V, 3], metres, upright. faces: triangles [F, 3]; None draws dots.
        regions: vertex numbers by name; those of :data:`SHOWN` are coloured, and said to be missing where they are.
        out: PNG file; None writes nothing. title: over the first view. size: side of one view, pixels.

    Returns:
        uint8 [H, 3 * size, 3], RGB.

    Raises:
        UserError: a mesh that cannot be drawn, or the extra is missing.
    """
    colours = np.tile(np.array(SKIN, np.uint8), (len(points), 1))
    numbers = {name: np.asarray(regions.get(name, ()), dtype=np.int64).reshape(-1) for name in SHOWN}
    for name, own in numbers.items():
        colours[own] = SHOWN[name]
    whole = points[None]
    mouth = whole[:, numbers["lips"]] if len(numbers["lips"]) else whole
    views: dict[str, Camera] = {
        f"front: {one_line(title)}" if title else "front": frame_camera([whole]),
        "from its left": frame_camera([whole], yaw_degrees=75),
        "mouth": frame_camera([mouth], 0.6 if len(numbers["lips"]) else 0.06),
    }
    pictures = [render_still(points, faces, None, size, camera, colours) for camera in views.values()]
    sheet = np.concatenate([join_panels(pictures, list(views), 3), _legend(numbers, len(points), 3 * size)])
    if out is not None:
        save_png(sheet, out)
    return sheet


def _legend(numbers: Mapping[str, np.ndarray], n_vertices: int, width: int) -> np.ndarray:
    """A strip with a square, name and count for each region: uint8 [h, width, 3]."""
    image_module, draw_module = import_extra("PIL.Image"), import_extra("PIL.ImageDraw")
    height = max(16, width // 32)
    strip = image_module.new("RGB", (width, height), PAPER)
    draw = draw_module.Draw(strip)
    font = import_extra("PIL.ImageFont").load_default(round(0.42 * height))
    entries: list[tuple[tuple[int, int, int], str]] = [
        (SHOWN[name], f"{name} {len(own)}" if len(own) else f"{name}: missing") for name, own in numbers.items()
    ]
    entries.append((SKIN, f"of {n_vertices} vertices"))
    step = width / len(entries)
    for place, (colour, text) in enumerate(entries):
        left = round(place * step + 0.4 * height)
        draw.rectangle((left, 0.28 * height, left + 0.44 * height, 0.72 * height), fill=colour)
        draw.text((left + 0.7 * height, height / 2), text, fill=INK, font=font, anchor="lm")
    return np.asarray(strip)
