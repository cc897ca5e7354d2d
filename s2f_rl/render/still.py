"""Single pictures and contact sheets as PNG."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from s2f_rl.data.files import atomic_path
from s2f_rl.errors import UserError
from s2f_rl.render.camera import Camera
from s2f_rl.render.extras import import_extra
from s2f_rl.render.frames import check_size, load_sequences, make_painter
from s2f_rl.render.layout import join_panels
from s2f_rl.render.meshes import Mesh, as_mesh
from s2f_rl.render.shading import Lighting


def save_png(picture: np.ndarray, out: str | os.PathLike[str]) -> None:
    """Write uint8 [H, W, 3] as PNG, atomically."""
    image_module = import_extra("PIL.Image")
    with atomic_path(out) as temporary:
        image_module.fromarray(picture).save(temporary, format="PNG")


def render_still(
    vertices: Mesh,
    faces: np.ndarray | None,
    out: str | os.PathLike[str] | None = None,
    size: int = 512,
    camera: Camera | None = None,
    colours: np.ndarray | None = None,
    samples: int = 3,
    lighting: Lighting | None = None,
) -> np.ndarray:
    """Picture of one mesh [V*3] or [V, 3]: uint8 [size, size, 3], written to ``out`` as PNG when given.

    The other arguments are those of :func:`s2f_rl.render.render_frames`.
    """
    return contact_sheet([vertices], faces, out, None, 1, size, camera, colours, samples, lighting)


def contact_sheet(
    meshes: Sequence[Mesh],
    faces: np.ndarray | None,
    out: str | os.PathLike[str] | None = None,
    captions: Sequence[str] | None = None,
    columns: int = 4,
    size: int = 256,
    camera: Camera | None = None,
    colours: np.ndarray | None = None,
    samples: int = 3,
    lighting: Lighting | None = None,
) -> np.ndarray:
    """Pictures of several meshes in rows, all seen by the same camera.

    Args:
        meshes: each [V*3] or [V, 3], metres, of one V.
        faces: integer triangles [F, 3]; None draws dots, with a warning.
        out: PNG file; None writes nothing.
        captions: one line over each mesh.
        columns: meshes in a row.
        size, camera, colours, samples, lighting: as in :func:`s2f_rl.render.render_frames`.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        UserError: shapes, numbers or options that cannot be used, or the extra is missing.
    """
    if captions is not None and len(captions) != len(meshes):
        raise UserError(f"{len(captions)} captions for {len(meshes)} meshes; pass one for each")
    if columns < 1:
        raise UserError(f"columns is {columns}; pass at least 1")
    loaded = load_sequences([as_mesh(mesh, f"mesh {i}") for i, mesh in enumerate(meshes)])
    painter = make_painter(loaded, faces, check_size(size), camera, colours, samples, lighting)
    sheet = join_panels([painter.frame(sequence[0]) for sequence in loaded], captions, columns)
    if out is not None:
        save_png(sheet, out)
    return sheet
