"""Meshes for the tests."""

from __future__ import annotations

import numpy as np


def ball(rows: int = 12, columns: int = 16, radius: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """A closed sphere: vertices [V, 3] and outward, anticlockwise faces [F, 3]."""
    polar = np.linspace(0, np.pi, rows)
    turn = np.linspace(0, 2 * np.pi, columns, endpoint=False)
    p, t = np.meshgrid(polar, turn, indexing="ij")
    grid = radius * np.stack([np.sin(p) * np.cos(t), np.cos(p), np.sin(p) * np.sin(t)], -1)
    faces = []
    for i in range(rows - 1):
        for j in range(columns):
            a, b = i * columns + j, i * columns + (j + 1) % columns
            faces += [(a, b, a + columns), (b, b + columns, a + columns)]
    return grid.reshape(-1, 3), np.array(faces)
