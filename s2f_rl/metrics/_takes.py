"""The set of hidden variations that the built-in corpus draws from, as coordinates with limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from s2f_rl.data.synthetic.derivatives import Articulation
from s2f_rl.data.synthetic.hidden import (
    MAX_LAG_S,
    N_EFFORT_TERMS,
    N_WANDER_TERMS,
    WANDER_ARTICULATORS,
    WANDER_SIZE,
    Hidden,
)
from s2f_rl.data.synthetic.rig import Rig

Array = NDArray[np.float64]

LIMIT_SD = 2.5
"""How far, in standard deviations, a normal hidden value may be from its mean."""


def _longest(n: int) -> float:
    """Limit on the length of n standard normal values, which is sqrt(n) +- 0.71."""
    return float(np.sqrt(n) + LIMIT_SD * np.sqrt(0.5))


class HiddenSpace:
    """Coordinates z of the smooth hidden values, one standard deviation (or, if uniform, half a range) each.

    Order: effort, effort curve [3], common lag, own lags [2], undershoot [n_phones], wander [30]. Plausible is what
    lies within `lower`..`upper` and keeps `limits`: no direction that makes an articulator's whole movement larger or
    smaller by undershoot, and no length of the undershoot or wander, beyond `LIMIT_SD`. Without those, thirty phones
    could all be at their limit together, which no draw ever does.
    """

    def __init__(self, articulation: Articulation, scale: float = 1.0) -> None:
        n = len(articulation.phones)
        self.n_phones, self.scale = n, scale
        smooth, slow = N_EFFORT_TERMS, 1.0 / np.arange(1, N_WANDER_TERMS + 1)
        self.undershoot = slice(smooth + 4, smooth + 4 + n)
        self.wander = slice(smooth + 4 + n, smooth + 4 + n + len(WANDER_ARTICULATORS) * N_WANDER_TERMS)
        self.size = self.wander.stop
        self.upper = np.full(self.size, LIMIT_SD)
        self.upper[[0, smooth + 1, smooth + 2, smooth + 3]] = 1.0
        self.lower = -self.upper

        # hidden values = centre + matrix @ z, in the order of Derivatives.stacked
        self._matrix = np.zeros((1 + smooth + 2 + n + self.size - self.wander.start, self.size))
        self._matrix[0, 0] = 0.3
        self._matrix[range(1, 1 + smooth), range(1, 1 + smooth)] = 0.15 / np.arange(1, smooth + 1)
        lag = self._matrix[1 + smooth : 3 + smooth]
        lag[:, smooth + 1] = 0.8 * MAX_LAG_S
        lag[[0, 1], [smooth + 2, smooth + 3]] = 0.2 * MAX_LAG_S
        self._own = slice(3 + smooth, 3 + smooth + n)
        self._matrix[self._own, self.undershoot] = 0.23 * np.eye(n)
        self._matrix[self._own.stop :, self.wander] = np.diag((WANDER_SIZE[:, None] * slow).ravel())
        self._matrix *= scale
        self._centre = np.zeros(len(self._matrix))
        self._centre[0], self._centre[self._own] = 1.0, 1.0 - 0.05 * scale
        if scale > 0:  # draws of the undershoot are cut at these values
            bounds = (np.array([0.35, 1.6]) - self._centre[self._own.start]) / (0.23 * scale)
            self.lower[self.undershoot] = np.maximum(self.lower[self.undershoot], bounds[0])
            self.upper[self.undershoot] = np.minimum(self.upper[self.undershoot], bounds[1])
        self._directions = self._amplitude_directions(articulation)

    def hidden(self, z: Array) -> Hidden:
        """The hidden variation, without blinks and brows."""
        values = self._centre + self._matrix @ z
        first = 1 + N_EFFORT_TERMS
        return replace(
            Hidden.none(self.n_phones),
            effort=float(values[0]),
            effort_curve=values[1:first],
            lag_s=values[first : first + 2],
            undershoot=values[self._own],
            wander=values[self._own.stop :].reshape(len(WANDER_ARTICULATORS), N_WANDER_TERMS),
        )

    def chain(self, stacked: Array) -> Array:
        """Derivatives by hidden values [.., n] to derivatives by z [.., size]."""
        return stacked @ self._matrix

    def limits(self, z: Array) -> tuple[Array, Array, Array]:
        """Joint limits as half-spaces: rows [m, size] and offsets [m] with `rows @ z <= offsets`, and how far beyond
        each z lies [m] (standard deviations). The lengths' rows are the tangents where z points."""
        n = len(self._directions)
        rows = np.zeros((2 * n + 2, self.size))
        rows[:n, self.undershoot], rows[n:-2, self.undershoot] = self._directions, -self._directions
        offsets = np.full(len(rows), LIMIT_SD)
        for k, part in ((-2, self.undershoot), (-1, self.wander)):
            values = z[part]
            rows[k, part] = values / max(float(np.linalg.norm(values)), 1e-12)
            offsets[k] = _longest(len(values))
        return rows, offsets, rows @ z - offsets

    def inside(self, z: Array) -> Array:
        """z, with undershoot or wander drawn towards their means until all limits hold."""
        z = np.clip(z, self.lower, self.upper)
        along = np.abs(self._directions @ z[self.undershoot]).max()
        for part, most in ((self.undershoot, LIMIT_SD / max(float(along), 1e-12)), (self.wander, 1.0)):
            length = float(np.linalg.norm(z[part]))
            z[part] *= min(1.0, most, _longest(len(z[part])) / max(length, 1e-12))
        return z

    def _amplitude_directions(self, articulation: Articulation) -> Array:
        """Unit vectors [m, n_phones]: all phones alike, and for each articulator what scales its whole movement."""
        _, found = articulation.with_derivatives(Hidden.none(self.n_phones))
        directions = [np.ones(self.n_phones)]
        for k in range(found.undershoot.shape[1]):
            movement = found.undershoot[:, k]
            along = movement.T @ movement.sum(1)
            if np.linalg.norm(along) > 1e-9:
                directions.append(along)
        return np.stack([d / np.linalg.norm(d) for d in directions])


def reduced_rig(rig: Rig, region: NDArray[np.int64]) -> tuple[Rig, Array, int]:
    """A rig whose displacement ends in coordinates of the region's displacement in the space that it can reach.

    Returns the rig, an orthonormal basis [3R, m] of that space, and the number of leading values to leave out.
    """
    n_fields = len(rig.fields)
    vertices = rig.fields.reshape(n_fields, -1, 3)
    basis, triangle = np.linalg.qr(vertices[:, region].reshape(n_fields, -1).T)
    lips, columns = np.unique(rig.columns, return_inverse=True)
    padding = np.zeros((n_fields, -triangle.shape[0] % 3))
    parts = [vertices[:, lips].reshape(n_fields, -1), triangle.T, padding]
    small = replace(rig, fields=np.concatenate(parts, 1), columns=columns.reshape(rig.columns.shape))
    return small, basis, 3 * len(lips)
