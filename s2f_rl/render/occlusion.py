"""Ambient occlusion: how much of the sky each vertex of a resting face sees."""

from __future__ import annotations

import numpy as np

from s2f_rl.render.rasteriser import fill_triangles, vertex_normals

_DIRECTIONS = 64
_PIXELS = 192
_BIAS = 2.5  # pixels of depth that still count as the surface itself


def spread_directions(n: int) -> np.ndarray:
    """Unit vectors [n, 3] spread evenly over the sphere (Fibonacci lattice)."""
    height = 1 - 2 * (np.arange(n) + 0.5) / n
    turn = np.arange(n) * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(turn), height, radius * np.sin(turn)], -1)


def sky_share(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Share of the sky above each vertex that the mesh itself does not hide, weighted by the cosine of its height.

    A depth map is drawn from each of 64 directions (parallel light); a vertex sees that piece of sky when it lies no
    more than a few pixels behind the map. Taken at rest and kept for a whole film, it leaves the inside of a mouth
    dark when it opens, as it is in life.

    Args:
        vertices: [V, 3], metres.
        faces: int32 [F, 3], anticlockwise seen from outside.

    Returns:
        float32 [V] in 0..1; 1 where the mesh hides nothing.
    """
    centre = (vertices.max(0) + vertices.min(0)) / 2
    points = np.ascontiguousarray(vertices - centre, dtype=np.float32)
    normals = np.empty_like(points)
    vertex_normals(points, faces, normals)
    radius = float(np.linalg.norm(points, axis=1).max()) or 1.0
    scale = 0.5 * (_PIXELS - 3) / radius
    depth = np.empty((_PIXELS, _PIXELS), np.float32)
    unseen, colours = np.empty((_PIXELS, _PIXELS, 3), np.uint8), np.zeros((len(points), 3), np.float32)
    seen, total = np.zeros(len(points)), np.zeros(len(points))
    for direction in spread_directions(_DIRECTIONS):
        helper = np.eye(3)[np.abs(direction).argmin()]
        right = np.cross(helper, direction)
        right /= np.linalg.norm(right)
        view = points.astype(np.float64) @ np.stack([right, np.cross(direction, right), direction], 1)
        # In pixels, towards the light; shifted so that everything is in front of the eye.
        screen = np.stack(
            [_PIXELS / 2 + scale * view[:, 0], _PIXELS / 2 - scale * view[:, 1], scale * view[:, 2] + _PIXELS], -1
        )
        depth[:] = 0
        fill_triangles(screen, faces, colours, np.zeros(3, np.float32), depth, unseen)
        column, row = screen[:, 0].astype(int), screen[:, 1].astype(int)
        open_sky = screen[:, 2] >= depth[row, column] - _BIAS
        cosine = np.maximum(normals @ direction, 0)
        seen += cosine * open_sky
        total += cosine
    return np.where(total > 0, seen / np.maximum(total, 1e-9), 1.0).astype(np.float32)
