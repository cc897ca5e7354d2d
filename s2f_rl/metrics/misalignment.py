"""Mean temporal misalignment: how many frames an opening or closing of the lips comes too early or too late."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from s2f_rl.errors import UserError
from s2f_rl.metrics._meshes import ArrayLike, Indices, as_pair
from s2f_rl.metrics.amplitude import STILL_M
from s2f_rl.metrics.lips import lip_distance, map_curves
from s2f_rl.metrics.warping import dynamic_time_warping


def matched_extrema(truth: np.ndarray, prediction: np.ndarray, sigma: float = 2.0) -> np.ndarray:
    """The matches of two curves [T], metres: (frame of the truth, frame of the prediction) [M, 2]; see
    :func:`mean_temporal_misalignment`."""
    from scipy.ndimage import gaussian_filter1d
    from scipy.signal import find_peaks

    still = len(truth) < 2 or min(np.ptp(truth), np.ptp(prediction)) <= STILL_M  # its extrema would be rounding
    if still or not (np.isfinite(prediction).all() and np.isfinite(truth).all()):
        return np.zeros((0, 2), np.int64)
    if sigma > 0:
        truth, prediction = gaussian_filter1d(truth, sigma), gaussian_filter1d(prediction, sigma)
    # The slopes are warped, not the distances: a mouth that opens less wide is not thereby late.
    path, _ = dynamic_time_warping(np.diff(truth, prepend=truth[:1]), np.diff(prediction, prepend=prediction[:1]))
    kinds = []  # of every frame: 1 at a peak, -1 at a valley
    for curve in (truth, prediction):
        kind = np.zeros(len(curve), np.int8)
        kind[find_peaks(curve)[0]], kind[find_peaks(-curve)[0]] = 1, -1
        kinds.append(kind)
    turns = np.concatenate([[0], np.flatnonzero(kinds[0]), [len(truth) - 1]])
    pairs = []
    for i, j in path:
        if kinds[0][i] == 0 or kinds[0][i] != kinds[1][j]:
            continue
        at = int(np.searchsorted(turns, i))
        if turns[at - 1] <= j <= turns[at + 1]:
            pairs.append((i, j))
    return np.array(pairs, np.int64).reshape(-1, 2)


def mean_temporal_misalignment(
    prediction: ArrayLike, truth: ArrayLike, *, upper_lip: Indices, lower_lip: Indices, sigma: float = 2.0
) -> Tensor:
    """MTM: mean distance in time between matching extrema of the lip opening.

    Chae-Yeon et al., CVPR 2025: the lip distance is smoothed by a Gaussian, the slopes of truth and prediction are
    aligned by dynamic time warping (derivative DTW, Keogh and Pazzani 2001), and a ground-truth extremum that the path
    matches to a predicted extremum of the same kind counts when the predicted frame lies between the neighbouring
    ground-truth extrema (the ends of the sequence where there is none), bounds included.

    Args:
        prediction, truth: [.., T, V*3] or [.., T, V, 3], metres, same number of frames.
        upper_lip, lower_lip: a vertex of each lip, at its centre; of several, their mean point is taken.
        sigma: standard deviation of the smoothing in frames; 0 for none.

    Returns:
        float64 [..] in frames, >= 0; nan where no extrema match (a mouth that does not move has none, or vertices are
        not finite).

    Raises:
        UserError: shapes that do not fit, or indices outside the mesh.
    """
    if not sigma >= 0:
        raise UserError(f"sigma is {sigma}; it must be 0 (no smoothing) or more frames")
    prediction, truth = as_pair(prediction, truth)
    curves = (lip_distance(each, upper_lip, lower_lip).detach() for each in (prediction, truth))

    def misalignment(prediction: np.ndarray, truth: np.ndarray) -> float:
        pairs = matched_extrema(truth, prediction, sigma)
        return float(np.abs(pairs[:, 0] - pairs[:, 1]).mean()) if len(pairs) else float("nan")

    return map_curves(misalignment, *curves)
