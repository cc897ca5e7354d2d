"""One mesh, or its triangles, out of whatever file somebody has it in."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from s2f_rl.data.files import load_npy
from s2f_rl.data.glb_files import read_glb
from s2f_rl.data.mesh_files import Mesh, read_obj_mesh, read_ply_mesh
from s2f_rl.errors import UserError

SUFFIXES = (".obj", ".ply", ".glb", ".npy")


def read_mesh(path: Path) -> Mesh:
    """The mesh of an OBJ, PLY, GLB or npy file ([V, 3] or [V*3], without triangles), in the file's unit and axes.

    Raises:
        UserError: another kind of file, or one that cannot be read.
    """
    readers = {".obj": read_obj_mesh, ".ply": read_ply_mesh, ".glb": _read_glb, ".npy": _read_npy}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: no mesh that is read here; export it as {', '.join(SUFFIXES)}")
    return reader(path)


def read_triangles(path: Path) -> np.ndarray:
    """The triangles [F, 3] of an OBJ, PLY or GLB file, or of an npy file that holds nothing else (unchecked).

    Raises:
        UserError: another kind of file, one that cannot be read, or a mesh without triangles.
    """
    faces = load_npy(path, mmap=False) if path.suffix.lower() == ".npy" else read_mesh(path).faces
    if not len(faces):
        raise UserError(f"{path}: holds no triangles; export the face with its surface")
    return faces


def _read_glb(path: Path) -> Mesh:
    """All objects of the file as one mesh at rest; they are its groups."""
    objects = read_glb(path)
    if not objects:
        raise UserError(f"{path}: holds no mesh; export the face with its object")
    starts = np.cumsum([0, *(len(each.vertices) for each in objects)])
    groups: dict[str, np.ndarray] = {}
    for each, start in zip(objects, starts, strict=False):
        own = np.arange(start, start + len(each.vertices))
        groups[each.name] = np.concatenate([groups.get(each.name, own[:0]), own])
    known = [each.colours for each in objects if each.colours is not None]
    return Mesh(
        np.concatenate([each.vertices for each in objects]),
        np.concatenate([each.triangles + start for each, start in zip(objects, starts, strict=False)]).astype(np.int32),
        np.concatenate(known) if len(known) == len(objects) else None,
        groups,
    )


def _read_npy(path: Path) -> Mesh:
    array = load_npy(path, mmap=False)
    if array.size == 0 or array.size % 3 or not (array.ndim == 1 or array.ndim == 2 and array.shape[1] == 3):
        raise UserError(f"{path}: has the shape {array.shape}; a mesh is [V, 3]")
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise UserError(f"{path}: holds numbers that are not finite; export it again")
    return Mesh(array.reshape(-1, 3).astype(np.float64), np.empty((0, 3), np.int32))
