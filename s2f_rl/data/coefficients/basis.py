"""What coefficients do to a mesh: a linear basis, ``basis.npz``."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from s2f_rl.data.description import METRES_PER_UNIT
from s2f_rl.data.files import atomic_path, load_npz
from s2f_rl.errors import UserError

FILE = "basis.npz"
_KEYS = ("neutral", "shapes", "names")


@dataclass(frozen=True, eq=False)
class LinearBasis:
    """A face at rest and the shapes of a rig: vertices_t = neutral + sum_k c_tk shapes_k.

    Tensors are float32, in metres.

    Attributes:
        neutral: [V, 3], the face where all coefficients are 0.
        shapes: [K, V, 3], what each coefficient displaces at 1.
        names: of the K coefficients, no two alike.
        bounds: [K, 2], the least and the greatest value that each may have; infinite where it has no bound.
    """

    neutral: Tensor
    shapes: Tensor
    names: tuple[str, ...]
    bounds: Tensor

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem is not None:
            raise UserError(f"basis: {problem}")

    @property
    def n_vertices(self) -> int:
        """V."""
        return len(self.neutral)

    @property
    def matrix(self) -> Tensor:
        """The shapes as rows, [K, V*3]."""
        return self.shapes.flatten(1)

    def vertices(self, coefficients: Tensor) -> Tensor:
        """Coefficients [.., K] to vertices [.., V*3]."""
        return self.neutral.flatten() + coefficients @ self.matrix

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LinearBasis:
        """Read a ``basis.npz``: neutral [V, 3], shapes [K, V, 3], names [K], and perhaps bounds [K, 2] and unit.

        Without ``unit`` lengths are metres; without ``bounds`` there are none.

        Raises:
            UserError: no such file, or what it holds does not fit together.
        """
        arrays = load_npz(path, texts=True)
        missing = [key for key in _KEYS if key not in arrays]
        if missing:
            raise UserError(f"{path}: lacks {', '.join(missing)}; a basis holds {', '.join(_KEYS)}")
        names, unit = arrays["names"], arrays.get("unit", np.array("m"))
        numbers = {key: arrays[key] for key in ("neutral", "shapes", "bounds") if key in arrays}
        text = next((key for key, value in numbers.items() if value.dtype.kind not in "fiu"), None)
        if text is not None:
            raise UserError(f"{path}: {text} is no array of numbers; write it again")
        if names.dtype.kind != "U" or names.ndim != 1:
            raise UserError(f"{path}: names is no list of words; write numpy.array of strings, [K]")
        size = METRES_PER_UNIT.get(str(unit.item()).strip().lower()) if unit.size == 1 else None
        if size is None:
            raise UserError(f"{path}: unit is {str(unit)[:40]!r}; known are m, dm, cm, mm and inches")
        bounds = numbers.get("bounds", np.tile(np.array([-np.inf, np.inf]), (len(names), 1)))
        try:
            return cls(
                torch.from_numpy(numbers["neutral"] * size).float(),
                torch.from_numpy(numbers["shapes"] * size).float(),
                tuple(str(name) for name in names),
                torch.from_numpy(bounds.astype(np.float32)),
            )
        except UserError as error:
            raise UserError(f"{path}: {str(error).removeprefix('basis: ')}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as :meth:`load` reads it, in metres, atomically."""
        with atomic_path(Path(path)) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                neutral=self.neutral.numpy(),
                shapes=self.shapes.numpy(),
                names=np.array(self.names),
                bounds=self.bounds.numpy(),
                unit=np.array("m"),
            )


def names_problem(names: tuple[str, ...]) -> str | None:
    """Why words cannot name coefficients, as "what; remedy"; None when they can."""
    if not names:
        return "names no coefficient; give at least one"
    wrong = next((name for name in names if not name.strip() or not name.isprintable() or "," in name), None)
    if wrong is not None:
        return f"{wrong[:40]!r} cannot be the name of a coefficient; use letters and digits, no comma"
    twice = next((name for name in names if names.count(name) > 1), None)
    return None if twice is None else f"names {twice[:40]!r} twice; each coefficient has a name of its own"


def _problem(basis: LinearBasis) -> str | None:
    neutral, shapes, bounds, k = basis.neutral, basis.shapes, basis.bounds, len(basis.names)
    if neutral.ndim != 2 or neutral.shape[1] != 3 or not len(neutral):
        return f"neutral has the shape {list(neutral.shape)}; [V, 3] is expected"
    if shapes.shape != (k, *neutral.shape):
        expected = [k, *neutral.shape]
        return f"shapes has the shape {list(shapes.shape)}; for its names and neutral {expected} is expected"
    if bounds.shape != (k, 2):
        return f"bounds has the shape {list(bounds.shape)}; [{k}, 2] is expected"
    for name, values in (("neutral", neutral), ("shapes", shapes)):
        if not math.isfinite(float(values.double().sum())):
            return f"{name} holds NaN or infinity; mend it"
    crossed = next((i for i in range(k) if not bounds[i, 0] <= bounds[i, 1]), None)
    if crossed is not None:
        return f"the bounds of {basis.names[crossed]} are {bounds[crossed].tolist()}; give the least, then the greatest"
    return names_problem(basis.names)
