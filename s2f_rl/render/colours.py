"""Colours of a corpus's faces."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from s2f_rl.data.files import load_npy
from s2f_rl.errors import UserError

SKIN = (211, 178, 158)
REGION_COLOURS = {
    "lips": (190, 112, 107),
    "left_eyeball": (226, 223, 218),
    "right_eyeball": (226, 223, 218),
}
"""sRGB of FLAME's regions that are not skin."""


def region_colours(n_vertices: int, regions: Mapping[str, npt.ArrayLike]) -> np.ndarray:
    """Skin, with lips and eyeballs where their vertex indices are known: uint8 [V, 3], sRGB.

    Raises:
        UserError: a region that refers to vertices the mesh does not have.
    """
    colours = np.tile(np.array(SKIN, np.uint8), (n_vertices, 1))
    for name, colour in REGION_COLOURS.items():
        if name not in regions:
            continue
        indices = np.asarray(regions[name], dtype=np.int64).reshape(-1)
        if indices.size and (indices.min() < 0 or indices.max() >= n_vertices):
            raise UserError(
                f"region {name}: holds index {indices.max()}, the meshes have {n_vertices} vertices; "
                "use their own regions"
            )
        colours[indices] = colour
    return colours


def check_colours(colours: npt.ArrayLike, n_vertices: int, name: str = "colours") -> np.ndarray:
    """Colours as uint8 [V, 3]. Raises UserError for another shape or type."""
    array = np.asarray(colours)
    if array.shape != (n_vertices, 3) or array.dtype != np.uint8:
        raise UserError(f"{name}: has shape {list(array.shape)} of {array.dtype}; expected uint8 [{n_vertices}, 3]")
    return array


def find_colours(
    root: str | os.PathLike[str], n_vertices: int, regions: Mapping[str, npt.ArrayLike], subject: str | None = None
) -> np.ndarray:
    """Colours that a corpus folder brings: ``colours/SUBJECT.npy``, ``colours.npy``, else :func:`region_colours`.

    Both files hold uint8 [V, 3], sRGB; the built-in corpus has them. Raises UserError when one is there but unfit.
    """
    for path in ([Path(root) / "colours" / f"{subject}.npy"] if subject else []) + [Path(root) / "colours.npy"]:
        if path.is_file():
            return check_colours(load_npy(path, mmap=False), n_vertices, str(path))
    return region_colours(n_vertices, regions)
