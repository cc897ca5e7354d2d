"""Jitter: is the motion as smooth as in the ground truth?"""

from __future__ import annotations

import torch
from torch import Tensor

from s2f_rl.metrics._meshes import ArrayLike, Indices, as_frames, as_indices, as_pair, select
from s2f_rl.metrics.amplitude import STILL_M


def rms_jerk(vertices: ArrayLike, region: Indices | None = None) -> Tensor:
    """Root mean square length of the third difference in time.

    Args:
        vertices: [.., T, V*3] or [.., T, V, 3], metres.
        region: vertex indices, or a boolean mask [V]; None for all vertices.

    Returns:
        float64 [..] in metres per frame^3, >= 0; nan for T < 4.
    """
    frames = as_frames(vertices, "vertices")
    points = frames.double() if region is None else select(frames, as_indices(region, frames, "region"))
    if points.shape[-3] < 4:
        return points.new_full(points.shape[:-3], torch.nan)
    return points.diff(n=3, dim=-3).square().sum(-1).mean((-1, -2)).sqrt()


def jitter_ratio(prediction: ArrayLike, truth: ArrayLike, region: Indices | None = None) -> Tensor:
    """:func:`rms_jerk` of the prediction over that of the truth.

    Ours. Above 1 the prediction trembles, below it is over-smoothed; 1 is best.

    Args:
        prediction, truth: [.., T, V*3] or [.., T, V, 3], metres, same number of frames.
        region: vertex indices, or a boolean mask [V]; None for all vertices.

    Returns:
        float64 [..], >= 0, without unit; nan for T < 4 or a truth without jerk (below 0.1 micrometre).

    Raises:
        UserError: shapes that do not fit, or indices outside the mesh.
    """
    prediction, truth = as_pair(prediction, truth)
    smooth = rms_jerk(truth, region)
    return torch.where(smooth > STILL_M, rms_jerk(prediction, region) / smooth, torch.nan)
