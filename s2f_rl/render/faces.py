"""Triangle lists: found in a corpus folder, checked, turned outward."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from s2f_rl.data import mesh_files
from s2f_rl.errors import UserError

_log = logging.getLogger(__name__)


def check_faces(faces: npt.ArrayLike, n_vertices: int, name: str = "faces") -> np.ndarray:
    """Triangles as int32 [F, 3]. Raises UserError for another shape, no triangle, or indices outside the mesh."""
    faces = np.asarray(faces.cpu() if hasattr(faces, "cpu") else faces)
    if faces.ndim != 2 or faces.shape[1] != 3 or len(faces) == 0 or faces.dtype.kind not in "iu":
        raise UserError(f"{name}: has shape {list(faces.shape)} of {faces.dtype}; expected integer triangles [F, 3]")
    low, high = int(faces.min()), int(faces.max())
    if low < 0 or high >= n_vertices:
        wrong = low if low < 0 else high
        raise UserError(f"{name}: refers to vertex {wrong} of a mesh with {n_vertices} vertices; use its own triangles")
    return np.ascontiguousarray(faces, dtype=np.int32)


def outward(faces: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Faces [F, 3] with the winding that shows the outside of ``vertices`` [V, 3]: anticlockwise, seen from there.

    Decides between the two windings of the whole list. On a closed head most faces look away from its middle; on an
    open mask, however flat, they look forward (+z); the area-weighted mean of both cosines tells.
    """
    points = np.asarray(vertices, np.float64)
    a, b, c = (points[faces[:, corner]] for corner in range(3))
    normal = np.cross(b - a, c - a)
    away = (a + b + c) / 3 - points.mean(0)
    length = np.linalg.norm(away, axis=1)
    cosines = (normal * away).sum(1) / np.where(length > 0, length, 1.0) + normal[:, 2]
    return np.ascontiguousarray(faces[:, ::-1]) if cosines.sum() < 0 else faces


def find_faces(root: str | os.PathLike[str], n_vertices: int) -> np.ndarray | None:
    """Triangles int32 [F, 3] that a corpus folder brings for meshes of ``n_vertices``, or None.

    First what the corpus itself knows (``faces.npy``, ``FLAME_sample.ply``, ``BIWI.ply``: see
    :func:`s2f_rl.data.mesh_files.find_faces`), then any other ``*.ply`` or ``*.obj`` in the folder or in its
    ``templates/``, by name. Of these, meshes of another size or that cannot be read are passed over with a warning.
    """
    root = Path(root)
    known = mesh_files.find_faces(root, n_vertices)
    if known is not None:
        return check_faces(known, n_vertices, f"{root}: its triangles")
    for folder in (root, root / "templates"):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.suffix.lower() not in (".ply", ".obj") or path.name.startswith(".") or not path.is_file():
                continue
            try:
                if path.suffix.lower() == ".obj":
                    vertices, faces = mesh_files.read_obj(path)
                    size = len(vertices)
                else:
                    faces = mesh_files.read_ply_faces(path)
                    size = int(faces.max(initial=-1)) + 1  # as good as the number of vertices: meshes use their last
                if size == n_vertices:
                    return check_faces(faces, n_vertices, str(path))
                _log.warning("%s: a mesh of %d vertices, not %d; its triangles are not used", path, size, n_vertices)
            except UserError as error:
                _log.warning("%s; its triangles are not used", error)
    return None
