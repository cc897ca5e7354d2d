"""Rigs for the tests: shapes that overlap, as those of a face do."""

from __future__ import annotations

import numpy as np
import torch

from s2f_rl.data.coefficients.basis import LinearBasis


def make_rig(n_vertices: int = 200, n_shapes: int = 12, seed: int = 0, width: float = 0.03) -> LinearBasis:
    """A cloud of 15 cm with bumps of a few millimetres, each along its own direction."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-0.075, 0.075, (n_vertices, 3))
    centres = points[rng.permutation(n_vertices)[:n_shapes]]
    fall = np.exp(-((points - centres[:, None]) ** 2).sum(-1) / (2 * width**2))
    shapes = fall[..., None] * rng.normal(size=(n_shapes, 1, 3)) * 0.004
    return LinearBasis(
        torch.from_numpy(points).float(),
        torch.from_numpy(shapes).float(),
        tuple(f"shape{k}" for k in range(n_shapes)),
        torch.tensor([0.0, 1.0]).repeat(n_shapes, 1),
    )


def make_weights(n_frames: int, n_shapes: int, seed: int = 0) -> np.ndarray:
    """Curves [T, K] in 0..1 that rest at both bounds for a while."""
    rng = np.random.default_rng(seed)
    time = np.arange(n_frames)[:, None] / 30
    rate, phase = rng.uniform(0.3, 3.0, n_shapes), rng.uniform(0, 6.3, n_shapes)
    return (0.5 + 0.8 * np.sin(2 * np.pi * rate * time + phase)).clip(0, 1)
