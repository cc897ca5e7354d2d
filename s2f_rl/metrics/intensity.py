"""Lip intensity: how strongly the lips move."""

from __future__ import annotations

import torch
from torch import Tensor

from s2f_rl.metrics._meshes import ArrayLike, Indices, as_frames, as_indices, select


def lip_intensity(vertices: ArrayLike, lip: Indices) -> Tensor:
    """Root mean square over the frame steps of the mean displacement length of the lip vertices.

    Chae-Yeon et al., CVPR 2025 (there correlated with the intensity of the speech). Repeated indices count repeatedly,
    as in the published index list.

    Args:
        vertices: [.., T, V*3] or [.., T, V, 3], metres.
        lip: indices of the lip vertices, or a boolean mask [V].

    Returns:
        float64 [..] in metres per frame, >= 0; nan for T < 2.

    Raises:
        UserError: a shape that is no mesh sequence, or indices outside the mesh.
    """
    frames = as_frames(vertices, "vertices")
    if frames.shape[-3] == 0:  # torch.diff refuses an empty dimension
        return frames.new_full(frames.shape[:-3], torch.nan, dtype=torch.float64)
    step = select(frames, as_indices(lip, frames, "lip")).diff(dim=-3).norm(dim=-1)
    return step.mean(-1).square().mean(-1).sqrt()
