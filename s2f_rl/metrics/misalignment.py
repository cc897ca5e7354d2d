"""Mean temporal misalignment: how many frames an opening or closing of the lips comes too early or too late."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from s2f_rl.errors import UserError
from s2f_rl.metrics._meshes import ArrayLike, Indices, as_pair
from s2f_rl.metrics.amplitude import STILL_M
from s2f_rl.metrics.lips import lip_distance, map_curves
from s2f_rl.metrics.warping import dynamic_time_warping


@dataclass(frozen=True)
class Misalignment:
    """Everything behind one value of :func:`mean_temporal_misalignment`. M matches, P path points, T frames.

    ``pairs`` [M, 2] are the matched extrema as (truth frame, prediction frame), ``delta`` [M] their distances in
    frames, ``path`` [P, 2] the warping path and ``cost`` its cost. ``distance_*`` and ``smooth_*`` [T] are the lip
    distance in metres before and after smoothing, ``peaks_*`` and ``valleys_*`` the frames of its extrema.
    """

    pairs: np.ndarray
    path: np.ndarray
    cost: float
    distance_truth: np.ndarray
    distance_prediction: np.ndarray
    smooth_truth: np.ndarray
    smooth_prediction: np.ndarray
    peaks_truth: np.ndarray
    valleys_truth: np.ndarray
    peaks_prediction: np.ndarray
    valleys_prediction: np.ndarray

    @property
    def delta(self) -> np.ndarray:
        return np.abs(self.pairs[:, 0] - self.pairs[:, 1])

    @property
    def value(self) -> float:
        """Mean of ``delta`` in frames; nan without a match."""
        return float(self.delta.mean()) if len(self.pairs) else float("nan")


def _match(prediction: np.ndarray, truth: np.ndarray, sigma: float) -> Misalignment:
    """``prediction`` and ``truth`` [T]: lip distances in metres."""
    from scipy.ndimage import gaussian_filter1d
    from scipy.signal import find_peaks

    still = len(truth) < 2 or min(np.ptp(truth), np.ptp(prediction)) <= STILL_M  # its extrema would be rounding
    if still or not (np.isfinite(prediction).all() and np.isfinite(truth).all()):
        nothing = np.zeros(0, np.int64)
        return Misalignment(
            np.zeros((0, 2), np.int64),
            np.zeros((0, 2), np.int64),
            float("nan"),
            truth,
            prediction,
            truth,
            prediction,
            nothing,
            nothing,
            nothing,
            nothing,
        )
    smooth_truth, smooth_prediction = (
        gaussian_filter1d(curve, sigma) if sigma > 0 else curve for curve in (truth, prediction)
    )
    # The slopes are warped, not the distances: a mouth that opens less wide is not thereby late.
    path, cost = dynamic_time_warping(
        np.diff(smooth_truth, prepend=smooth_truth[:1]), np.diff(smooth_prediction, prepend=smooth_prediction[:1])
    )
    peaks_truth, valleys_truth = find_peaks(smooth_truth)[0], find_peaks(-smooth_truth)[0]
    peaks_prediction, valleys_prediction = find_peaks(smooth_prediction)[0], find_peaks(-smooth_prediction)[0]

    turns = np.sort(np.concatenate([[0], peaks_truth, valleys_truth, [len(truth) - 1]]))
    kind_truth, kind_prediction = np.zeros(len(truth), np.int8), np.zeros(len(prediction), np.int8)
    kind_truth[peaks_truth], kind_truth[valleys_truth] = 1, -1
    kind_prediction[peaks_prediction], kind_prediction[valleys_prediction] = 1, -1
    pairs = []
    for i, j in path:
        if kind_truth[i] == 0 or kind_truth[i] != kind_prediction[j]:
            continue
        at = int(np.searchsorted(turns, i))
        if turns[at - 1] <= j <= turns[at + 1]:
            pairs.append((i, j))
    return Misalignment(
        np.array(pairs, np.int64).reshape(-1, 2),
        path,
        cost,
        truth,
        prediction,
        smooth_truth,
        smooth_prediction,
        peaks_truth,
        valleys_truth,
        peaks_prediction,
        valleys_prediction,
    )


def _curves(
    prediction: ArrayLike, truth: ArrayLike, upper_lip: Indices, lower_lip: Indices, sigma: float
) -> tuple[Tensor, Tensor]:
    if not sigma >= 0:
        raise UserError(f"sigma is {sigma}; it must be 0 (no smoothing) or more frames")
    prediction, truth = as_pair(prediction, truth)
    return (lip_distance(prediction, upper_lip, lower_lip).detach(), lip_distance(truth, upper_lip, lower_lip).detach())


def temporal_misalignment_matches(
    prediction: ArrayLike, truth: ArrayLike, *, upper_lip: Indices, lower_lip: Indices, sigma: float = 2.0
) -> Misalignment:
    """The matches behind :func:`mean_temporal_misalignment` for one sequence [T, V*3] or [T, V, 3]."""
    a, b = _curves(prediction, truth, upper_lip, lower_lip, sigma)
    if a.ndim != 1:
        raise UserError(f"prediction has batch shape {list(a.shape[:-1])}; pass one sequence [T, V*3] or [T, V, 3]")
    return _match(a.cpu().numpy(), b.cpu().numpy(), sigma)


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
    a, b = _curves(prediction, truth, upper_lip, lower_lip, sigma)
    return map_curves(lambda p, t: _match(p, t, sigma).value, a, b)
