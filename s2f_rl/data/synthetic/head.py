"""A head without a mesh: a signed distance field of blended ellipsoids, and rays that find its surface.

All lengths are millimetres (the face is built to anatomical measures, which are given in mm); x is the face's left,
y up, z forward, and the origin lies between the ears at the height of the nose. `face.py` turns millimetres into the
metres of the corpus.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RAY_ORIGIN = np.array([0.0, 2.0, 8.0])
"""Where the rays of `radial_surface` start (mm): every point of the face is seen from here."""
RAY_LIMIT = 260.0


@dataclass(frozen=True)
class Identity:
    """Anatomical measures of one person, in mm unless said otherwise. The defaults are an average adult."""

    head_width: float = 1.0
    """Factor on the breadth of cranium and temples."""
    face_length: float = 0.0
    """Added to the distance from nose base to chin."""
    jaw_width: float = 0.0
    """Added to the half width of the jaw at its angles."""
    cheek_width: float = 0.0
    """Added to the half width across the cheekbones."""
    cheek_fullness: float = 0.0
    chin_forward: float = 0.0
    chin_width: float = 0.0
    nose_length: float = 0.0
    nose_width: float = 0.0
    """Added to the half width of the nostrils."""
    nose_forward: float = 0.0
    nose_bridge: float = 0.0
    """Height of the bridge."""
    brow_ridge: float = 0.0
    brow_height: float = 0.0
    brow_thickness: float = 1.0
    eye_distance: float = 0.0
    """Added to half of the distance between the pupils."""
    eye_size: float = 1.0
    """Factor on the opening of the lids."""
    eye_tilt: float = 0.0
    """Height of the outer corner above the inner one."""
    mouth_width: float = 0.0
    """Added to the half width of the mouth."""
    mouth_height: float = 0.0
    upper_lip: float = 1.0
    """Factor on the height of the upper vermilion."""
    lower_lip: float = 1.0
    lip_forward: float = 0.0
    forehead: float = 0.0
    """Forward bulge of the forehead."""
    neck_width: float = 0.0
    ear_size: float = 1.0
    hair_thickness: float = 5.0
    """How far (mm) the hair stands off the scalp; 0 is bald."""
    hair_length: float = 0.0
    """0 short (ears free) to 1 (over the ears, down to the neck)."""
    hairline: float = 0.0
    """Added to the height of the hairline."""


def _smooth_min(a: Array, b: Array, width: float) -> Array:
    """Union with a fillet of the given width (mm)."""
    h = np.maximum(width - np.abs(a - b), 0.0) / width
    return np.minimum(a, b) - 0.25 * width * h * h


def _smooth_max(a: Array, b: Array, width: float) -> Array:
    return -_smooth_min(-a, -b, width)


def _length(p: Array) -> Array:
    return np.sqrt(np.einsum("...k,...k->...", p, p))


def _ellipsoid(p: Array, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Array:
    """First-order signed distance to an ellipsoid (exact on its surface, to first order around it)."""
    r = np.asarray(radii)
    q = (p - np.asarray(centre)) / r
    k0, k1 = _length(q), _length(q / r)
    return k0 * (k0 - 1.0) / np.maximum(k1, 1e-9)


def _capsule(p: Array, start: tuple[float, ...], end: tuple[float, ...], r0: float, r1: float) -> Array:
    """A rod whose radius goes from r0 to r1."""
    a, b = np.asarray(start), np.asarray(end)
    d = b - a
    t = np.clip((p - a) @ d / (d @ d), 0.0, 1.0)
    return _length(p - a - t[..., None] * d) - (r0 + (r1 - r0) * t)


def head_distance(p: Array, who: Identity) -> Array:
    """Signed distance (mm, negative inside) of points [..., 3] to the bald, closed-lipped, lidless head."""
    w, n = who.head_width, who
    # One half is modelled; the softened |x| keeps the middle of the face round.
    p = np.concatenate([np.sqrt(p[..., :1] ** 2 + 2.0), p[..., 1:]], axis=-1)
    chin_y = -64.0 - n.face_length
    mouth_y = -30.0 + n.mouth_height - 0.35 * n.face_length

    d = _ellipsoid(p, (0, 62, -12), (74 * w, 78, 96))
    d = _smooth_min(d, _ellipsoid(p, (0, 58, 10 + n.forehead), (66 * w, 56, 78)), 30)
    # face block, cheeks, mandible
    d = _smooth_min(d, _ellipsoid(p, (0, 4, 18), (63 * w + 0.5 * n.cheek_width, 70, 66)), 30)
    jaw = _ellipsoid(p, (0, -34 - 0.5 * n.face_length, 22), (46 + n.jaw_width, 36 + 0.5 * n.face_length, 56))
    d = _smooth_min(d, jaw, 30)
    d = _smooth_min(d, _ellipsoid(p, (45 + n.cheek_width, 12, 44), (18, 12, 22)), 26)
    d = _smooth_min(d, _ellipsoid(p, (33, -22, 50 + n.cheek_fullness), (19 + n.cheek_fullness, 24, 20)), 26)
    chin = _ellipsoid(p, (0, chin_y + 3, 66 + n.chin_forward), (17 + n.chin_width, 13, 18))
    d = _smooth_min(d, chin, 24)
    d = _smooth_min(d, _ellipsoid(p, (0, mouth_y + 2, 62), (29 + n.mouth_width, 22, 27 + 0.5 * n.lip_forward)), 20)
    # neck, cut off flat
    neck_w = 44 + n.neck_width
    d = _smooth_min(d, _capsule(p * (1, 1, 0.9), (0, -60, -22), (0, -150, -30), neck_w, neck_w + 5), 24)
    d = _smooth_max(d, -120.0 - p[..., 1], 10)
    # brow ridge, glabella, sockets
    brow_y = 50 + n.brow_height
    brow = _capsule(p, (10, brow_y - 4, 80 + n.brow_ridge), (43, brow_y - 2, 60 + n.brow_ridge), 9.5, 8.0)
    d = _smooth_min(d, brow, 18)
    eye_x = 31.5 + n.eye_distance
    socket = _ellipsoid(p, (eye_x - 1, 34, 91), (17, 11.5, 17))
    d = _smooth_max(d, -socket, 18)
    # the fold of flesh over the eyeball, on which the lids are modelled
    d = _smooth_min(d, _ellipsoid(p, (eye_x, 34.5, 61), (15.5, 13.5, 14.2)), 7)
    # nose: bridge, tip, wings, nostrils
    tip_y, tip_z = 4 - n.nose_length, 101 + n.nose_forward
    bridge = _capsule(p, (0, 44, 80 + n.nose_bridge), (0, tip_y + 4, tip_z - 6), 7.0, 8.5)
    d = _smooth_min(d, bridge, 16)
    d = _smooth_min(d, _ellipsoid(p, (0, tip_y, tip_z - 1), (9.0, 8.0, 9.5)), 9)
    wing_x = 10.5 + n.nose_width
    d = _smooth_min(d, _ellipsoid(p, (wing_x, tip_y - 3.5, tip_z - 14), (5.5, 6.5, 10)), 9)
    nostril = _ellipsoid(p, (6.0 + 0.5 * n.nose_width, tip_y - 12, tip_z - 9), (3.0, 4.0, 5.0))
    d = _smooth_max(d, -nostril, 4)
    # philtrum, the groove under the lower lip
    d = _smooth_max(d, -_capsule(p, (0, tip_y - 13, 96), (0, mouth_y + 10, 100), 3.0, 3.5), 5)
    return _smooth_max(d, -_capsule(p, (0, mouth_y - 17, 101), (22, mouth_y - 15, 92), 10.0, 8.0), 12)


def radial_surface(direction: Array, who: Identity) -> Array:
    """Outermost point [..., 3] (mm) of the head on rays from `RAY_ORIGIN` in unit directions [..., 3]."""
    return _march(np.broadcast_to(RAY_ORIGIN, direction.shape), direction, who)


def front_surface(xy: Array, who: Identity) -> Array:
    """Foremost point [..., 3] (mm) of the head at frontal positions xy [..., 2]; they must lie on the head."""
    origin = np.concatenate([xy, np.zeros((*xy.shape[:-1], 1))], axis=-1)
    return _march(origin, np.broadcast_to(np.array([0.0, 0.0, 1.0]), origin.shape), who)


def _march(origin: Array, direction: Array, who: Identity) -> Array:
    """Walk inwards from outside in steps of the distance, then halve the bracket around the first crossing."""
    t = np.full(direction.shape[:-1], RAY_LIMIT)
    for _ in range(80):
        step = np.maximum(head_distance(origin + t[..., None] * direction, who), 0.0)
        t = np.maximum(t - 0.8 * step, 0.0)
        if step.max() < 0.05:
            break
    low, high = np.maximum(t - 1.0, 0.0), t + 1.0
    for _ in range(18):
        middle = 0.5 * (low + high)
        outside = head_distance(origin + middle[..., None] * direction, who) > 0
        low, high = np.where(outside, low, middle), np.where(outside, middle, high)
    return origin + (0.5 * (low + high))[..., None] * direction
