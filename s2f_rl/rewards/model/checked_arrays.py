"""What a reward and a judge take from outside: arrays and tensors, brought to the model and checked."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from s2f_rl.errors import UserError
from s2f_rl.rewards.model.speech_mesh import MEL_SHAPE, flat_vertices

ArrayLike = Tensor | np.ndarray


def beside(array: ArrayLike, weight: Tensor) -> Tensor:
    """``array`` with the device and type of a model's ``weight``."""
    return torch.as_tensor(array).to(device=weight.device, dtype=weight.dtype)


def mel_input(mel_clips: ArrayLike, weight: Tensor) -> Tensor:
    """Mel clips [M, 20, 128] or [M, 1, 20, 128] -> [M, 20, 128] beside ``weight``. Raises UserError for others."""
    mel = beside(mel_clips, weight)
    if mel.ndim == 4 and mel.shape[1] == 1:
        mel = mel[:, 0]
    if mel.ndim != 3 or tuple(mel.shape[1:]) != MEL_SHAPE:
        raise UserError(f"mel clips have shape {list(mel.shape)}, expected [n, 20, 128]: see s2f_rl.data.mel_clips")
    return mel


def mesh_input(vertices: ArrayLike, n_coordinates: int, weight: Tensor, batched: bool) -> Tensor:
    """Vertices [(B,) T, V*3] or [(B,) T, V, 3] -> [(B,) T, V*3] beside ``weight``.

    Raises:
        UserError: another number of vertices or axes.
    """
    meshes = flat_vertices(beside(vertices, weight), n_coordinates)
    if meshes.ndim != (3 if batched else 2):
        expected = "[B, T, V*3]" if batched else "[T, V*3]"
        raise UserError(f"vertices have shape {list(vertices.shape)}, expected {expected}")
    return meshes
