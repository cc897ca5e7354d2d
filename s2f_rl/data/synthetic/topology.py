"""Which vertices a face has and how triangles join them: any vertex count, exactly, the same for every identity.

The head's skin is unrolled onto a plane: a point's distance from the middle is its angle from straight ahead
(azimuthal equidistant). Rings around lips and eyes are fixed there; the rest is filled with points whose spacing
grows with the distance from the features (weighted Lloyd relaxation, Du, Faber and Gunzburger 1999) and joined by
Delaunay triangles. One half is built and mirrored. Lips, lids, cavity, eyeballs, brows and teeth are strips.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay, cKDTree

from s2f_rl.data.synthetic import features
from s2f_rl.data.synthetic.head import RAY_ORIGIN, Array, Identity
from s2f_rl.errors import UserError

Index = NDArray[np.int64]

MIN_VERTICES = 300
PLANE_RADIUS = 95.0
"""Millimetres in the plane for one radian: about the distance of the face from the middle of the head."""
RIM = np.radians(152.0) * PLANE_RADIUS
"""Radius of the unrolled disc (mm); the back of the head beyond it is closed by a fan."""


@dataclass(frozen=True)
class Layout:
    """Rows and columns of each part, chosen from the vertex count."""

    lip_quarter: int
    lip_rings: int
    lid_quarter: int
    lid_rings: int
    eye_around: int
    brow_columns: int
    ear_rings: int
    ear_around: int
    teeth_columns: int
    rim_half: int

    @classmethod
    def of(cls, n_vertices: int) -> Layout:
        spacing = 150.0 / np.sqrt(n_vertices)
        return cls(
            lip_quarter=max(4, round(115 / (4 * spacing))),
            lip_rings=3 + int(spacing < 5.0) + int(spacing < 3.0) + int(spacing < 1.6),
            lid_quarter=max(2, round(72 / (4 * spacing))),
            lid_rings=3 + int(spacing < 5.0) + int(spacing < 3.0),
            eye_around=8 if spacing > 7 else (10 if spacing > 4.5 else 20),
            ear_rings=0 if spacing > 7 else (2 if spacing > 4.5 else 3),
            ear_around=8 if spacing > 4.5 else (12 if spacing > 3 else 20),
            brow_columns=max(4, round(38 / spacing)),
            teeth_columns=2 * max(3, round(25 / spacing)) + 1,
            rim_half=max(5, round(33 / spacing)),
        )


@dataclass(frozen=True)
class Topology:
    """Vertex blocks and triangles. Index arrays are shaped as the grids of `features.py`; [2, ...] is left, right."""

    n_vertices: int
    layout: Layout
    lips: Index
    cavity: Index
    cavity_pole: int
    lids: Index
    eye_rings: Index
    eye_pole: Index
    brows: Index
    ears: Index
    ear_pole: Index
    """[2], or [0] where the count allows no ears."""
    teeth: Index
    skin: Index
    """Skin points that are neither on the lip border nor on a lid crease, [n_skin]; their plane positions follow."""
    skin_plane: Array
    back: int
    """The vertex that closes the back of the head."""
    mirror: Index
    """[V]: the vertex on the other side of the face (itself on the midline)."""
    faces: NDArray[np.int32]


def to_plane(points: Array) -> Array:
    """Head points [..., 3] (mm) to unrolled positions [..., 2] (mm)."""
    d = points - RAY_ORIGIN
    d = d / np.linalg.norm(d, axis=-1, keepdims=True)
    angle = np.arccos(np.clip(d[..., 2:], -1.0, 1.0))
    return PLANE_RADIUS * angle * d[..., :2] / np.maximum(np.linalg.norm(d[..., :2], axis=-1, keepdims=True), 1e-12)


def from_plane(plane: Array) -> Array:
    """Unrolled positions [..., 2] to unit directions [..., 3] from `RAY_ORIGIN`."""
    radius = np.linalg.norm(plane, axis=-1, keepdims=True)
    angle = radius / PLANE_RADIUS
    return np.concatenate([np.sin(angle) * plane / np.maximum(radius, 1e-12), np.cos(angle)], -1)


def _relative_spacing(q: Array, lip: Array, eye: Array) -> Array:
    """Wanted edge length at plane points [n, 2], relative to that at the lips."""
    x, y = np.abs(q[:, 0]), q[:, 1]
    q = np.stack([x, y], -1)

    def to_segment(a: tuple[float, float], b: tuple[float, float]) -> Array:
        s, e = np.asarray(a), np.asarray(b)
        t = np.clip(((q - s) @ (e - s)) / ((e - s) @ (e - s)), 0, 1)
        return np.linalg.norm(q - s - t[:, None] * (e - s), axis=-1)

    to_lip = cKDTree(lip).query(q)[0]
    to_eye = cKDTree(eye).query(q)[0]
    nose = to_segment((0.0, 0.0), (15.0, -6.0))
    bridge = to_segment((0.0, 5.0), (0.0, 45.0))
    brow = to_segment((10.0, 60.0), (48.0, 64.0))
    chin = to_segment((0.0, -72.0), (15.0, -70.0))
    jaw = to_segment((10.0, -85.0), (85.0, -45.0))
    grow = 0.034
    wanted = np.minimum.reduce(
        [
            1.0 + grow * to_lip,
            1.05 + grow * to_eye,
            1.0 + 1.3 * grow * nose,
            1.5 + grow * bridge,
            1.6 + grow * brow,
            1.6 + grow * chin,
            2.1 + grow * jaw,
        ]
    )
    return np.minimum(wanted + 0.022 * np.maximum(np.hypot(x, y) - 100.0, 0.0), 8.0)


def _quasi_random(n: int, dimensions: int) -> Array:
    """The first n points of Roberts' R_d sequence in the unit cube: even, and the same on every machine."""
    root = 2.0
    for _ in range(60):
        root = (1 + root) ** (1 / (dimensions + 1))
    return (0.5 + np.outer(np.arange(1, n + 1), root ** -np.arange(1.0, dimensions + 1))) % 1.0


def _inside(polygon: Array, q: Array) -> NDArray[np.bool_]:
    """Which points [n, 2] lie in a polygon [m, 2] (even-odd rule)."""
    a, b = polygon, np.roll(polygon, -1, axis=0)
    crosses = (a[:, 1] > q[:, 1:]) != (b[:, 1] > q[:, 1:])
    with np.errstate(divide="ignore", invalid="ignore"):
        x = a[:, 0] + (q[:, 1:] - a[:, 1]) / (b[:, 1] - a[:, 1]) * (b[:, 0] - a[:, 0])
    return (crosses & (q[:, :1] < x)).sum(1) % 2 == 1


def _midline(y0: float, y1: float, spacing: Array, grid: Array, extra: int) -> Array:
    """Heights strictly between y0 and y1 whose steps follow the wanted spacing; `extra` adds points."""
    fine = np.linspace(y0, y1, 2000)
    steps = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(fine)) / np.interp(fine[1:], grid, spacing))])
    n = max(1, round(steps[-1])) - 1 + extra
    return np.interp(np.arange(1, n + 1) * steps[-1] / (n + 1), steps, fine)


def _fill(n: int, fixed: Array, holes: list[Array], lip: Array, eye: Array) -> Array:
    """n points [n, 2] in the half disc x > 0, outside the holes, spaced as wanted among the fixed points."""
    raw = _quasi_random(400_000 if n > 400 else 120_000, 3)
    q = np.stack([raw[:, 0] * RIM, (2 * raw[:, 1] - 1) * RIM], -1)
    q, chance = q[np.hypot(q[:, 0], q[:, 1]) < RIM], raw[np.hypot(q[:, 0], q[:, 1]) < RIM, 2]
    wanted = _relative_spacing(q, lip, eye)
    keep = chance < (wanted.min() / wanted) ** 2
    for hole in holes:
        keep &= ~_inside(hole, q)
    q, wanted = q[keep], wanted[keep]
    limit = 60 * n + 2000
    q, wanted = q[:limit], wanted[:limit]
    points = q[np.linspace(0, len(q) - 1, n).astype(int)].copy()
    weight = 1.0 / wanted**2
    mirrored_fixed = fixed * (-1, 1)
    for _ in range(40):
        everything = np.concatenate([points, fixed, points * (-1, 1), mirrored_fixed])
        owner = cKDTree(everything).query(q)[1]
        mine = owner < n
        mass = np.bincount(owner[mine], weight[mine], n)
        for k in range(2):
            total = np.bincount(owner[mine], weight[mine] * q[mine, k], n)
            points[:, k] = np.where(mass > 0, total / np.maximum(mass, 1e-300), points[:, k])
        for hole in holes:
            points = _clear_of_edges(points, hole)
    return points


def _clear_of_edges(points: Array, ring: Array) -> Array:
    """Push points [n, 2] out of the circles over the edges of a counter-clockwise ring.

    An edge whose circle is empty is in every Delaunay triangulation, so that rings keep all their edges.
    """
    a, b = ring, np.roll(ring, -1, axis=0)
    middle, radius = 0.5 * (a + b), 0.5 * np.linalg.norm(b - a, axis=1)
    outward = np.stack([b[:, 1] - a[:, 1], a[:, 0] - b[:, 0]], -1) / (2 * radius[:, None])
    points = points.copy()
    away = points[:, None] - middle
    inside = (np.linalg.norm(away, axis=-1) < 1.15 * radius) & (np.hypot(*points.T) < 150.0)[:, None]
    for i, j in np.argwhere(inside):
        step = points[i] - middle[j]
        length = np.linalg.norm(step)
        if length < 1.15 * radius[j]:
            direction = step / max(length, 1e-9) + outward[j]
            points[i] = middle[j] + 1.2 * radius[j] * direction / max(np.linalg.norm(direction), 1e-9)
    return points


def _strip(outer: Index, inner: Index, flip: NDArray[np.bool_]) -> Index:
    """Triangles between two closed rings [n], counter-clockwise seen from outside; flip chooses the diagonals."""
    a, b = outer, np.roll(outer, -1)
    c, d = np.roll(inner, -1), inner
    first = np.where(flip[:, None], np.stack([a, b, d], -1), np.stack([a, b, c], -1))
    second = np.where(flip[:, None], np.stack([b, c, d], -1), np.stack([a, c, d], -1))
    return np.concatenate([first, second])


def _sheet(grid: Index) -> Index:
    """Triangles of an open grid [rows, columns] whose rows go up and whose columns go to +x, facing +z."""
    a, b, c, d = grid[:-1, :-1].ravel(), grid[:-1, 1:].ravel(), grid[1:, 1:].ravel(), grid[1:, :-1].ravel()
    return np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)])


def _fan(ring: Index, pole: int) -> Index:
    return np.stack([ring, np.roll(ring, -1), np.full_like(ring, pole)], -1)


@lru_cache(maxsize=8)
def build_topology(n_vertices: int) -> Topology:
    """Blocks and triangles of a face with exactly `n_vertices` vertices (at least `MIN_VERTICES`).

    Depends on nothing but the count. Takes 0.3 s at 600 vertices and a few seconds at 5023.
    """
    if n_vertices < MIN_VERTICES:
        raise UserError(f"vertices={n_vertices}: a face with lips, lids and a nose needs at least {MIN_VERTICES}")
    lay = Layout.of(n_vertices)
    ring = 4 * lay.lip_quarter
    used = 0

    def block(*shape: int) -> Index:
        nonlocal used
        index = used + np.arange(int(np.prod(shape))).reshape(shape)
        used += index.size
        return index

    lips, cavity = block(lay.lip_rings, ring), block(2, ring)
    pole = int(block(1)[0])
    lids = block(2, lay.lid_rings, 4 * lay.lid_quarter)
    eye_rings, eye_pole = block(2, 4, lay.eye_around), block(2)
    ears, ear_pole = block(2, lay.ear_rings, lay.ear_around), block(2 if lay.ear_rings else 0)
    brows, teeth = block(2, 3, lay.brow_columns), block(2, 2, lay.teeth_columns)

    # the plane: fixed rings of the average face
    who = Identity()
    lip_ring = to_plane(features.lips(who, lay.lip_quarter, 2)[0])
    lid_ring = to_plane(features.lids(who, lay.lid_quarter, 3)[0])
    top, bottom = lip_ring[lay.lip_quarter, 1], lip_ring[3 * lay.lip_quarter, 1]
    rim_angle = np.linspace(np.pi / 2, -np.pi / 2, lay.rim_half + 1)
    rim = RIM * np.stack([np.cos(rim_angle), np.sin(rim_angle)], -1)
    rim[[0, -1], 0] = 0.0

    # edge length from the number of vertices that remain for the skin
    rim_total = 2 * lay.rim_half + 1
    left = n_vertices - used - rim_total
    grid = np.stack(np.meshgrid(np.linspace(0, RIM, 120), np.linspace(-RIM, RIM, 240)), -1).reshape(-1, 2)
    cell = (RIM / 119) * (2 * RIM / 239)
    hole = (np.hypot(*grid.T) > RIM) | _inside(lip_ring, grid) | _inside(lid_ring, grid)
    area = 2 * cell * (1.0 / _relative_spacing(grid[~hole], lip_ring, lid_ring) ** 2).sum()
    if left < 30:
        raise UserError(f"vertices={n_vertices}: too few for the skin of the face; at least {MIN_VERTICES} are needed")
    edge = float(np.sqrt(area * 2 / np.sqrt(3) / left))
    heights = np.linspace(-RIM, RIM, 1000)
    along = edge * _relative_spacing(np.stack([0 * heights, heights], -1), lip_ring, lid_ring)
    below = _midline(bottom, -RIM, along, heights, 0)
    above = _midline(top, RIM, along, heights, 0)
    if (left - len(above) - len(below)) % 2:
        above = _midline(top, RIM, along, heights, 1)
    n_free = (left - len(above) - len(below)) // 2
    middle = np.concatenate([above, below])
    middle = np.stack([np.zeros_like(middle), middle], -1)

    half_lip = np.concatenate([np.arange(3 * lay.lip_quarter, ring), np.arange(0, lay.lip_quarter + 1)])
    half_lip_plane = lip_ring[half_lip] * (1, 1)
    half_lip_plane[[0, -1], 0] = 0.0
    fixed = np.concatenate([middle, rim, half_lip_plane, lid_ring])
    free = _fill(n_free, fixed, [lip_ring, lid_ring], lip_ring, lid_ring)

    middle_index = block(len(middle))
    rim_index = block(2 * lay.rim_half)
    back = int(block(1)[0])
    left_index, right_index = block(n_free), block(n_free)
    assert used == n_vertices

    # the half that is triangulated, in plane order; rim_index runs clockwise from the top, once around
    half_plane = np.concatenate([fixed, free])
    half_rim = rim_index[: lay.rim_half + 1]
    half_index = np.concatenate([middle_index, half_rim, lips[0][half_lip], lids[0, 0], left_index])
    simplices = Delaunay(half_plane).simplices
    a, b, c = (half_plane[simplices[:, k]] for k in range(3))
    doubled = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1])
    simplices = np.where(doubled[:, None] < 0, simplices[:, ::-1], simplices)
    centre = (a + b + c) / 3
    keep = (np.abs(doubled) > 1e-6) & ~_inside(lip_ring, centre) & ~_inside(lid_ring, centre)
    half_faces = half_index[simplices[keep]]

    mirror = np.arange(n_vertices)
    column = (2 * lay.lip_quarter - np.arange(ring)) % ring
    for rings in (lips, cavity):
        mirror[rings] = rings[:, column]
    for pair in (lids, eye_rings, eye_pole, brows, ears, ear_pole):
        if pair.size == 0:
            continue
        mirror[pair[0]], mirror[pair[1]] = pair[1], pair[0]
    mirror[teeth] = teeth[:, :, ::-1]
    mirror[rim_index] = rim_index[-np.arange(2 * lay.rim_half)]
    mirror[left_index], mirror[right_index] = right_index, left_index

    flip = np.arange(ring) // lay.lip_quarter % 4
    flip_lips = (flip == 1) | (flip == 2)
    faces = [half_faces, mirror[half_faces][:, ::-1], _fan(rim_index, back)]
    inward = [*lips, *cavity]
    faces += [_strip(o, i, flip_lips) for o, i in zip(inward, inward[1:], strict=False)]
    faces.append(_fan(cavity[-1], pole))
    left_parts = []
    straight = np.zeros(4 * lay.lid_quarter, bool)
    left_parts += [_strip(o, i, straight) for o, i in zip(lids[0], lids[0, 1:], strict=False)]
    around = np.zeros(lay.eye_around, bool)
    left_parts += [_strip(o, i, around) for i, o in zip(eye_rings[0], eye_rings[0, 1:], strict=False)]
    left_parts += [_fan(eye_rings[0, 0], int(eye_pole[0])), _sheet(brows[0])]
    if lay.ear_rings:
        shell = np.zeros(lay.ear_around, bool)
        left_parts += [_strip(o, i, shell) for o, i in zip(ears[0], ears[0, 1:], strict=False)]
        left_parts.append(_fan(ears[0, -1], int(ear_pole[0])))
    for part in left_parts:
        faces += [part, mirror[part][:, ::-1]]
    faces += [_sheet(teeth[0, ::-1]), _sheet(teeth[1])]

    plane = np.concatenate([middle, np.concatenate([rim, rim[-2:0:-1] * (-1, 1)]), free, free * (-1, 1)])
    return Topology(
        n_vertices=n_vertices,
        layout=lay,
        lips=lips,
        cavity=cavity,
        cavity_pole=pole,
        lids=lids,
        eye_rings=eye_rings,
        eye_pole=eye_pole,
        brows=brows,
        ears=ears,
        ear_pole=ear_pole,
        teeth=teeth,
        skin=np.concatenate([middle_index, rim_index, left_index, right_index]),
        skin_plane=plane,
        back=back,
        mirror=mirror,
        faces=np.concatenate(faces).astype(np.int32),
    )
