"""Mesh sequences of any accepted form as [T, V, 3] views, with one check of their numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np

from s2f_rl.data.motion_files import load_motion
from s2f_rl.errors import UserError

if TYPE_CHECKING:  # pictures are drawn without torch
    from torch import Tensor

_AT_ONCE = 256


class FramesOnDemand:
    """A sequence [T, V, 3] too long to be held: frames are made when they are asked for.

    Args:
        n_frames, n_vertices: T and V.
        make: an index (int, slice or integer array) into T frames to these frames, float32 [V, 3] or [n, V, 3], metres.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, n_frames: int, n_vertices: int, make: Callable[[int | slice | np.ndarray], np.ndarray]) -> None:
        self.shape, self.ndim = (n_frames, n_vertices, 3), 3
        self._make = make

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        return self._make(index)

    def parts(self) -> Iterator[np.ndarray]:
        """All frames in order, [n, V, 3] at a time."""
        for start in range(0, len(self), _AT_ONCE):
            yield self[start : start + _AT_ONCE]

    def __iter__(self) -> Iterator[np.ndarray]:
        for part in self.parts():
            yield from part


Mesh: TypeAlias = "np.ndarray | Tensor"
Sequence3D: TypeAlias = "np.ndarray | Tensor | FramesOnDemand | os.PathLike[str] | str"


def as_sequence(vertices: Sequence3D, name: str = "vertices") -> np.ndarray:
    """[T, V*3] or [T, V, 3] as array, tensor or path of a file, to an array [T, V, 3]; npy files stay memory-mapped.

    Raises:
        UserError: no such shape, no frames, or not numbers; the message begins with the file or ``name``.
    """
    if isinstance(vertices, FramesOnDemand):
        return cast("np.ndarray", vertices)  # as far as cameras and painters ask
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
