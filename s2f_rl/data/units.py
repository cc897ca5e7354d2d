"""Telling the unit of a face from its size."""

from __future__ import annotations

from typing import NamedTuple

from s2f_rl.data.description import BIWI_METRES_PER_UNIT

PLAUSIBLE_EXTENT_M = (0.08, 0.6)
"""Longest side of a face's or head's bounding box. FLAME's head with neck is about 0.3 m, BIWI's face 0.23 m."""


class Unit(NamedTuple):
    """A unit of length and its size in metres; None where that is not known."""

    name: str
    metres_per_unit: float | None

    def __str__(self) -> str:
        return self.name


class _PublishedBiwi(NamedTuple):
    above: float
    metres_per_unit: float


BIWI_PUBLISHED_EXTENT = _PublishedBiwi(above=0.6, metres_per_unit=BIWI_METRES_PER_UNIT)
"""A BIWI face longer than 0.6 in its own unit is in the published one, where faces have unit area."""
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
