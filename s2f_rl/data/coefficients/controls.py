"""What an actor that gives coefficients must remember of its rig beside the shapes: names and bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from s2f_rl.data.coefficients.basis import names_problem
from s2f_rl.data.coefficients.rig import Rig
from s2f_rl.errors import UserError


@dataclass(frozen=True, eq=False)
class Controls:
    """The coefficients of a rig.

    Attributes:
        names: of the K coefficients, in the order of their columns.
        bounds: [K, 2], the least and the greatest value of each; infinite where there is none.
        convention: "arkit", "flame", or another word.
        has_mesh: whether there is a face that they move, or just the numbers.
    """

    names: tuple[str, ...]
    bounds: Tensor
    convention: str
    has_mesh: bool

    @classmethod
    def of(cls, rig: Rig) -> Controls:
        """Those of a corpus's rig."""
        return cls(rig.names, rig.basis.bounds, rig.convention, rig.has_mesh)

    def clamped(self, coefficients: Tensor) -> Tensor:
        """Coefficients [.., K] brought within their bounds."""
        return coefficients.clamp(self.bounds[:, 0].to(coefficients), self.bounds[:, 1].to(coefficients))

    def to_plain(self) -> dict[str, object]:
        """Lists and words for a checkpoint, which holds no infinite numbers: None stands for no bound."""
        bounds = [[x if math.isfinite(x) else None for x in pair] for pair in self.bounds.tolist()]
        return {
            "names": list(self.names), "bounds": bounds, "convention": self.convention, "has_mesh": self.has_mesh
        }  # fmt: skip

    @classmethod
    def from_plain(cls, content: object, n: int, what: str) -> Controls:
        """Inverse of :meth:`to_plain`. Raises UserError where it is no such content, for ``n`` coefficients."""
        if isinstance(content, Mapping):
            names, bounds = content.get("names"), content.get("bounds")
            convention, has_mesh = content.get("convention"), content.get("has_mesh")
            if (
                isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
                and len(names) == n and names_problem(tuple(names)) is None
                and isinstance(bounds, (list, tuple)) and len(bounds) == n and all(map(_is_bound, bounds))
                and isinstance(convention, str) and isinstance(has_mesh, bool)
            ):  # fmt: skip
                low = [-math.inf if pair[0] is None else float(pair[0]) for pair in bounds]
                high = [math.inf if pair[1] is None else float(pair[1]) for pair in bounds]
                return cls(tuple(names), torch.tensor([low, high]).T.contiguous(), convention, has_mesh)
        raise UserError(f"{what}: its coefficients are not {n} names with their bounds; use a sound checkpoint")


def _is_bound(pair: object) -> bool:
    return (
        isinstance(pair, (list, tuple))
        and len(pair) == 2
        and all(x is None or (isinstance(x, (int, float)) and not isinstance(x, bool)) for x in pair)
    )
