"""How somebody's face stands: its unit, which way is up and where it looks, told from the corners of its mouth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from s2f_rl.data.units import guess_unit, metres_per_unit
from s2f_rl.errors import UserError

DIRECTIONS = ("x", "y", "z", "-x", "-y", "-z")
MOUTH_M = (0.025, 0.09)
"""Distance of the corners of a mouth: adults have 40 to 60 mm, children and wide smiles the rest."""
_NOSE_REACH, _NOSE_FROM = 1.2, 0.3
_CLEAR = 0.02


@dataclass(frozen=True)
class Placement:
    """From a file's unit and axes to metres with y up and the face to +z, as every corpus is here.

    Attributes:
        metres_per_unit, unit: size of the file's unit, and its name.
        up, front: one of x, y, z, -x, -y, -z each: where the file's face has its top and where it looks.
    """

    metres_per_unit: float
    unit: str
    up: str
    front: str

    def __post_init__(self) -> None:
        if self.up.strip("-") == self.front.strip("-"):
            raise UserError(f"up is {self.up} and front {self.front}; they must be different axes")

    def __str__(self) -> str:
        return f"unit {self.unit}, up {_signed(self.up)}, looks to {_signed(self.front)}"

    @property
    def rotation(self) -> np.ndarray:
        """[3, 3], rows are the new axes: x to the face's left, y up, z forward."""
        up, front = _vector(self.up), _vector(self.front)
        return np.stack([np.cross(up, front), up, front])

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Vertices [.., V, 3] of the file in metres, upright."""
        return self.metres_per_unit * (points @ self.rotation.T)


def find_placement(
    vertices: np.ndarray,
    faces: np.ndarray,
    corners: tuple[int, int],
    unit: str | None = None,
    up: str | None = None,
    front: str | None = None,
) -> Placement:
    """Unit and axes of a head or face [V, 3]; what is given is kept, the rest is guessed.

    - the unit is the one in which the whole is as long as a head (:func:`~s2f_rl.data.units.guess_unit`), and must make
      the mouth as wide as mouths are
    - sideways is the axis along which the corners of the mouth lie apart
    - front is the other axis to which the surface around the mouth looks: its area vectors, added up, do not see the
      inside of the mouth. Without triangles, it is the axis in which that patch is flattest. The sign is that from the
      middle of the mesh to the mouth
    - up is the third, towards the nose: the foremost vertex around the mouth above or below it

    Raises:
        UserError: no unit fits, or the axes given contradict each other or the mouth.
    """
    points = np.asarray(vertices, np.float64)
    across = np.abs(points[corners[0]] - points[corners[1]])
    width = float(np.linalg.norm(points[corners[0]] - points[corners[1]]))
    if width == 0:
        raise UserError("the corners of the mouth are one point; give two different vertices")
    size, name = _unit(points, width, unit)
    middle = (points[corners[0]] + points[corners[1]]) / 2
    sideways = int(across.argmax())
    given = {"up": up, "front": front}
    for key, value in given.items():
        if value is not None and DIRECTIONS.index(value) % 3 == sideways:
            raise UserError(f"{key} {value}: is the axis along which the corners of the mouth lie; check --mouth")
    if front is None:
        others = [axis for axis in range(3) if axis != sideways]
        if up is not None:
            others.remove(DIRECTIONS.index(up) % 3)
        axis, sign = _looks_to(points, faces, middle, width, others)
        front = ("" if sign > 0 else "-") + "xyz"[axis]
    if up is None:
        axis = 3 - sideways - DIRECTIONS.index(front) % 3
        up = ("" if _nose_side(points, middle, width, axis, _vector(front)) > 0 else "-") + "xyz"[axis]
    return Placement(size, name, up, front)


def nose_tip(points: np.ndarray, middle: np.ndarray, width: float) -> np.ndarray:
    """The foremost point [3] above the mouth of an upright face: at most 1.2 mouths above, within a quarter of it."""
    from_mouth = (points - middle) / width
    near = (np.abs(from_mouth[:, 0]) < 0.25) & (from_mouth[:, 1] > _NOSE_FROM) & (from_mouth[:, 1] < _NOSE_REACH)
    if not near.any():
        raise UserError(
            "no vertices above the mouth, where a nose is; check the corners of the mouth, or paint regions"
        )
    return points[near][points[near, 2].argmax()]


def _unit(points: np.ndarray, width: float, unit: str | None) -> tuple[float, str]:
    size = metres_per_unit(points, unit, "mesh")
    name = unit or f"{guess_unit(float(np.ptp(points, axis=0).max()))} (guessed)"
    if not MOUTH_M[0] <= width * size <= MOUTH_M[1]:
        raise UserError(
            f"in {name} the corners of the mouth are {1000 * width * size:.3g} mm apart, mouths are 40 to 60 mm wide; "
            "check the two vertices, give the unit (--unit), and leave the body out of the mesh"
        )
    return size, name


def _looks_to(
    points: np.ndarray, faces: np.ndarray, middle: np.ndarray, width: float, axes: list[int]
) -> tuple[int, float]:
    """The axis that the skin around the mouth faces, of ``axes``, and its sign."""
    near = np.linalg.norm(points - middle, axis=1) < width
    inside = faces[near[faces].all(axis=1)] if len(faces) else faces
    if len(inside):
        a, b, c = (points[inside[:, k]] for k in range(3))
        facing = np.cross(b - a, c - a).sum(axis=0)
        axis = max(axes, key=lambda k: abs(facing[k]))
    else:
        facing = np.zeros(3)
        axis = min(axes, key=lambda k: points[near, k].std())
    ahead = float(middle[axis] - points[:, axis].mean())
    extent = float(np.ptp(points[:, axis]))
    return axis, ahead if abs(ahead) > _CLEAR * extent or not facing[axis] else float(facing[axis])


def _nose_side(points: np.ndarray, middle: np.ndarray, width: float, axis: int, front: np.ndarray) -> float:
    """On which side of the mouth along ``axis`` the skin stands out most: where the nose is."""
    way = (points - middle) / width
    beside = np.delete(np.abs(way), [axis, int(np.abs(front).argmax())], axis=1)[:, 0] < 0.25
    height, depth = way[:, axis], way @ front
    reach = [
        depth[beside & (side * height > _NOSE_FROM) & (side * height < _NOSE_REACH)].max(initial=-np.inf)
        for side in (1, -1)
    ]
    return reach[0] - reach[1]


def _vector(direction: str) -> np.ndarray:
    number = DIRECTIONS.index(direction)
    return np.eye(3)[number % 3] * (1 if number < 3 else -1)


def _signed(direction: str) -> str:
    return direction if direction.startswith("-") else f"+{direction}"
