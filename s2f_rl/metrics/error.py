"""Distance errors: lip vertex error and maximal vertex error."""

from __future__ import annotations

import torch
from torch import Tensor

from s2f_rl.metrics._meshes import ArrayLike, Indices, as_indices, as_pair, select


def lip_vertex_error_per_frame(prediction: ArrayLike, truth: ArrayLike, lip: Indices) -> Tensor:
    """Largest squared distance over the lip vertices, per frame: float64 [.., T] in squared metres."""
    prediction, truth = as_pair(prediction, truth)
    indices = as_indices(lip, prediction, "lip")
    return (select(prediction, indices) - select(truth, indices)).square().sum(-1).amax(-1)


def lip_vertex_error(prediction: ArrayLike, truth: ArrayLike, lip: Indices) -> Tensor:
    """LVE: per frame the largest *squared* L2 error over the lip vertices, averaged over the frames.

    MeshTalk (Richard et al., ICCV 2021) defines it; the squared distance is that of CodeTalker's (Xing et al., CVPR
    2023) published script. Other codes take the plain distance, so figures from different sources cannot be compared.

    Args:
        prediction, truth: [.., T, V*3] or [.., T, V, 3], metres, same number of frames.
        lip: indices of the lip vertices, or a boolean mask [V].

    Returns:
        float64 [..] in squared metres (a scalar for one sequence), >= 0; nan for T = 0. Differentiable.

    Raises:
        UserError: shapes that do not fit, or indices outside the mesh.
    """
    return lip_vertex_error_per_frame(prediction, truth, lip).mean(-1)


def max_vertex_error_per_frame(prediction: ArrayLike, truth: ArrayLike) -> Tensor:
    """Largest squared distance over all vertices, per frame: float64 [.., T] in squared metres."""
    prediction, truth = as_pair(prediction, truth)
    if prediction.shape[-3] == 0:
        return prediction.new_zeros(prediction.shape[:-2], dtype=torch.float64)
    frames = zip(prediction.unbind(-3), truth.unbind(-3), strict=True)  # frame by frame: no full-size float64 copies
    return torch.stack([(p.double() - t.double()).square().sum(-1).amax(-1) for p, t in frames], -1)


def max_vertex_error(prediction: ArrayLike, truth: ArrayLike) -> Tensor:
    """MVE: :func:`lip_vertex_error` over all vertices of the face.

    Args:
        prediction, truth: [.., T, V*3] or [.., T, V, 3], metres, same number of frames.

    Returns:
        float64 [..] in squared metres, >= 0; nan for T = 0. Differentiable.

    Raises:
        UserError: shapes that do not fit.
    """
    return max_vertex_error_per_frame(prediction, truth).mean(-1)
