"""The squared error of a motion W z + b against recordings, from the latents z alone.

With the vertex weights D, sqrt(D) W = Q R (Q [V*3, H] with orthonormal columns), and x_t = sqrt(D) (y_t - b):

    |sqrt(D) (W z_t + b - y_t)|^2 = |R z_t - Q' x_t|^2 + |x_t - Q Q' x_t|^2

The second term is what no latent can reach, a constant. Frame-to-frame differences go the same way. (Multiplied out,
z' W' D W z - 2 z' W' D (y - b) + .., the same number would be a small difference of large ones.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from s2f_rl.data.lru import ByteCache
from s2f_rl.models.contract import LinearMotion
from s2f_rl.models.latent_motion import MadeOnce

_FRAMES = 64  # of a recording in double precision at once


class ProjectedTruth(NamedTuple):
    """A recording [T, V*3] as the error of latents sees it.

    Attributes:
        target: Q' x, [T, K]; K = min(H, V*3).
        beyond: [T], squared distance of a frame to all that W reaches.
        change_beyond: [T], the same of its difference to the frame before; 0 at the first.
    """

    target: Tensor
    beyond: Tensor
    change_beyond: Tensor

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in self)


class _Factors(NamedTuple):
    """scale * sqrt(D) [V*3] and Q [V*3, K] in double precision, R [K, H] typed as W."""

    root: Tensor
    basis: Tensor
    triangle: Tensor


class TruthProjector:
    """Projects recordings for one W and b at a time, each once as long as the memory lasts.

    Args:
        vertex_weight: D, [V*3]; None: all 1.
        scale: factor of all lengths (1000 for millimetres).
        limit_mb: projections of the least recently used recordings are dropped beyond this.
    """

    def __init__(self, vertex_weight: Tensor | None, scale: float, limit_mb: float = 256.0) -> None:
        self.vertex_weight, self.scale = vertex_weight, scale
        self._factors: MadeOnce[_Factors] = MadeOnce()
        self._projected: ByteCache[ProjectedTruth] = ByteCache(int(limit_mb * 2**20))

    def triangle(self, linear: LinearMotion) -> Tensor:
        """R, [K, H], typed as W."""
        return self._of(linear).triangle

    def project(self, key: int, recording: Callable[[], Tensor], linear: LinearMotion) -> ProjectedTruth:
        """The projection of the displacements [T, V*3] (metres) that ``recording()`` reads, kept under ``key``."""
        factors = self._of(linear)
        return self._projected.get(key, lambda: self._project(recording(), factors, linear.bias))

    def _of(self, linear: LinearMotion) -> _Factors:
        return self._factors.get(list(linear), lambda: self._factor(linear))

    @torch.no_grad()
    def _factor(self, linear: LinearMotion) -> _Factors:
        self._projected.clear()  # they were of other factors
        weight = linear.weight.double()
        d = torch.ones_like(weight[:, 0]) if self.vertex_weight is None else self.vertex_weight.to(weight)
        root = self.scale * d.sqrt()
        basis, triangle = torch.linalg.qr(root.unsqueeze(1) * weight)
        return _Factors(root, basis, triangle.to(linear.weight.dtype))

    @torch.no_grad()
    def _project(self, recording: Tensor, factors: _Factors, bias: Tensor) -> ProjectedTruth:
        root, basis, triangle = factors
        targets, beyond, changes = [], [], []
        last = None
        for part in recording.split(_FRAMES):
            x = root * (part.to(root) - bias)
            target = x @ basis
            rest = x - target @ basis.t()  # not a difference of the two norms, which would lose its digits
            before = torch.cat([rest[:1] if last is None else last, rest[:-1]])
            targets.append(target)
            beyond.append(rest.square().sum(-1))
            changes.append((rest - before).square().sum(-1))
            last = rest[-1:]
        return ProjectedTruth(*(torch.cat(each).to(triangle.dtype) for each in (targets, beyond, changes)))
