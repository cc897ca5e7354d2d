"""Dynamic time warping of two curves."""

from __future__ import annotations

import numpy as np


def dynamic_time_warping(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, float]:
    """Cheapest monotone alignment of two curves under the absolute difference (Sakoe and Chiba 1978).

    Steps are (1, 1), (1, 0) and (0, 1), all of weight 1; among equally cheap ways back the diagonal is preferred,
    then the step in ``truth``, then the step in ``prediction``.

    Args:
        truth, prediction: [N] and [M], N and M at least 1.

    Returns:
        The path int64 [P, 2] of (truth index, prediction index) from (0, 0) to (N-1, M-1), and its summed cost.
    """
    n, m = len(truth), len(prediction)
    difference = np.abs(truth[:, None].astype(np.float64) - prediction[None, :])
    total = np.full((n + 1, m + 1), np.inf)
    total[0, 0] = 0.0
    for diagonal in range(2, n + m + 1):  # cells of one anti-diagonal do not depend on each other: one numpy call each
        rows = np.arange(max(1, diagonal - m), min(n, diagonal - 1) + 1)
        columns = diagonal - rows
        before = np.minimum(total[rows - 1, columns - 1], total[rows - 1, columns])
        before = np.minimum(before, total[rows, columns - 1])
        total[rows, columns] = difference[rows - 1, columns - 1] + before
    path = [(n - 1, m - 1)]
    i, j = n, m
    while (i, j) != (1, 1):
        both, up, left = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
        if both <= up and both <= left:
            i, j = i - 1, j - 1
        elif up <= left:
            i -= 1
        else:
            j -= 1
        path.append((i - 1, j - 1))
    return np.array(path[::-1], np.int64), float(total[n, m])
