"""Lag: is the mouth as a whole too early or too late?"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from s2f_rl.errors import UserError
from s2f_rl.metrics._meshes import ArrayLike, Indices, as_pair
from s2f_rl.metrics.amplitude import STILL_M
from s2f_rl.metrics.lips import lip_distance, map_curves

_LEAST_OVERLAP = 4  # frames: three points always correlate well


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm > 0 else math.nan


def _lag_frames(prediction: np.ndarray, truth: np.ndarray, max_lag: int) -> float:
    n = len(truth)
    # A curve that does not move leaves rounding noise, which would correlate with anything.
    still = any(np.ptp(curve) <= STILL_M for curve in (prediction, truth)) if n else True
    max_lag = min(max_lag, n - _LEAST_OVERLAP)
    if max_lag < 0 or still or not (np.isfinite(prediction).all() and np.isfinite(truth).all()):
        return math.nan
    lags = list(range(-max_lag, max_lag + 1))
    score = np.array(
        [_correlation(prediction[max(0, k) : n + min(0, k)], truth[max(0, -k) : n - max(0, k)]) for k in lags]
    )
    if np.isnan(score).all():
        return math.nan
    best = int(np.nanargmax(score))
    if 0 < best < len(lags) - 1:
        before, here, after = score[best - 1 : best + 2]
        bend = before - 2 * here + after
        if bend < 0:  # False for nan as well
            return float(lags[best] + 0.5 * (before - after) / bend)
    return float(lags[best])


def lag_ms(
    prediction: ArrayLike,
    truth: ArrayLike,
    *,
    upper_lip: Indices,
    lower_lip: Indices,
    fps: float,
    max_lag_ms: float = 200.0,
) -> Tensor:
    """Time shift at which the lip opening of the prediction correlates best with that of the truth.

    Ours. Pearson correlation over the overlapping frames at every whole-frame shift up to ``max_lag_ms`` (at least
    4 frames must overlap), refined to fractions of a frame by a parabola through the best three.

    Args:
        prediction, truth: [.., T, V*3] or [.., T, V, 3], metres, same number of frames.
        upper_lip, lower_lip: a vertex of each lip, at its centre; of several, their mean point is taken.
        fps: frames per second.
        max_lag_ms: largest shift tried, milliseconds.

    Returns:
        float64 [..] in milliseconds; positive when the prediction is late, 0 is best; nan for fewer than 4 frames or
        a mouth that does not move.

    Raises:
        UserError: shapes that do not fit, indices outside the mesh, or a rate or shift that is not positive.
    """
    if not fps > 0:
        raise UserError(f"fps is {fps}; it must be positive")
    if not max_lag_ms > 0:
        raise UserError(f"max_lag_ms is {max_lag_ms}; it must be positive")
    prediction, truth = as_pair(prediction, truth)
    a = lip_distance(prediction, upper_lip, lower_lip).detach()
    b = lip_distance(truth, upper_lip, lower_lip).detach()
    max_lag = int(max_lag_ms / 1000 * fps + 1e-9)
    return map_curves(lambda p, t: _lag_frames(p, t, max_lag) * 1000 / fps, a, b)
