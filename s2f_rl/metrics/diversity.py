"""Diversity: how different are several animations of the same speech?"""

from __future__ import annotations

import torch
from torch import Tensor

from s2f_rl.errors import UserError
from s2f_rl.metrics._meshes import ArrayLike, Indices, as_frames, as_indices, select


def diversity(samples: ArrayLike, region: Indices | None = None) -> Tensor:
    """Mean distance between the same vertex in two samples, over vertices, frames and all pairs of samples.

    FaceDiffuser (Stan et al., 2023) averages over pairs of styles in the same way; pass one sequence per style for
    that, or samples of a stochastic policy.

    Args:
        samples: [N, T, V*3] or [N, T, V, 3], metres, N at least 2.
        region: vertex indices, or a boolean mask [V]; None for all vertices.

    Returns:
        float64 scalar in metres, >= 0; nan for T = 0.

    Raises:
        UserError: fewer than two samples, another number of dimensions, or indices outside the mesh.
    """
    frames = as_frames(samples, "samples")
    if frames.ndim != 4 or frames.shape[0] < 2:
        raise UserError(f"samples have shape {list(frames.shape)}; expected at least two: [N, T, V, 3] or [N, T, V*3]")
    points = frames if region is None else select(frames, as_indices(region, frames, "region"))
    pairs = torch.combinations(torch.arange(points.shape[0]))
    distances = [(points[i].double() - points[j].double()).norm(dim=-1).mean() for i, j in pairs.tolist()]
    return torch.stack(distances).mean()
