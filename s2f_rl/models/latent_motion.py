"""A motion by its latents alone: what is linear in the vertices is linear in the latents, and H is far below V*3.

vertices_t = template + W z_t + b          A vertices_t + c = (A W) z_t + A (template + b) + c
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from s2f_rl.models.contract import LinearMotion, PolicyCore

T = TypeVar("T")


def frozen_decode(core: PolicyCore) -> LinearMotion | None:
    """W and b of a policy where they are linear and nothing trains them, so that a loss may stay with the latents."""
    linear = core.linear_decode
    return None if linear is None or any(each.requires_grad for each in linear) else linear


@dataclass(frozen=True)
class LatentMotion:
    """What a decode W z + b of latents stands for: displacements, or vertices where ``templates`` are given.

    Attributes:
        latents: z, [B, T, H].
        linear: W and b.
        templates: B faces at rest [V*3], on the CPU; None: displacements are meant.
        moving: bool [B, T], False on frames that hold the face at rest whatever their latent; None: all move.
    """

    latents: Tensor
    linear: LinearMotion
    templates: Sequence[Tensor] | None = None
    moving: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        """[B, T, V*3], as that of the vertices."""
        return torch.Size([*self.latents.shape[:2], len(self.linear.bias)])

    @property
    def device(self) -> torch.device:
        """Of the latents."""
        return self.latents.device

    @property
    def requires_grad(self) -> bool:
        """Whether the latents have a gradient."""
        return self.latents.requires_grad

    def __getitem__(self, lanes: slice) -> LatentMotion:
        return LatentMotion(
            self.latents[lanes],
            self.linear,
            None if self.templates is None else self.templates[lanes],
            None if self.moving is None else self.moving[lanes],
        )

    def resting(self, at_rest: Tensor) -> LatentMotion:
        """The same with the face at rest on the frames ``at_rest`` [B, T], whose latents may hold anything."""
        moving = ~at_rest if self.moving is None else self.moving & ~at_rest
        latents = torch.where(moving.unsqueeze(-1), self.latents, torch.zeros_like(self.latents))
        return replace(self, latents=latents, moving=moving)

    def vertices(self) -> Tensor:
        """All of them, [B, T, V*3]."""
        return self._decoded(slice(None))

    def columns(self, vertices: Tensor) -> Tensor:
        """Those of the vertices [n] (int64 indices) alone, [B, T, 3n]."""
        return self._decoded(coordinates(vertices))

    def _decoded(self, columns: Tensor | slice) -> Tensor:
        if isinstance(columns, Tensor):
            columns = columns.to(self.linear.weight.device)
        moved = F.linear(self.latents, self.linear.weight[columns], self.linear.bias[columns])
        if self.moving is not None:
            moved = torch.where(self.moving.unsqueeze(-1), moved, torch.zeros_like(moved))
        if self.templates is None:
            return moved
        here = columns.cpu() if isinstance(columns, Tensor) else columns
        rest = torch.stack([template[here] for template in self.templates]).to(moved.device)
        return rest.unsqueeze(1) + moved


def coordinates(vertices: Tensor) -> Tensor:
    """Columns [3 n] of the vertices [n] in a flat mesh."""
    return (3 * vertices[:, None] + torch.arange(3, device=vertices.device)).flatten()


class MadeOnce(Generic[T]):
    """A value made of some tensors, made anew when one of them is another tensor or was written to since."""

    def __init__(self) -> None:
        self._of: list[tuple[Tensor, int]] = []
        self._value: T | None = None

    def get(self, tensors: Sequence[Tensor], make: Callable[[], T]) -> T:
        """What ``make()`` gave for these tensors as they are."""
        same = len(tensors) == len(self._of) and all(
            new is old and new._version == version for new, (old, version) in zip(tensors, self._of, strict=True)
        )
        if self._value is None or not same:
            self._value = make()
            self._of = [(tensor, tensor._version) for tensor in tensors]
        return self._value

    def __getstate__(self) -> dict[str, object]:
        return {}  # made anew wherever it goes

    def __setstate__(self, state: object) -> None:
        self.__init__()  # type: ignore[misc]


class _Composed:
    """A W and A b + c of one pair of maps, and A template of the faces that came up so far; in double precision."""

    def __init__(self, linear: LinearMotion, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = weight, bias.double()
        maps = _product(weight, torch.cat([linear.weight, linear.bias.unsqueeze(1)], 1))
        self.matrix, self.offset = maps[:, :-1].to(weight.dtype), maps[:, -1]
        self._faces: dict[bytes, Tensor] = {}

    def faces(self, templates: Sequence[Tensor]) -> Tensor:
        """A template + c, [B, E], float64."""
        each = {id(template): template for template in templates}  # lanes of an utterance share theirs
        name = {i: template.numpy().tobytes() for i, template in each.items()}
        new = {name[i]: template for i, template in each.items() if name[i] not in self._faces}
        if new:
            rows = _product(self.weight, torch.stack(list(new.values()), 1)).t() + self.bias
            self._faces |= dict(zip(new, rows.unbind(0), strict=True))
        return torch.stack([self._faces[name[id(template)]] for template in templates])


def _product(a: Tensor, b: Tensor, columns: int = 4096) -> Tensor:
    """a @ b in float64, a piece at a time: there is no copy of ``a`` in double precision."""
    pieces = zip(a.split(columns, 1), b.to(a.device).split(columns), strict=True)
    return sum((x.double() @ y.double() for x, y in pieces), a.new_zeros((), dtype=torch.float64))


class ThroughLatents:
    """A linear map of vertices, weight [E, V*3] and bias [E], applied to motions that are given by their latents.

    The product of the maps is made once, in double precision, and again when one of them changes. The result is
    differentiable in the latents; the maps count as constants.
    """

    def __init__(self) -> None:
        self._composed: MadeOnce[_Composed] = MadeOnce()

    def __call__(self, motion: LatentMotion, weight: Tensor, bias: Tensor) -> Tensor:
        """[B, T, E], beside ``weight``, of the vertices [B, T, V*3] of ``motion``, which has templates."""
        assert motion.templates is not None
        with torch.no_grad():
            composed = self._composed.get(
                [*motion.linear, weight, bias], lambda: _Composed(motion.linear, weight, bias)
            )
            still = composed.faces(motion.templates).unsqueeze(1)
            moved = still + composed.offset
            if motion.moving is not None:
                moved = torch.where(motion.moving.to(weight.device).unsqueeze(-1), moved, still)
        return F.linear(motion.latents.to(weight), composed.matrix) + moved.to(weight.dtype)
