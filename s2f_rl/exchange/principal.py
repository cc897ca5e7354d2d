"""Few shapes for a motion: what files that animate weights need of one that comes as vertices."""

from __future__ import annotations

import numpy as np
import torch

from s2f_rl.data.coefficients.basis import LinearBasis
from s2f_rl.data.components import components_of, in_parts, spread_frames


def principal_shapes(vertices: np.ndarray, error_mm: float = 0.01) -> tuple[LinearBasis, np.ndarray, float]:
    """The fewest shapes that repeat a motion to a given error: its principal components.

    They are those of up to 1200 frames, evenly spread. Where a longer motion goes ways that these do not, the frame
    that is furthest off gives another shape, until none is.

    Args:
        vertices: [T, V, 3] in metres; read piece by piece.
        error_mm: how far a vertex may be off in any frame.

    Returns:
        The basis (neutral: the mean face; shapes scaled so that weights lie in -1..1), weights float32 [T, K], and the
        largest distance of a vertex, mm.
    """
    looked_at = spread_frames([vertices])
    mean = looked_at.mean(0, dtype=np.float64).astype(np.float32)
    looked_at -= mean
    rows = components_of(looked_at)
    rows = rows if len(rows) else np.zeros((1, len(mean)), np.float32)  # a face that does not move

    def error(offsets: np.ndarray, k: int) -> float:
        return float(_far_mm(offsets - offsets @ rows[:k].T @ rows[:k]).max())

    low, high = 1, len(rows)
    while low < high:  # more shapes can only be nearer in the mean, and nearly always are at the largest
        middle = (low + high) // 2
        reached = max(error(part, middle) for part in in_parts(looked_at)) <= error_mm
        low, high = (low, middle) if reached else (middle + 1, high)
    rows = rows[:low]
    if len(looked_at) < len(vertices):
        for part in in_parts(vertices):
            rows = _with_what_lacks(rows, part.reshape(len(part), -1) - mean, error_mm)
    scores = np.concatenate([(part.reshape(len(part), -1) - mean) @ rows.T for part in in_parts(vertices)])
    largest = np.abs(scores).max(0)
    largest[largest == 0] = 1.0
    basis = LinearBasis(
        torch.from_numpy(mean.reshape(-1, 3)),
        torch.from_numpy((rows * largest[:, None]).reshape(len(rows), -1, 3)),
        tuple(f"shape{k:03d}" for k in range(len(rows))),
        torch.tensor([-1.0, 1.0]).repeat(len(rows), 1),
    )
    weights = scores / largest
    worst, done = 0.0, 0
    for part in in_parts(vertices):
        made = basis.vertices(torch.from_numpy(weights[done : done + len(part)])).numpy()
        worst, done = max(worst, float(_far_mm(made - part.reshape(len(part), -1)).max())), done + len(part)
    return basis, weights, worst


def _with_what_lacks(rows: np.ndarray, offsets: np.ndarray, error_mm: float) -> np.ndarray:
    """Orthonormal rows [K, V*3] and as many more as bring frames less the mean [n, V*3] within the error."""
    off = offsets - offsets @ rows.T @ rows
    while (far := _far_mm(off)).max() > error_mm:
        row = off[far.argmax()]
        row = row - row @ rows.T @ rows
        row = row / np.linalg.norm(row)
        rows, off = np.vstack([rows, row]), off - np.outer(off @ row, row)
    return rows


def _far_mm(offsets: np.ndarray) -> np.ndarray:
    """The largest distance of a vertex from its place in each frame [n] of [n, V*3] metres, mm."""
    return 1e3 * np.linalg.norm(offsets.reshape(len(offsets), -1, 3).astype(np.float64), axis=2).max(1)
