"""Somebody's motion: an array per utterance, or a folder of meshes per utterance, one a frame."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from s2f_rl.data.meshes import read_mesh
from s2f_rl.data.motion_files import load_motion
from s2f_rl.errors import UserError

_ARRAYS = (".npy", ".npz")
_MESHES = (".obj", ".ply")
_AT_ONCE = 64


def list_motion(folder: Path) -> dict[str, Path]:
    """{name: file or folder}, sorted: ``NAME.npy``, or ``NAME/`` with a mesh for each frame.

    Raises UserError when the folder cannot be listed, or two entries have one name.
    """
    found: dict[str, Path] = {}
    for path in listed(folder):
        if path.is_dir() or path.suffix.lower() in _ARRAYS:
            name = path.name if path.is_dir() else path.stem
            if found.setdefault(name, path) is not path:
                raise UserError(f"{path}: is the motion of {name}, as {found[name].name} is; remove one of them")
    return found


def listed(folder: Path) -> list[Path]:
    """The visible entries of a folder, sorted. Raises UserError when it cannot be listed."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror}); give a folder") from error


def motion_parts(path: Path, n_vertices: int) -> tuple[int, Iterator[np.ndarray]]:
    """The number of frames, and the frames, float64 [n, V, 3] at a time, in the file's unit and axes.

    Raises:
        UserError: no motion of a mesh of that many vertices, or numbers that are not finite (when they are reached).
    """
    if not path.is_dir():
        array = load_motion(path)
        if (
            array.ndim not in (2, 3)
            or not len(array)
            or array[0].size != 3 * n_vertices
            or array.dtype.kind not in "fiu"
        ):
            raise UserError(
                f"{path}: has the shape {array.shape}; motion of the mesh is [frames, {n_vertices}, 3] or "
                f"[frames, {3 * n_vertices}]"
            )
        frames = array.reshape(len(array), n_vertices, 3)
        return len(frames), _finite(path, (frames[k : k + _AT_ONCE] for k in range(0, len(frames), _AT_ONCE)))
    files = [file for file in listed(path) if file.suffix.lower() in _MESHES]
    if not files:
        raise UserError(f"{path}: holds no .obj or .ply; put a mesh per frame there, or an .npy beside it")
    files.sort(key=lambda file: ([int(digits) for digits in re.findall(r"[0-9]{1,15}", file.stem)], file.name))
    return len(files), _finite(path, (_frame(file, n_vertices) for file in files))


def _frame(file: Path, n_vertices: int) -> np.ndarray:
    vertices = read_mesh(file).vertices
    if len(vertices) != n_vertices:
        raise UserError(f"{file}: has {len(vertices)} vertices, the mesh {n_vertices}; export both the same way")
    return vertices[None]


def _finite(path: Path, parts: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    for part in parts:
        if not np.isfinite(part).all():
            raise UserError(f"{path}: holds coordinates that are not finite; export it again")
        yield np.asarray(part, np.float64)
