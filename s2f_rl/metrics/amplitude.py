"""Amplitude: do the lips move as much as in the ground truth?"""

from __future__ import annotations

import torch
from torch import Tensor

from s2f_rl.metrics._meshes import ArrayLike, Indices, as_frames, as_indices, as_pair, select

STILL_M = 1e-7
"""Metres; below it a motion is float32's rounding of a face, and a ratio to it means nothing."""


def motion_amplitude(vertices: ArrayLike, region: Indices) -> Tensor:
    """Root mean square distance of the region's vertices from their own mean over time.

    sqrt(mean over frames and vertices of |x[t, v] - mean over frames of x[v]|^2): the temporal standard deviation,
    pooled over the vertices by variance.

    Args:
        vertices: [.., T, V*3] or [.., T, V, 3], metres.
        region: vertex indices, or a boolean mask [V].

    Returns:
        float64 [..] in metres, >= 0; nan for T < 2.
    """
    frames = as_frames(vertices, "vertices")
    points = select(frames, as_indices(region, frames, "region"))
    if points.shape[-3] < 2:
        return points.new_full(points.shape[:-3], torch.nan)
    return (points - points.mean(-3, keepdim=True)).square().sum(-1).mean((-1, -2)).sqrt()


def amplitude_ratio(prediction: ArrayLike, truth: ArrayLike, lip: Indices) -> Tensor:
    """:func:`motion_amplitude` of the prediction over that of the truth, on the lip vertices.

    Ours. Regression to the mean shows as a ratio below 1, over-articulation as one above; 1 is best.

    Args:
        prediction, truth: [.., T, V*3] or [.., T, V, 3], metres, same number of frames.
        lip: indices of the lip vertices, or a boolean mask [V].

    Returns:
        float64 [..], >= 0, without unit; nan for T < 2 or a truth that does not move (less than 0.1 micrometre).

    Raises:
        UserError: shapes that do not fit, or indices outside the mesh.
    """
    prediction, truth = as_pair(prediction, truth)
    indices = as_indices(lip, prediction, "lip")
    still = motion_amplitude(truth, indices)
    return torch.where(still > STILL_M, motion_amplitude(prediction, indices) / still, torch.nan)
