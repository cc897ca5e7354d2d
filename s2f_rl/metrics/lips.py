"""Lip opening: the curve that misalignment, lag and closure are measured on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from s2f_rl.metrics._meshes import ArrayLike, Indices, as_frames, as_indices, as_tensor, select


def lip_distance(vertices: ArrayLike, upper_lip: Indices, lower_lip: Indices) -> Tensor:
    """Distance between the upper and the lower lip in every frame.

    Args:
        vertices: [.., T, V*3] or [.., T, V, 3], metres.
        upper_lip, lower_lip: a vertex of each lip, at its centre; of several, their mean point is taken.

    Returns:
        float64 [.., T] in metres, >= 0.

    Raises:
        UserError: a shape that is no mesh sequence, or indices outside the mesh.
    """
    frames = as_frames(vertices, "vertices")
    upper = select(frames, as_indices(upper_lip, frames, "upper_lip")).mean(-2)
    lower = select(frames, as_indices(lower_lip, frames, "lower_lip")).mean(-2)
    return (upper - lower).norm(dim=-1)


def rest_lip_distance(template: ArrayLike, upper_lip: Indices, lower_lip: Indices) -> Tensor:
    """:func:`lip_distance` of one neutral face [V*3] or [V, 3]: float64 scalar in metres."""
    mesh = as_tensor(template, "template")
    frame = mesh.unsqueeze(0) if mesh.ndim == 2 and mesh.shape[-1] == 3 else mesh.reshape(1, -1)
    return lip_distance(frame, upper_lip, lower_lip)[0]


def map_curves(measure: Callable[[np.ndarray, np.ndarray], float], prediction: Tensor, truth: Tensor) -> Tensor:
    """``measure(prediction [T], truth [T])`` for every pair of curves in [.., T]: float64 [..] on their device."""
    batch = prediction.shape[:-1]
    rows = zip(
        prediction.flatten(0, -2) if batch else prediction[None],
        truth.flatten(0, -2) if batch else truth[None],
        strict=True,
    )
    values = [measure(p.cpu().numpy(), t.cpu().numpy()) for p, t in rows]
    return torch.tensor(values, dtype=torch.float64, device=prediction.device).reshape(batch)
