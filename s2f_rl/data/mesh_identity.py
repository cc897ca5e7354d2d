"""Which mesh a face has: the same number of vertices is not the same mesh.

A :class:`MeshIdentity` is small and plain, so that actors, rewards and judges carry it in their files. What counts is
the *order of the vertices*: motion that was learned on one order moves the wrong vertices of another. Two
triangulations of the same vertices (quads cut along the other diagonal, a missing eyeball) are therefore the same mesh,
and so are the faces of different persons: their vertices have the same neighbours and lie at about the same places.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch

from s2f_rl.errors import UserError

UNIT, UP = "metres", "y"
FEW_VERTICES = 24
"""Below this neighbours tell nothing, and the triangles alone are compared."""
_PROBES, _NEAR, _WIDE = 128, 4, 16
_STEPS = 10_000
"""Places of the probes are whole numbers of this part of the face's size."""
_ASTRAY, _MAX_LOST_SHARE, _MAX_RESIDUAL = 0.2, 0.06, 0.35
"""Between persons of one mesh 0 to 0.03 of the probes are lost and the residual is 0.01 to 0.2 (the built-in faces of
300 to 5023 vertices, also bent by 10 mm and with dense eyeballs, a grid of 23370, 1 to 3 mm of noise); in another order
0.5 to 1 and 0.9 to 1."""
_MAX_SIZE_RATIO, _MAX_TURN_DEGREES = 2.0, 60.0
_MAX_VERTICES = 10_000_000
_LONG_M = 1e9
_HEX = set("0123456789abcdef")


@dataclass(frozen=True)
class MeshIdentity:
    """What is compared when two meshes meet.

    Attributes:
        n_vertices: V.
        triangles: SHA-256 of the set of triangles, whatever their order and first corner; None where there are none.
        size_m: longest side of the face's box, in metres; 0 where no template is known (nor probes and neighbours).
        places: x, y, z of up to 128 probe vertices, spread evenly over the numbers, from their mean, in 1/10000 of the
            size; [P*3].
        neighbours: the 16 vertices nearest to each probe, nearest first (fewer on small meshes); [P*K].
        unit: always "metres".
        up: the axis that points up, "x", "y" or "z".
    """

    n_vertices: int
    triangles: str | None = None
    size_m: float = 0.0
    places: tuple[int, ...] = ()
    neighbours: tuple[int, ...] = ()
    unit: str = UNIT
    up: str = UP

    @classmethod
    def of(
        cls,
        template: np.ndarray | torch.Tensor | Mapping[str, np.ndarray | torch.Tensor],
        faces: np.ndarray | torch.Tensor | None = None,
        up: str = UP,
        *,
        with_neighbours: bool = True,
    ) -> MeshIdentity:
        """The identity of a mesh.

        Args:
            template: a neutral face [V*3] or [V, 3] in metres, or one per subject: their median is then taken.
            faces: triangles [F, 3]; None where the mesh has none.
            up: the axis that points up.
            with_neighbours: False leaves them out, which takes a hundredth of the time and finds all but small changes
                of the order; not for files.
        """
        some = list(template.values()) if isinstance(template, Mapping) else [template]
        n = _points(some[0]).size // 3
        triangles = None if faces is None else triangles_hash(faces)
        probes = _probes(n)
        seen = slice(None) if with_neighbours else probes
        seen_faces = [_points(face).reshape(-1, 3)[seen].astype(np.float64) for face in some]
        points = seen_faces[0] if len(some) == 1 else np.median(np.stack(seen_faces), axis=0)
        if n < FEW_VERTICES or not np.isfinite(points).all():
            return cls(n, triangles, up=up)
        size = float(np.ptp(points, axis=0).max())
        if not 0 < size < _LONG_M:
            return cls(n, triangles, up=up)
        points = points - points.mean(axis=0)
        near = _nearest(points, probes, size) if with_neighbours else probes[:0]
        places = points[probes] if with_neighbours else points
        rounded = np.round((places - places.mean(axis=0)) / size * _STEPS).astype(int)
        return cls(n, triangles, size, tuple(rounded.ravel().tolist()), tuple(near.ravel().tolist()), up=up)

    def to_plain(self) -> dict[str, object]:
        """Numbers, words and lists, for JSON and for checkpoints."""
        plain = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}

    @classmethod
    def from_plain(cls, content: Any, what: str = "mesh") -> MeshIdentity | None:
        """Inverse of :meth:`to_plain`; None gives None (a file from before meshes had an identity).

        Raises:
            UserError: the content is none, naming ``what``.
        """
        if content is None:
            return None
        problem = _problem(content)
        if problem is not None:
            raise UserError(f"{what}: {problem}; the file is damaged, or from another version: make it again")
        known: dict[str, Any] = {field.name: content[field.name] for field in fields(cls)}
        return cls(**{**known, "places": tuple(known["places"]), "neighbours": tuple(known["neighbours"])})


def difference(a: MeshIdentity | None, b: MeshIdentity | None, what_a: str, what_b: str) -> str | None:
    """Why two meshes cannot be the same one, in a line that names both sides; None when they can be.

    The vertices decide where both sides know a template: their number, their neighbours, their places, their size.
    Triangles decide only where one side knows none, or where the vertices are too few to tell. An unknown identity
    (None) fits everything, one of a vertex count alone every mesh of that count.
    """
    if a is None or b is None:
        return None
    reason = _reason(a, b, what_a, what_b)
    return None if reason is None else f"{what_a} and {what_b} are different meshes: {reason}"


def triangles_hash(faces: np.ndarray | torch.Tensor) -> str:
    """SHA-256 (hex) of triangles [F, 3] as a set: each from its smallest corner on (its winding is kept), sorted."""
    corners = np.asarray(faces).astype(np.int64).reshape(-1, 3)
    first = corners.argmin(axis=1)[:, None] if len(corners) else np.zeros((0, 1), np.int64)
    rotated = np.take_along_axis(corners, (first + np.arange(3)) % 3, axis=1)
    return hashlib.sha256(np.unique(rotated, axis=0).astype("<i8").tobytes()).hexdigest()


def neighbours_lost(a: MeshIdentity, b: MeshIdentity) -> np.ndarray:
    """Which probes [P] have fewer than half of their 4 nearest vertices among the 16 nearest on the other side."""
    if not (a.neighbours and b.neighbours):
        return np.zeros(len(a.places) // 3, bool)
    one, other = (np.array(side.neighbours).reshape(len(side.places) // 3, -1) for side in (a, b))
    kept = [(p[:, :_NEAR, None] == q[:, None, :]).any(axis=2).mean(axis=1) for p, q in ((one, other), (other, one))]
    return np.minimum(*kept) < 0.5


@dataclass(frozen=True)
class Fit:
    """How probes lie on those of another face after the best rotation, scaling and shift.

    Attributes:
        astray: which probes [P] end more than a fifth of the face's size away.
        residual: root mean square distance, relative to the face's own spread (0 to 1).
        mirrored: whether a mirror image fits far better; residual and turn are then those of the mirror image.
        turn: [3, 3], orthogonal.
    """

    astray: np.ndarray
    residual: float
    mirrored: bool
    turn: np.ndarray

    @property
    def degrees(self) -> float:
        """Angle of the rotation (0 to 180)."""
        return math.degrees(math.acos(float(np.clip((np.trace(self.turn) - 1) / 2, -1, 1))))


def fit_places(a: np.ndarray, b: np.ndarray) -> Fit:
    """Lay places b [P, 3] on a [P, 3] (orthogonal Procrustes; both in parts of their face's size)."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norms = np.linalg.norm(a), np.linalg.norm(b)
    if min(norms) == 0:
        return Fit(np.zeros(len(a), bool), 0.0, False, np.eye(3))
    left, values, right = np.linalg.svd(b.T @ a / (norms[0] * norms[1]))
    sign = np.sign(np.linalg.det(left @ right)) or 1.0
    proper, mirror = (math.sqrt(max(0.0, 1 - (values[:2].sum() + s * values[2]) ** 2)) for s in (sign, 1.0))
    mirrored = bool(sign < 0 and proper > 0.2 and proper > 2 * mirror)
    turn = left @ np.diag([1, 1, 1.0 if mirrored else sign]) @ right
    distance = np.linalg.norm(b @ turn * (norms[0] / norms[1]) - a, axis=1)
    return Fit(distance > _ASTRAY, mirror if mirrored else proper, mirrored, turn)


def _reason(a: MeshIdentity, b: MeshIdentity, what_a: str, what_b: str) -> str | None:
    n = a.n_vertices
    if n != b.n_vertices:
        return f"{n} vertices and {b.n_vertices}; use faces of one mesh"
    if a.up != b.up:
        return f"{a.up} points up in one, {b.up} in the other; export both with the same axes"
    if not (a.places and b.places):
        if a.triangles and b.triangles and a.triangles != b.triangles:
            return f"{n} vertices each, but other triangles; use faces of one mesh"
        return None
    fit = fit_places(*(np.array(side.places).reshape(-1, 3) / _STEPS for side in (a, b)))
    lost = float((neighbours_lost(a, b) | fit.astray).mean())
    if lost > _MAX_LOST_SHARE or fit.residual > _MAX_RESIDUAL:
        return (
            f"the same {n} vertices, but in another order ({100 * lost:.0f} % of those compared lie elsewhere); "
            "export both with one vertex order"
        )
    ratio = a.size_m / b.size_m
    if not 1 / _MAX_SIZE_RATIO < ratio < _MAX_SIZE_RATIO:
        return f"one face is {max(ratio, 1 / ratio):.4g} times as large; bring both to metres"
    if fit.mirrored or fit.degrees > _MAX_TURN_DEGREES:
        how = "the mirror image of the other" if fit.mirrored else f"turned by {fit.degrees:.0f} degrees"
        return f"one face is {how} ({_axes(fit.turn, what_a, what_b)}); export both with the same axes"
    return None


def _axes(turn: np.ndarray, what_a: str, what_b: str) -> str:
    """Where the axes of b lie in a: "y of B is -z of A"."""
    moved = []
    for axis, row in zip("xyz", turn, strict=True):
        k = int(np.abs(row).argmax())
        name = ("-" if row[k] < 0 else "") + "xyz"[k]
        if name != axis:
            moved.append(f"{axis} is {name}")
    return f"in {what_b} {', '.join(moved)} of {what_a}" if moved else "its axes lie askew"


def _points(face: np.ndarray | torch.Tensor) -> np.ndarray:
    return face.detach().cpu().numpy() if isinstance(face, torch.Tensor) else np.asarray(face)


def _probes(n_vertices: int) -> np.ndarray:
    """Numbers of the vertices that are compared, [P], spread evenly."""
    return np.linspace(0, n_vertices - 1, min(n_vertices, _PROBES)).astype(int)


def _n_neighbours(n_vertices: int) -> int:
    """K: 16, on small meshes a third of the other vertices, so that chance alone keeps few."""
    return min(_WIDE, max(_NEAR, (n_vertices - 1) // 3))


def _nearest(points: np.ndarray, probes: np.ndarray, size: float) -> np.ndarray:
    """The vertices nearest to each probe [P, K], nearest first, itself left out."""
    everything = torch.from_numpy(points / size).float()
    distances = torch.cdist(everything[probes], everything)
    distances[torch.arange(len(probes)), torch.from_numpy(probes)] = math.inf
    return distances.topk(_n_neighbours(len(points)), largest=False).indices.numpy()


def _problem(content: object) -> str | None:
    """What keeps ``content`` from being an identity, or None."""
    if not isinstance(content, Mapping):
        return f"holds {type(content).__name__} where the identity of a mesh is expected"
    missing = [field.name for field in fields(MeshIdentity) if field.name not in content]
    if missing:
        return f"the identity of its mesh lacks {', '.join(missing)}"
    n, triangles, size = content["n_vertices"], content["triangles"], content["size_m"]
    if type(n) is not int or not 1 <= n <= _MAX_VERTICES:
        return "the identity of its mesh has no sensible number of vertices"
    if triangles is not None and not (isinstance(triangles, str) and len(triangles) == 64 and set(triangles) <= _HEX):
        return "the triangles of its mesh are no SHA-256"
    if type(size) not in (int, float) or not 0 <= size < _LONG_M:
        return "the size of its mesh is no length in metres"
    if content["unit"] != UNIT or content["up"] not in ("x", "y", "z"):
        return f"its mesh must be in {UNIT}, with x, y or z up"
    probes = len(_probes(n)) if size else 0
    for key, count, low, high in (
        ("places", probes * 3, -2 * _STEPS, 2 * _STEPS),
        ("neighbours", probes * _n_neighbours(n), 0, n - 1),
    ):
        values = content[key]
        if not isinstance(values, (list, tuple)) or len(values) != count:
            return f"the {key} of its mesh are no list of {count} numbers"
        if not all(type(value) is int and low <= value <= high for value in values):
            return f"the {key} of its mesh are not whole numbers from {low} to {high}"
    return None
