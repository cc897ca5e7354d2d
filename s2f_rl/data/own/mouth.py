"""Lips and upper face of an upright face, from the two corners of its mouth or from 68 landmarks."""

from __future__ import annotations

import numpy as np

from s2f_rl.data.own.placement import nose_tip
from s2f_rl.errors import UserError

Regions = dict[str, np.ndarray]
"""Vertex numbers by region."""
_HALF_WIDTH, _HALF_HEIGHT, _LOWER, _BEHIND = 0.55, 0.2, 0.03, 0.1
_FACE_SIDE, _CHIN, _HAIR, _FACE_DEPTH = 1.5, -1.2, 2.6, 1.6
_ABOVE_NOSE, _BROW, _SIDE, _DEPTH = 0.4, 2.1, 1.2, 1.1


def regions_from_corners(points: np.ndarray, faces: np.ndarray, corners: tuple[int, int]) -> Regions:
    """``lips`` and ``upper_face`` by proportion; all lengths are in widths of the mouth, w, the corners' distance.

    - lips: seen from the front, inside an ellipse 1.1 w wide and 0.4 w high whose middle lies 0.03 w below that of
      the corners, and not more than 0.1 w behind the corners; only what triangles connect with a corner, so no
      teeth and no tongue
    - upper face: higher than the tip of the nose by 0.4 w (lower lids and up), up to 2.1 w above it, within 1.2 w to
      each side, and not more than 1.1 w behind it

    Args:
        points: [V, 3], upright (y up, the face to +z). faces: triangles [F, 3]; may be empty.
        corners: vertex numbers of the corners of the mouth.

    Raises:
        UserError: one of the regions would be empty.
    """
    ends = points[list(corners)]
    middle, width = ends.mean(axis=0), float(np.linalg.norm(ends[0] - ends[1]))
    side, up, forward = ((points - middle) / width).T
    oval = (side / _HALF_WIDTH) ** 2 + ((up + _LOWER) / _HALF_HEIGHT) ** 2 <= 1
    lips = oval & (forward > -_BEHIND) & _connected(len(points), faces, corners)
    side, up, forward = ((points - nose_tip(points, middle, width)) / width).T
    upper = (up > _ABOVE_NOSE) & (up < _BROW) & (np.abs(side) < _SIDE) & (forward > -_DEPTH)
    return _found({"lips": lips, "upper_face": upper})


def front_of(points: np.ndarray, corners: tuple[int, int]) -> np.ndarray:
    """Vertex numbers of what a film of the face shows: chin to forehead, without the back of the head and the neck."""
    ends = points[list(corners)]
    width = float(np.linalg.norm(ends[0] - ends[1]))
    side, up, forward = ((points - ends.mean(axis=0)) / width).T
    return np.flatnonzero((np.abs(side) < _FACE_SIDE) & (up > _CHIN) & (up < _HAIR) & (forward > -_FACE_DEPTH))


def regions_from_landmarks(points: np.ndarray, faces: np.ndarray, landmarks: np.ndarray) -> Regions:
    """The same regions, and the middles of the lips, from the 68 landmarks of iBUG (300-W, Sagonas et al., 2013).

    Lips are what lies, seen from the front, within the outer contour of the lips (48 to 59) enlarged by a tenth; the
    upper face begins at the lower lids (40, 41, 46, 47).

    Args:
        points, faces: as of :func:`regions_from_corners`. landmarks: vertex numbers [68].
    """
    corners = (int(landmarks[48]), int(landmarks[54]))
    regions = regions_from_corners(points, faces, corners)
    outline = points[landmarks[48:60], :2]
    centre = outline.mean(axis=0)
    inside = _inside(points[:, :2], centre + 1.1 * (outline - centre))
    ends = points[list(corners)]
    width = float(np.linalg.norm(ends[0] - ends[1]))
    ahead = points[:, 2] > ends[:, 2].mean() - _BEHIND * width
    lips = inside & ahead & _connected(len(points), faces, corners)
    upper = np.zeros(len(points), bool)
    upper[regions["upper_face"]] = True
    upper &= points[:, 1] >= points[landmarks[[40, 41, 46, 47]], 1].min()
    found = _found({"lips": lips, "upper_face": upper})
    return {**found, "upper_lip": landmarks[[51, 62]], "lower_lip": landmarks[[57, 66]]}


def _found(masks: dict[str, np.ndarray]) -> Regions:
    empty = [name for name, mask in masks.items() if not mask.any()]
    if empty:
        raise UserError(f"no vertex is {empty[0]} by its place; check the corners of the mouth, or give the regions")
    return {name: np.flatnonzero(mask) for name, mask in masks.items()}


def _connected(n_vertices: int, faces: np.ndarray, corners: tuple[int, int]) -> np.ndarray:
    """Which vertices hang together with one of the corners: bool [V]; all, where there are no triangles."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if not len(faces):
        return np.ones(n_vertices, bool)
    a, b = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
    graph = coo_matrix((np.ones(len(a), bool), (a, b)), shape=(n_vertices, n_vertices))
    piece = connected_components(graph, directed=False)[1]
    return np.isin(piece, piece[list(corners)])


def _inside(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Which points [V, 2] lie in a polygon [n, 2]: a ray to the right crosses its sides an odd number of times."""
    crossings = np.zeros(len(points), int)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        spans = (y0 > points[:, 1]) != (y1 > points[:, 1])
        with np.errstate(divide="ignore", invalid="ignore"):
            at = x0 + (points[:, 1] - y0) * (x1 - x0) / (y1 - y0)
        crossings += spans & (points[:, 0] < at)
    return crossings % 2 == 1
