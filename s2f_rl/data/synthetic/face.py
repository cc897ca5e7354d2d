"""A person's face as a mesh: template, regions, landmarks and colours."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from s2f_rl.data.synthetic import features
from s2f_rl.data.synthetic.head import RAY_ORIGIN, Array, Identity, radial_surface
from s2f_rl.data.synthetic.topology import RIM, Index, Layout, Topology, build_topology, from_plane, to_plane

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Face:
    """The resting face of one identity on the common topology.

    template_mm is [V, 3] in millimetres (x the face's left, y up, z forward); `template` gives metres.
    """

    identity: Identity
    topology: Topology
    template_mm: Array = field(repr=False)

    @property
    def template(self) -> NDArray[np.float32]:
        """[V, 3] float32, metres."""
        return (self.template_mm / 1000.0).astype(np.float32)


def _thin_plate(source: Array, target: Array, query: Array) -> Array:
    """Smooth map of the plane that takes source points [n, 2] to target points, applied to query points [m, 2].

    Thin-plate spline with a little smoothing (Bookstein 1989).
    """

    def kernel(a: Array, b: Array) -> Array:
        r2 = ((a[:, None] - b[None]) ** 2).sum(-1) / 100.0**2
        return r2 * np.log(np.maximum(r2, 1e-12))

    n = len(source)
    affine = np.concatenate([np.ones((n, 1)), source / 100.0], 1)
    system = np.zeros((n + 3, n + 3))
    system[:n, :n] = kernel(source, source) + 1e-5 * np.eye(n)
    system[:n, n:], system[n:, :n] = affine, affine.T
    weights = np.linalg.solve(system, np.concatenate([target - source, np.zeros((3, 2))]))
    moved = kernel(query, source) @ weights[:n]
    return query + moved + np.concatenate([np.ones((len(query), 1)), query / 100.0], 1) @ weights[n:]


@lru_cache(maxsize=8)
def _anchors(who: Identity, layout: Layout) -> Array:
    """Plane positions [n, 2] of everything that a person's measures move: mouth, eyes, nose, chin, and a still rim."""
    lip = features.lips(who, layout.lip_quarter, 2)[0]
    lid = features.lids(who, layout.lid_quarter, 3)[0]
    eyes = np.concatenate([lid, lid * (-1, 1, 1)])
    tip_y, tip_z = 4.0 - who.nose_length, 101.0 + who.nose_forward
    wing = 16.0 + who.nose_width
    chin = -66.0 - who.face_length
    marks = np.array(
        [
            [0, tip_y, tip_z + 8],
            [0, tip_y - 12, tip_z - 10],
            [wing, tip_y - 4, tip_z - 14],
            [-wing, tip_y - 4, tip_z - 14],
            [0, 40, 86 + who.nose_bridge],
            [0, chin, 84],
            [22, chin + 2, 76],
            [-22, chin + 2, 76],
        ]
    )
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    still = 150.0 * np.stack([np.cos(angle), np.sin(angle)], -1)
    return np.concatenate([to_plane(np.concatenate([lip, eyes, marks])), still, 1.6 * still])


def build_face(identity: Identity, n_vertices: int) -> Face:
    """The resting face of an identity with exactly `n_vertices` vertices."""
    top = build_topology(n_vertices)
    lay = top.layout
    v = np.zeros((n_vertices, 3))
    rings = features.lips(identity, lay.lip_quarter, lay.lip_rings)
    v[top.lips] = rings
    cavity = features.mouth_cavity(identity, lay.lip_quarter, rings[-1])
    v[top.cavity] = cavity
    v[top.cavity_pole] = cavity[1].mean(0) - (0, 2.0, 24.0)
    pole, ball = features.eyeball(identity, lay.eye_around)
    left = [
        (top.lids, features.lids(identity, lay.lid_quarter, lay.lid_rings)),
        (top.eye_rings, ball),
        (top.eye_pole, pole),
        (top.brows, features.brow(identity, lay.brow_columns)),
    ]
    if lay.ear_rings:
        hollow, shell = features.ear(identity, lay.ear_around, lay.ear_rings == 3)
        left += [(top.ears, shell), (top.ear_pole, hollow)]
    for index, position in left:
        v[index[0]], v[index[1]] = position, position * (-1, 1, 1)
    for row, upper in enumerate((True, False)):
        v[top.teeth[row]] = features.teeth(identity, lay.teeth_columns, rings[-1], upper)

    plane = _thin_plate(_anchors(Identity(), lay), _anchors(identity, lay), top.skin_plane)
    plane[np.abs(top.skin_plane[:, 0]) < 1e-9, 0] = 0.0
    direction = from_plane(plane)
    skin = radial_surface(direction, identity)
    skin += (identity.hair_thickness * features.hair(plane, identity))[:, None] * direction
    # the skin around the mouth rises to the lips' border
    border = rings[0]
    near = np.linalg.norm(skin[:, None, :2] - border[None, :, :2], axis=-1)
    u, side = features.ring_columns(lay.lip_quarter)
    pout = features.lip_pout(0.0, u, side, identity)[near.argmin(1)]
    front = skin[:, 2] > RAY_ORIGIN[2]
    skin[:, 2] += np.where(front, pout * np.exp(-((near.min(1) / 5.0) ** 2)), 0.0)
    v[top.skin] = skin
    v[top.back] = radial_surface(np.array([0.0, 0.0, -1.0]), identity) - (0, 0, identity.hair_thickness)
    return Face(identity, top, v)


def regions(n_vertices: int) -> dict[str, NDArray[np.int64]]:
    """Vertex indices by region, the same for every identity, under the names of FLAME's masks and a few of our own.

    FLAME's: face, forehead, lips, nose, eye_region, left_eye_region, right_eye_region, left_eyeball, right_eyeball,
    left_ear, right_ear, scalp, neck, boundary. Ours: upper_face (forehead, eye region, brows), brows, upper_teeth,
    lower_teeth, mouth_interior. lips is the red of the lips, contact edges included. A region without vertices (ears
    of a very coarse face) is left out.
    """
    face = build_face(Identity(), n_vertices)
    top, v = face.topology, face.template_mm
    x, y, z = np.abs(v[:, 0]), v[:, 1], v[:, 2]
    skin = np.zeros(n_vertices, bool)
    skin[top.skin] = True
    hairy = np.zeros(n_vertices)
    hairy[top.skin] = features.hair(top.skin_plane, Identity())
    creases = top.lids[:, 0].ravel()
    eye = features.eye_centre(Identity())
    around_eye = skin & (np.hypot((x - eye[0]) / 23.0, (y - eye[1] - 3.0) / 19.0) < 1) & (z > 30)
    around_eye[creases] = True
    around_eye[top.lids.ravel()] = True
    nose = skin & (z > 70) & (y > -12) & (y < 42) & (x < 6.0 + 12.0 * np.clip((40 - y) / 45, 0, 1)) & ~around_eye
    forehead = skin & (y > 52) & (hairy < 0.5) & (z > 20) & ~around_eye
    neck = skin & ((y < -80) | ((z < 30) & (y < -45))) & (hairy < 0.5)
    scalp = skin & (hairy >= 0.5)
    front = skin & ~scalp & ~neck & (z > 5)
    front[creases] = True
    front[top.lips.ravel()] = front[top.lids.ravel()] = True
    left = v[:, 0] > 0
    brows = np.sort(top.brows.ravel())

    def where(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.flatnonzero(mask).astype(np.int64)

    def flat(*parts: Index) -> NDArray[np.int64]:
        return np.sort(np.concatenate([np.ravel(p) for p in parts])).astype(np.int64)

    eyes = where(around_eye)
    found = {
        "face": where(front),
        "forehead": where(forehead),
        "lips": flat(top.lips[1:]),
        "nose": where(nose),
        "eye_region": flat(eyes, brows),
        "left_eye_region": flat(where(around_eye & left), top.brows[0]),
        "right_eye_region": flat(where(around_eye & ~left), top.brows[1]),
        "left_eyeball": flat(top.eye_rings[0], top.eye_pole[:1]),
        "right_eyeball": flat(top.eye_rings[1], top.eye_pole[1:]),
        "left_ear": flat(top.ears[0], top.ear_pole[:1]),
        "right_ear": flat(top.ears[1], top.ear_pole[1:]),
        "scalp": flat(where(scalp), np.array([top.back])),
        "neck": where(neck),
        "boundary": flat(top.skin[np.linalg.norm(top.skin_plane, axis=-1) > RIM - 1e-6]),
        "upper_face": flat(np.union1d(where(forehead | around_eye), brows)),
        "brows": brows,
        "upper_teeth": flat(top.teeth[0]),
        "lower_teeth": flat(top.teeth[1]),
        "mouth_interior": flat(top.cavity, np.array([top.cavity_pole])),
    }
    return {name: index for name, index in found.items() if index.size}


def face_colours(face: Face, skin: Colour, lips: Colour, hair: Colour, iris: Colour) -> NDArray[np.uint8]:
    """Colour of each vertex [V, 3], sRGB 0 to 255, for a renderer that shades between vertices."""
    top = face.topology
    tone, red, dark = (np.array(c, dtype=np.float64) for c in (skin, lips, hair))
    c = np.tile(tone, (top.n_vertices, 1))
    amount = features.hair(top.skin_plane, face.identity)[:, None]
    c[top.skin] = (1 - amount) * tone + amount * dark
    c[top.back] = dark
    c[top.lips] = red
    c[top.lips[0]] = 0.65 * tone + 0.35 * red
    c[top.lips[-1]] = 0.88 * red
    c[top.cavity[0]], c[top.cavity[1]], c[top.cavity_pole] = (104, 44, 44), (58, 20, 22), (24, 6, 8)
    c[top.teeth], c[top.teeth[:, 0]] = (240, 235, 224), (190, 110, 108)
    c[top.brows] = 0.85 * dark + 0.15 * tone
    c[top.lids[:, -2:]] = tone * (0.78, 0.68, 0.68)
    c[top.eye_rings], c[top.eye_rings[:, 1]] = (236, 234, 230), np.array(iris) * 0.9
    c[top.eye_rings[:, 0]] = c[top.eye_pole] = (12, 12, 14)
    if top.ears.size:
        c[top.ears], c[top.ear_pole] = tone * (0.98, 0.93, 0.92), tone * (0.78, 0.66, 0.64)
    return np.clip(np.round(c), 0, 255).astype(np.uint8)
