"""Telling the unit of a face from its size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from s2f_rl.data.description import BIWI_METRES_PER_UNIT, METRES_PER_UNIT
from s2f_rl.errors import UserError

MILLIMETRE = 1e-3
"""Metres."""
PLAUSIBLE_EXTENT_M = (0.08, 0.6)
"""Longest side of a face's or head's bounding box. FLAME's head with neck is about 0.3 m, BIWI's face 0.23 m."""


class Unit(NamedTuple):
    """A unit of length and its size in metres; None where that is not known."""

    name: str
    metres_per_unit: float | None

    def __str__(self) -> str:
        return self.name


_PUBLISHED_ABOVE = 0.6
"""A BIWI face longer than this in its own unit is in the published one, where faces have unit area."""
_UNITS = (
    Unit("metres", 1.0),
    Unit("decimetres", 0.1),
    Unit("centimetres", 0.01),
    Unit("inches", 0.0254),
    Unit("millimetres", 0.001),
    Unit("micrometres", 1e-6),
    Unit("kilometres", 1000.0),
)
_TYPICAL_M = (0.11, 0.45)


def guess_unit(extent: float) -> Unit:
    """The unit in which a face of this extent (longest side) has a natural size."""
    for unit in _UNITS:
        assert unit.metres_per_unit is not None
        if _TYPICAL_M[0] <= extent * unit.metres_per_unit <= _TYPICAL_M[1]:
            return unit
    return Unit("no common unit", None)


def published_unit(templates: Mapping[str, np.ndarray]) -> float:
    """Metres per unit of BIWI's faces {subject: [V*3]} where nothing states it: the published unit, or metres.

    The published vertices are divided by the root of each face's surface area, about 0.186 m.
    """
    extents = [np.ptp(flat.reshape(-1, 3), axis=0).max() for flat in templates.values()]
    return BIWI_METRES_PER_UNIT if extents and np.median(extents) > _PUBLISHED_ABOVE else 1.0


def metres_per_unit(face: np.ndarray, unit: str | None, what: str, option: str = "--unit") -> float:
    """Metres per unit of a face [V, 3]: as a person told it ("m", "mm", "centimetres", ...), else from its size.

    Args:
        option: by which a person tells it.

    Raises:
        UserError: an unknown word, or a face of no natural size in any common unit.
    """
    if unit is not None:
        if unit.strip().lower() not in METRES_PER_UNIT:
            raise UserError(f"unit {unit[:40]!r} is not known; give m, dm, cm, mm or inches")
        return METRES_PER_UNIT[unit.strip().lower()]
    extent = float(np.ptp(np.asarray(face, np.float64).reshape(-1, 3), axis=0).max())
    guess = guess_unit(extent)
    if guess.metres_per_unit is None:
        told = f"{what}: its face is {extent:.3g} long, which is no face in any common unit"
        raise UserError(f"{told}; tell its unit ({option})")
    return guess.metres_per_unit
