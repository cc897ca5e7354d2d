"""Mesh sequences of any accepted form as [T, V, 3] views, with one check of their numbers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from s2f_rl.data.motion_files import load_motion
from s2f_rl.errors import UserError

if TYPE_CHECKING:  # pictures are drawn without torch
    from torch import Tensor

Mesh: TypeAlias = "np.ndarray | Tensor"
Sequence3D: TypeAlias = "np.ndarray | Tensor | os.PathLike[str] | str"


def as_sequence(vertices: Sequence3D, name: str = "vertices") -> np.ndarray:
    """[T, V*3] or [T, V, 3] as array, tensor or path of a file, to an array [T, V, 3]; npy files stay memory-mapped.

    Raises:
        UserError: no such shape, no frames, or not numbers; the message begins with the file or ``name``.
    """
    if isinstance(vertices, (str, os.PathLike)):
        name, array = os.fspath(vertices), load_motion(vertices)
    else:
        array = np.asarray(vertices.detach().cpu() if hasattr(vertices, "detach") else vertices)
    if array.dtype.kind not in "fiu":
        raise UserError(f"{name}: holds {array.dtype}, not vertex coordinates")
    if array.ndim == 2 and array.shape[1] >= 3 and array.shape[1] % 3 == 0:
        array = array.reshape(len(array), -1, 3) if len(array) else array.reshape(0, array.shape[1] // 3, 3)
    if array.ndim != 3 or array.shape[2] != 3 or array.shape[1] == 0:
        raise UserError(f"{name}: has shape {list(array.shape)}; expected vertices [T, V*3] or [T, V, 3]")
    if len(array) == 0:
        raise UserError(f"{name}: has no frames")
    return array


def as_mesh(vertices: Mesh, name: str = "vertices") -> np.ndarray:
    """One mesh [V*3] or [V, 3] to an array [1, V, 3]. Raises UserError for another shape."""
    array = np.asarray(vertices.detach().cpu() if hasattr(vertices, "detach") else vertices)
    if array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 3):
        return as_sequence(array[None], name)
    raise UserError(f"{name}: has shape {list(array.shape)}; expected one mesh, [V*3] or [V, 3]")


def check_finite(sequence: np.ndarray, name: str) -> None:
    """Raise UserError that names the first frame of [T, V, 3] with a coordinate that is no finite float32."""
    limit = float(np.finfo(np.float32).max)
    for t, frame in enumerate(sequence):  # frame by frame: a long memory-mapped sequence is never held at once
        if not (np.abs(frame.astype(np.float64)) <= limit).all():  # False for nan as well
            raise UserError(f"{name}: frame {t} holds coordinates that are not finite; predict or export it again")
