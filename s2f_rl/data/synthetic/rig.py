"""Articulators of a face: curves of jaw, lips, brows and lids become displacements of every vertex.

The rig is a set of displacement fields, built once for a face, and a little that is not linear: the jaw turns, the
lids slide over the eyeball, and the lips meet. `Rig.displace` is a pure function of its arguments.

Contact of the lips. In each column of the mouth the vertical gap that the articulators ask for is softly limited from
below to a quarter of the gap at rest (0.15 mm in the middle), so lips touch but never pass through each other. A
closure (for /m b p/) asks for less than no gap, as speakers do (a lip aims beyond the point of contact, Loefqvist and
Gracco 1997), whatever the jaw is doing. At rest the gap is `features.REST_GAP_MM`: pressed lips are just under it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from s2f_rl.data.synthetic import features
from s2f_rl.data.synthetic.face import Face
from s2f_rl.data.synthetic.head import Array
from s2f_rl.data.synthetic.topology import Index

ARTICULATORS = (
    "jaw",
    "spread",
    "round",
    "protrude",
    "upper_raise",
    "lower_depress",
    "press",
    "tuck",
    "brow",
    "blink",
    "nod",
    "turn",
)
"""Order of the columns of the curves; 0 is rest, values may exceed 1. At 1: jaw turned by 10 degrees; spread: corners
5.5 mm outwards; round: mouth 32 % narrower; protrude: lips 6.5 mm forwards; upper_raise 4.5 mm; lower_depress 5.5 mm;
press: lips rolled in; tuck: lower lip under the upper teeth; brow: 6 mm up; blink: lids closed; nod, turn: 1 degree of
the head."""
A = {name: k for k, name in enumerate(ARTICULATORS)}

JAW_RADIANS = np.radians(10.0)
HINGE = np.array([0.0, 12.0, 6.0])
"""The jaw's axis passes through this point (mm), parallel to x."""
CORNER_SHARE = 0.36
"""Share of the jaw's motion at the corners of the mouth."""
MIN_GAP_SHARE = 0.25
CONTACT_SOFTNESS = 0.2
"""Over which share of the rest gap the limit sets in."""
CLOSING_OVERSHOOT_MM = 0.8
"""How far beyond contact a full closure aims."""


def _smoothstep(x: Array, low: float | Array, high: float | Array) -> Array:
    t = np.clip((x - low) / (np.asarray(high) - low), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def _softplus(x: Array, width: Array) -> Array:
    return width * np.logaddexp(0.0, x / width)


@dataclass(frozen=True)
class Rig:
    """Displacement fields of one face.

    fields [n_fields, V*3] (mm): the articulators' own, then the second-order terms of jaw and lids, then one for the
    gap of each column of the mouth and one that brings the lower lip forward. columns [2, n_columns]: which vertices
    (upper, lower) bound the gap. rest_gap, rest_overlap [n_columns]: their distance at rest in y and z (mm).
    """

    face: Face
    fields: Array
    columns: Index
    rest_gap: Array
    rest_overlap: Array

    @property
    def upper_lip(self) -> int:
        """Vertex in the middle of the upper lip's contact edge."""
        return int(self.columns[0, self.columns.shape[1] // 2])

    @property
    def lower_lip(self) -> int:
        return int(self.columns[1, self.columns.shape[1] // 2])

    def displace(self, curves: Array, closure: Array) -> Array:
        """Displacement [..., T, V*3] in metres.

        curves [..., T, len(ARTICULATORS)]; closure [..., T] in [0, 1]: 1 brings the lips together, whatever the curves.
        """
        n = len(ARTICULATORS)
        angle = curves[..., A["jaw"]] * JAW_RADIANS
        lid = np.clip(curves[..., A["blink"]], 0.0, 1.0)
        linear = curves.copy()
        linear[..., A["jaw"]] = np.sin(angle)
        linear[..., A["blink"]] = lid
        linear = np.concatenate([linear, (1 - np.cos(angle))[..., None], (4 * lid * (1 - lid))[..., None]], -1)

        fields = self.fields[: n + 2].reshape(n + 2, -1, 3)
        upper, lower = self.columns
        gap = self.rest_gap + linear @ (fields[:, upper, 1] - fields[:, lower, 1])
        centre = len(upper) // 2
        overlap = self.rest_overlap[centre] + linear @ (fields[:, upper[centre], 2] - fields[:, lower[centre], 2])

        shut = closure[..., None]
        asked = (1 - shut) * gap - shut * CLOSING_OVERSHOOT_MM
        floor, soft = MIN_GAP_SHARE * self.rest_gap, CONTACT_SOFTNESS * self.rest_gap
        # The softplus at the rest gap is taken off, so that no articulation means no displacement.
        at_rest = floor + _softplus(self.rest_gap - floor, soft) - self.rest_gap
        wanted = floor + _softplus(asked - floor, soft) - at_rest
        forward = closure * (overlap - self.rest_overlap[centre])
        weights = np.concatenate([linear, gap - wanted, forward[..., None]], -1)
        return (weights @ self.fields) / 1000.0


@dataclass(frozen=True)
class _Mouth:
    """For every vertex: position relative to the mouth, and how strongly the lips carry it along."""

    u: Array
    """|x| over the half width of the mouth, signed by side."""
    height: Array
    """Millimetres above the mouth line."""
    side: Array
    """+1 upper lip and what is above the mouth, -1 below, between beyond the corners."""
    near: Array
    """1 on the lips, falling to 0 some 30 mm away."""
    depth: Array
    """0 on the skin, 0 to 1 from the vermilion border to the contact edge, 1 in the cavity."""


def _mouth_frame(face: Face) -> _Mouth:
    v, top, who = face.template_mm, face.topology, face.identity
    half = 25.0 + who.mouth_width
    centre = features.mouth_centre(who)
    u = v[:, 0] / half
    height = v[:, 1] - centre[1] - 0.9 * np.clip(np.abs(u), 0, 1) ** 3
    beyond = np.maximum(np.abs(v[:, 0]) - half, 0.0)
    blend = np.where(np.abs(u) < 1, 2.5 + 16.0 * np.abs(u) ** 3, 18.5 + 0.5 * beyond)
    side = 2.0 * _smoothstep(height, -blend, blend) - 1.0
    distance = np.hypot(beyond / 24.0, np.maximum(np.abs(height) - 9.0, 0.0) / np.where(height > 0, 19.0, 24.0))
    near = np.where(v[:, 2] > 25.0, (1 - np.minimum(distance, 1.0) ** 2) ** 2, 0.0)
    depth = np.zeros(len(v))

    column_u, column_side = features.ring_columns(top.layout.lip_quarter)
    n_rings = len(top.lips)
    for k, ring in enumerate([*top.lips, *top.cavity]):
        fraction = min(k / (n_rings - 1), 1.0)
        depth[ring] = fraction
        near[ring] = 1.0
        u[ring] = column_u
        exact = column_side
        side[ring] = (1 - fraction) * side[ring] + fraction * exact
    u[top.cavity_pole], side[top.cavity_pole], depth[top.cavity_pole], near[top.cavity_pole] = 0.0, 0.0, 1.0, 0.0
    near[top.cavity[1]] = 0.35
    still = [top.lids, top.eye_rings, top.eye_pole, top.brows, top.ears, top.ear_pole, top.teeth]
    for index in still:
        near[index.ravel()] = 0.0
    return _Mouth(u, height, side, near, depth)


def _jaw_weight(face: Face, mouth: _Mouth) -> Array:
    """Share [V] of the jaw's rotation that each vertex follows."""
    v, top = face.template_mm, face.topology
    a = np.clip(np.abs(mouth.u), 0.0, 1.0)
    below = CORNER_SHARE + (1 - CORNER_SHARE) * np.where(mouth.depth > 0, 1 - a**4.5, 1.0)
    above = CORNER_SHARE * np.where(mouth.depth > 0, a**5, 0.0)
    s = mouth.side
    weight = np.where(s < 0, CORNER_SHARE + (below - CORNER_SHARE) * -s, CORNER_SHARE + (above - CORNER_SHARE) * s)
    weight *= _smoothstep(v[:, 2], 0.0, 42.0)
    chin = -74.0 - face.identity.face_length
    weight *= _smoothstep(v[:, 1], chin - 42.0, chin - 2.0)
    weight *= 1 - _smoothstep(v[:, 1], 0.0, 30.0)
    for index in (top.lids, top.eye_rings, top.eye_pole, top.brows, top.ears, top.ear_pole, top.teeth[0]):
        weight[index.ravel()] = 0.0
    weight[top.teeth[1]] = 1.0
    weight[top.cavity_pole] = 0.45
    return weight


def build_rig(face: Face, asymmetry: float = 0.0) -> Rig:
    """Displacement fields of a face.

    asymmetry in [-0.3, 0.3]: how much more the face's left moves than its right when the lips spread, rise or fall.
    """
    v = face.template_mm
    mouth, n = _mouth_frame(face), len(ARTICULATORS)
    u, near, s, depth = mouth.u, mouth.near, mouth.side, mouth.depth
    a = np.clip(np.abs(u), 0.0, 1.0)
    up, down = np.maximum(s, 0.0), np.maximum(-s, 0.0)
    lean = 1.0 + asymmetry * np.tanh(v[:, 0] / 10.0)
    half = 25.0 + face.identity.mouth_width
    f = np.zeros((n + 2, len(v), 3))
    x_in_mouth = half * np.sign(u) * np.minimum(np.abs(u), 1.0 + 0.25 * np.tanh(np.maximum(np.abs(u) - 1.0, 0) / 0.25))

    weight = _jaw_weight(face, mouth)
    arm = v - HINGE
    f[A["jaw"], :, 1], f[A["jaw"], :, 2] = -weight * arm[:, 2], weight * arm[:, 1]
    f[n, :, 1], f[n, :, 2] = -weight * arm[:, 1], -weight * arm[:, 2]

    rise = np.clip(mouth.height, -12, 12)
    spread = np.stack([0.22 * x_in_mouth, 1.3 * a**2 - 0.10 * rise * (1 - a), -2.2 * a**2], -1)
    f[A["spread"]] = spread * (near * lean)[:, None]
    f[A["round"]] = np.stack([-0.32 * x_in_mouth, 0.22 * rise * (1 - a**4), 2.0 * a**2], -1) * near[:, None]
    tight = near**2
    # protruded lips also turn outwards a little: the borders part more than the contact edges
    evert = (1 - 0.75 * depth) * np.sign(s) * np.minimum(np.abs(s), 1.0) * (1 - a**2)
    f[A["protrude"]] = np.stack([0 * u, 1.3 * evert, 6.5 * (1 - 0.45 * a**2)], -1) * tight[:, None]
    f[A["upper_raise"], :, 1] = 4.5 * near * up * (1 - 0.85 * a**3) * lean
    f[A["upper_raise"], :, 2] = 0.8 * near * up * (1 - a**2)
    f[A["lower_depress"], :, 1] = -5.5 * near * down * (1 - 0.9 * a**4) * lean
    f[A["lower_depress"], :, 2] = 0.6 * near * down * (1 - a**2)
    roll = np.where(near > 0, np.exp(-np.maximum(np.abs(mouth.height) - 8.0, 0) / 6.0), 0.0) * near
    f[A["press"], :, 1] = -0.34 * rise * roll * (1 - 0.5 * a) * (1 - depth)
    f[A["press"], :, 2] = -(0.6 + 1.8 * depth) * roll * (1 - 0.6 * a**2)
    bow = np.clip(1 - a**2, 0, 1) ** 0.8
    f[A["tuck"], :, 1] = down * near * bow * (4.0 - 1.6 * depth)
    f[A["tuck"], :, 2] = -down * near * bow * (1.5 + 4.6 * depth)

    _add_eyes(face, f, n)
    _add_head(v, f)
    upper, lower = _columns(face)
    gaps, forward = _gap_fields(face, mouth, upper, lower)
    rest = v[upper] - v[lower]
    fields = np.concatenate([f, gaps, forward[None]]).reshape(n + 3 + len(upper), -1)
    return Rig(face, fields, np.stack([upper, lower]), rest[:, 1], rest[:, 2])


def _columns(face: Face) -> tuple[Index, Index]:
    """Pairs of facing vertices on the contact edges, from the face's left to its right, without the corners."""
    contact, q = face.topology.lips[-1], face.topology.layout.lip_quarter
    return contact[1 : 2 * q], contact[: 2 * q : -1]


def _gap_fields(face: Face, mouth: _Mouth, upper: Index, lower: Index) -> tuple[Array, Array]:
    """One field [V, 3] per column that takes 1 mm off its gap, and one that brings the lower lip 1 mm forward."""
    v, top = face.template_mm, face.topology
    q = top.layout.lip_quarter
    ring = 4 * q
    fields = np.zeros((len(upper), len(v), 3))
    # 40 % by the upper lip, 60 % by the lower
    share = np.where(mouth.side > 0, -0.4, 0.6)
    step = np.gradient(v[upper, 0])
    skin = (mouth.near > 0) & (mouth.depth == 0)
    skin[top.lips[0]] = False
    fade = 0.5 * np.exp(-np.maximum(np.abs(mouth.height) - 8.0, 0.0) / 9.0) * mouth.near**0.5
    bumps = np.exp(-0.5 * ((v[:, 0] - v[upper, 0][:, None]) / (1.5 * np.abs(step[:, None]) + 2.0)) ** 2)
    total = bumps.sum(0)
    bumps /= np.maximum(total, 0.6 * np.median(total[upper]))
    for k in range(len(upper)):
        fields[k, skin, 1] = (bumps[k] * fade * share)[skin]
        for row, index in enumerate([*top.lips, *top.cavity]):
            follow = 0.5 + 0.5 * min(row / (len(top.lips) - 1), 1.0)
            if row == len(top.lips) + 1:
                follow = 0.25
            fields[k, index[1 + k], 1] = -0.4 * follow
            fields[k, index[ring - 1 - k], 1] = 0.6 * follow
    forward = np.zeros((len(v), 3))
    below = np.maximum(-mouth.side, 0.0) * mouth.near
    strength = np.where(mouth.depth > 0, 0.5 + 0.5 * mouth.depth, fade)
    forward[:, 2] = below * np.clip(1 - np.abs(mouth.u) ** 3, 0, 1) * strength
    forward /= forward[lower[len(lower) // 2], 2]
    return fields, forward


def _add_eyes(face: Face, f: Array, n: int) -> None:
    """Brows and lids."""
    v, top, who, lay = face.template_mm, face.topology, face.identity, face.topology.layout
    lift = np.zeros(len(v))
    front = v[:, 2] > 20
    x, y = np.abs(v[:, 0]), v[:, 1] - 50.0 - who.brow_height
    across = np.exp(-0.5 * ((x - 30) / 22.0) ** 2)
    reach = across * np.exp(-((y / np.where(y > 0, 26.0, 8.0)) ** 2))
    lift[front] = reach[front]
    lift[top.brows] = across[top.brows]
    lift[top.eye_rings], lift[top.eye_pole], lift[top.lids[:, 1:]] = 0.0, 0.0, 0.0
    f[A["brow"], :, 1], f[A["brow"], :, 2] = 6.0 * lift, -0.6 * lift

    shapes = [features.lids(who, lay.lid_quarter, lay.lid_rings, opening) for opening in (1.0, 0.5, 0.0)]
    closing, middle = shapes[2] - shapes[0], shapes[1] - 0.5 * (shapes[2] + shapes[0])
    for side, sign in enumerate((1, -1)):
        f[A["blink"], top.lids[side]] = closing * (sign, 1, 1)
        f[n + 1, top.lids[side]] = middle * (sign, 1, 1)


def _add_head(v: Array, f: Array) -> None:
    """Small rotations of the whole head about the top of the neck, 1 degree each."""
    arm = (v - np.array([0.0, -60.0, -20.0])) * np.radians(1.0)
    f[A["nod"], :, 1], f[A["nod"], :, 2] = -arm[:, 2], arm[:, 1]
    f[A["turn"], :, 0], f[A["turn"], :, 2] = arm[:, 2], -arm[:, 0]
