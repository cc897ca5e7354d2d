"""Few shapes for a motion: what files that animate weights need of one that comes as vertices."""

from __future__ import annotations

import numpy as np
import torch

from s2f_rl.data.coefficients.basis import LinearBasis


def principal_shapes(vertices: np.ndarray, error_mm: float = 0.01) -> tuple[LinearBasis, np.ndarray, float]:
    """The least number of shapes that repeat a motion to a given error: its principal components.

    Args:
        vertices: [T, V, 3] in metres.
        error_mm: how far a vertex may be off in any frame.

    Returns:
        The basis (neutral: the mean face; shapes scaled so that weights lie in -1..1), weights float32 [T, K], and the
        largest distance of a vertex, mm.
    """
    frames = np.asarray(vertices, np.float64).reshape(len(vertices), -1)
    mean = frames.mean(0)
    offsets = frames - mean
    u, s, rows = np.linalg.svd(offsets, full_matrices=False)
    scores = u * s

    def error(k: int) -> float:
        off = offsets - scores[:, :k] @ rows[:k]
        return 1e3 * float(np.linalg.norm(off.reshape(len(frames), -1, 3), axis=2).max())

    low, high = 1, len(s)
    while low < high:  # more shapes can only be nearer in the mean, and nearly always are at the largest
        middle = (low + high) // 2
        low, high = (low, middle) if error(middle) <= error_mm else (middle + 1, high)
    largest = np.abs(scores[:, :low]).max(0)
    largest[largest == 0] = 1.0
    shapes = (rows[:low] * largest[:, None]).reshape(low, -1, 3)
    basis = LinearBasis(
        torch.from_numpy(mean.reshape(-1, 3)).float(),
        torch.from_numpy(shapes).float(),
        tuple(f"shape{k:03d}" for k in range(low)),
        torch.tensor([-1.0, 1.0]).repeat(low, 1),
    )
    weights = (scores[:, :low] / largest).astype(np.float32)
    made = weights.astype(np.float64) @ basis.matrix.numpy() + basis.neutral.numpy().reshape(-1)
    return basis, weights, 1e3 * float(np.linalg.norm((made - frames).reshape(len(frames), -1, 3), axis=2).max())
