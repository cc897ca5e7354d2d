"""Where the parts of a face lie: lips, mouth cavity, lids, eyeballs, brows, ears, hair and teeth of one identity.

Every part is a grid of rows and columns, so that its triangles do not depend on the identity. All positions are
millimetres in the frame of `head.py`. A ring runs counter-clockwise as seen from the front: it starts at the corner
on the face's left (+x), goes over the upper edge to the other corner and returns along the lower edge.
"""

from __future__ import annotations

import numpy as np

from s2f_rl.data.synthetic.head import Array, Identity, front_surface

REST_GAP_MM = 0.6
"""Vertical gap between the middle of the lips at rest: a relaxed mouth, lips just apart. It tapers to the corners."""


def ring_columns(n_quarter: int) -> tuple[Array, Array]:
    """Horizontal position u in [-1, 1] (+1 at the left corner) and side (+1 upper, -1 lower, 0 corner), each [n]."""
    angle = np.linspace(0.0, np.pi, 2 * n_quarter + 1)
    # Half way between equal angles (crowded at the corners) and equal steps (too sparse there).
    upper = 0.5 * np.cos(angle) + 0.5 * np.linspace(1.0, -1.0, 2 * n_quarter + 1)
    u = np.concatenate([upper, -upper[1:-1]])
    side = np.concatenate([np.ones_like(upper), -np.ones(len(upper) - 2)])
    side[[0, 2 * n_quarter]] = 0.0
    return u, side


def mouth_centre(who: Identity) -> Array:
    """Frontal position (x, y) of the middle of the mouth line."""
    return np.array([0.0, -30.5 + who.mouth_height - 0.35 * who.face_length])


def lip_line(u: Array, side: Array, who: Identity) -> Array:
    """Frontal positions [n, 2] of the lips' contact edge: where the upper and the lower lip meet."""
    half_width = 25.0 + who.mouth_width
    a = np.abs(u)
    line = -0.6 * np.exp(-((u / 0.24) ** 2)) + 0.3 * np.exp(-(((a - 0.45) / 0.25) ** 2)) + 0.9 * a**3
    gap = 0.5 * REST_GAP_MM * (1.0 - a**2)
    return mouth_centre(who) + np.stack([half_width * u, line + side * gap], -1)


def lip_border(u: Array, side: Array, who: Identity) -> Array:
    """Frontal positions [n, 2] of the vermilion border: cupid's bow above, a full arc below."""
    half_width = 26.6 + who.mouth_width
    a = np.abs(u)
    bow = 0.9 * np.exp(-(((a - 0.2) / 0.13) ** 2)) - 0.5 * np.exp(-((u / 0.11) ** 2))
    upper = 8.0 * who.upper_lip * ((1.0 - a**1.5) ** 0.95 + bow / 8.0)
    lower = 10.2 * who.lower_lip * (1.0 - a**2.4) ** 0.9
    y = np.where(side > 0, upper, np.where(side < 0, -lower, 0.0)) + 0.9 * a**3
    return mouth_centre(who) + np.stack([half_width * u, y], -1)


def lip_pout(fraction: float | Array, u: Array, side: Array, who: Identity) -> Array:
    """How far (mm) the lip stands out in front of the face; fraction 0 at the border, 1 at the contact edge."""
    f = np.asarray(fraction)
    full = np.where(side < 0, 3.4 * who.lower_lip, 3.0 * who.upper_lip) + who.lip_forward
    swell = np.sin(np.pi * np.clip(f * 0.86 + 0.08, 0, 1)) ** 0.8
    middle = 1.0 - np.abs(u) ** 2.2
    return (0.5 + full * swell) * middle - 1.6 * f**4 * (0.4 + 0.6 * middle)


def lips(who: Identity, n_quarter: int, n_rings: int) -> Array:
    """Rings of the visible lips [n_rings, 4*n_quarter, 3], from the vermilion border inwards to the contact edge."""
    u, side = ring_columns(n_quarter)
    border, line = lip_border(u, side, who), lip_line(u, side, who)
    fraction = np.linspace(0.0, 1.0, n_rings)[:, None]
    rings = front_surface((1 - fraction[..., None]) * border + fraction[..., None] * line, who)
    rings[..., 2] += lip_pout(fraction, u, side, who)
    return rings


def mouth_cavity(who: Identity, n_quarter: int, contact: Array) -> Array:
    """Two rings behind the contact edge [2, 4*n_quarter, 3]: the lips' inner side and the cavity behind the teeth.

    Behind the contact edge the lower lip is a little higher than in front, so that teeth do not shine through the gap.
    """
    u, side = ring_columns(n_quarter)
    middle = 1.0 - np.abs(u) ** 2
    inner, behind = contact.copy(), contact.copy()
    inner[:, 1] += np.where(side > 0, 0.6 + 1.6 * middle, np.where(side < 0, 0.6 * middle, 0.0))
    inner[:, 2] -= np.where(side > 0, 4.0, 2.6)
    behind[:, 0] *= 0.95
    behind[:, 1] += side * (2.0 + 9.5 * middle)
    behind[:, 2] -= 12.0 + 6.0 * np.abs(u)
    return np.stack([inner, behind])


def eye_centre(who: Identity) -> Array:
    """Centre [3] of the left eyeball."""
    return np.array([31.5 + who.eye_distance, 34.5, 60.0])


_LID_RADII = np.array([19.0, 15.5, 15.2])
_BALL_RADII = np.array([17.6, 14.2, 13.6])


def lid_contour(u: Array, side: Array, who: Identity, opening: float = 1.0) -> Array:
    """Lid edges [n, 2] relative to the eye centre; u = +1 at the outer corner. At opening 0 they meet."""
    x = 14.6 * u
    corner = 0.5 * who.eye_tilt * u + 0.4 * u - 0.6
    skew = 1.0 - 0.16 * u
    upper = 5.2 * who.eye_size * (1 - np.abs(u) ** 2.3) * skew
    lower = -4.4 * who.eye_size * (1 - np.abs(u) ** 2.3) * (1.0 + 0.15 * u)
    closed = lower + 0.35 * (1 - u**2)
    y = np.where(side > 0, closed + opening * (upper - closed), lower)
    return np.stack([x, corner + np.where(side == 0, 0.0, y)], -1)


def _on_ellipsoid(xy: Array, radii: Array) -> Array:
    z = radii[2] * np.sqrt(np.maximum(1.0 - (xy[..., 0] / radii[0]) ** 2 - (xy[..., 1] / radii[1]) ** 2, 0.02))
    return np.concatenate([xy, z[..., None]], -1)


def lids(who: Identity, n_quarter: int, n_rings: int, opening: float = 1.0) -> Array:
    """Rings of the left eye's lids [n_rings, 4*n_quarter, 3], from the crease to the edge (two)."""
    u, side = ring_columns(n_quarter)
    centre = eye_centre(who)
    edge = lid_contour(u, side, who, opening)
    still = lid_contour(u, side, who)
    outer = np.stack([17.8 * u, still[:, 1] + side * (1.0 + 3.6 * (1 - u**2)) + np.where(side > 0, 0.6, 0)], -1)
    crease = front_surface(outer + centre[:2], who)
    front = _on_ellipsoid(edge, _LID_RADII) + centre
    # The edge has a thickness: its inner rim sinks into the eyeball, so that no gap shows.
    rim = _on_ellipsoid(edge * 0.985, _BALL_RADII - 0.6) + centre
    between = []
    for fraction in np.linspace(0, 1, n_rings - 1)[1:-1]:
        p = (1 - fraction) * crease + fraction * front
        # lids are domed: stay on the outside of the lid's ellipsoid
        on = _on_ellipsoid(p[:, :2] - centre[:2], _LID_RADII) + centre
        p[:, 2] = np.maximum(p[:, 2], (1 - fraction) * p[:, 2] + fraction * on[:, 2])
        between.append(p)
    return np.stack([crease, *between, front, rim])


def eyeball(who: Identity, n_around: int) -> tuple[Array, Array]:
    """Left eyeball: pole [3] and rings [4, n_around, 3] (pupil, iris, white, outside the lids)."""
    centre = eye_centre(who) + np.array([-0.3, 0.4, 0.0])
    angle = np.linspace(0.0, 2 * np.pi, n_around, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)
    radii = [2.4 * circle, 6.0 * circle, 6.8 * circle, circle * np.array([15.6, 11.8])]
    rings = np.stack([_on_ellipsoid(r, _BALL_RADII) for r in radii])
    pole = np.array([0.0, 0.0, _BALL_RADII[2]])
    return pole + centre, rings + centre


def brow(who: Identity, n_columns: int) -> Array:
    """Left eyebrow, a ridge of three rows [3, n_columns, 3] from below to above, from the nose outwards."""
    t = np.linspace(0.0, 1.0, n_columns)
    x = 12.5 + 0.6 * who.eye_distance + 37.0 * t
    y = 49.0 + who.brow_height + np.interp(t, [0, 0.3, 0.65, 0.85, 1.0], [0.0, 1.6, 3.4, 2.6, 0.4])
    half = who.brow_thickness * np.interp(t, [0, 0.15, 0.6, 1.0], [1.7, 2.8, 2.3, 0.6])
    rows = front_surface(np.stack([np.stack([x, y + side * half], -1) for side in (-1, 0, 1)]), who)
    rows[..., 2] += np.array([-0.5, 1.4, -0.5])[:, None]
    return rows


def ear(who: Identity, n_around: int, with_base: bool) -> tuple[Array, Array]:
    """Left ear: pole [3] of its hollow and rings from outside inwards (base on the head if asked, helix, hollow)."""
    a = (np.arange(n_around) + 0.5) * 2 * np.pi / n_around
    back, up = np.cos(a), np.sin(a)
    size = who.ear_size
    centre = np.array([71.5 * who.head_width, 10.0, -11.0])
    lobe = 1.0 - 0.22 * np.maximum(-up, 0.0)

    def ring(half_depth: float, half_height: float, out: Array) -> Array:
        z = -half_depth * size * lobe * back - 0.18 * half_height * size * up
        return centre + np.stack([out, half_height * size * up, z], -1)

    rings = [ring(11.0, 22.0, np.full(n_around, -6.0))] if with_base else []
    rings += [ring(15.0, 30.0, 5.5 + 7.5 * back + 2.0 * up), ring(9.0, 19.0, 1.0 + 5.0 * back + 1.0 * up)]
    return centre + (-2.0, -3.0, 3.0), np.stack(rings)


_HAIRLINE_ANGLE = np.radians([0.0, 30.0, 52.0, 64.0, 76.0, 84.0, 100.0, 120.0, 180.0])
_HAIRLINE_SHORT = np.array([93.0, 98.0, 110.0, 118.0, 140.0, 158.0, 195.0, 215.0, 236.0])
_HAIRLINE_LONG = np.array([93.0, 98.0, 108.0, 116.0, 126.0, 130.0, 134.0, 140.0, 225.0])


def hair(plane: Array, who: Identity) -> Array:
    """How much hair [n] in [0, 1] grows at positions of the unrolled head (`topology.to_plane`)."""
    angle = np.arctan2(np.abs(plane[:, 0]), plane[:, 1])
    line = (1 - who.hair_length) * np.interp(angle, _HAIRLINE_ANGLE, _HAIRLINE_SHORT)
    line += who.hair_length * np.interp(angle, _HAIRLINE_ANGLE, _HAIRLINE_LONG)
    line += who.hairline * np.maximum(np.cos(angle), 0.0)
    amount = np.clip((np.linalg.norm(plane, axis=-1) - line) / 10.0 + 0.5, 0.0, 1.0)
    return amount * amount * (3.0 - 2.0 * amount) * (who.hair_thickness > 0)


def teeth(who: Identity, n_columns: int, contact: Array, upper: bool) -> Array:
    """A row of teeth [2, n_columns, 3]: gum line and biting edge, on an arch behind the lips' contact edge [n, 3]."""
    t = np.linspace(-1.0, 1.0, n_columns)
    front = contact[:, 2].max() - 8.0
    x, z = 21.0 * t, front - 16.0 * np.abs(t) ** 2.2
    line = mouth_centre(who)[1]
    gum, edge = (line + 9.0, line - 0.9 + 2.8 * t**2) if upper else (line - 12.5, line - 2.4 + 0.4 * t**2)
    z_edge = z + (0.5 if upper else -1.2)
    rows = [np.stack([x, np.full_like(x, gum), z - 1.0], -1), np.stack([x, edge + 0 * x, z_edge], -1)]
    return np.stack(rows)
