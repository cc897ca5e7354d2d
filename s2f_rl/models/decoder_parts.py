"""Parameters of FaceFormer's motion decoder, its tables of positions and slopes, and its linear maps.

The names are those of :class:`torch.nn.TransformerDecoderLayer` and of the published checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from s2f_rl.models.contract import LinearMotion
from s2f_rl.models.latent_motion import MadeOnce


class Affine(NamedTuple):
    """``x @ matrix + offset`` in one operation; ``matrix`` is a linear layer's weight, transposed."""

    matrix: Tensor
    offset: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """x [rows, inputs] -> [rows, outputs]."""
        return torch.addmm(self.offset, x, self.matrix)


def alibi_slopes(n_head: int) -> list[float]:
    """Slopes of the temporal bias by head: 2^(-8k/n) for a power of two (Press et al., 2022; FaceFormer eq. 5)."""

    def powers(n: int) -> list[float]:
        start = 2.0 ** (-(2.0 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]

    if math.log2(n_head).is_integer():
        return powers(n_head)
    lower = 2 ** math.floor(math.log2(n_head))
    return powers(lower) + alibi_slopes(2 * lower)[0::2][: n_head - lower]


def periodic_positions(width: int, period: int) -> Tensor:
    """One period of FaceFormer's sinusoidal positions [period, width] (eq. 4); frame t uses row t mod period."""
    position = torch.arange(period, dtype=torch.float32)[:, None]
    frequency = torch.exp(torch.arange(0, width, 2).float() * (-math.log(10000.0) / width))
    table = torch.zeros(period, width)
    table[:, 0::2] = torch.sin(position * frequency)
    table[:, 1::2] = torch.cos(position * frequency)
    return table


class DecoderParts(nn.Module):
    """Parameters of the decoder, and what is linear in the latent: displacement W z + b, and its way back as an input.

    Args:
        n_outputs: V*3.
        audio_width: D.
        feature_dim: H, decoder width (64 VOCASET, 128 BIWI).
        n_subjects: S.
        period: of positions and of the temporal bias, frames (30 VOCASET, 25 BIWI).
        n_head: attention heads.
        dropout: used by supervised training alone, by the methods that say so; never in rollouts or RL updates.
        n_coefficients: K, of a rig that the network animates; None: it animates vertices. ``vertice_map_r`` then gives
            coefficients times ``metres_per_coefficient``, so that its unit is metres here too, and ``basis`` [K, V*3]
            makes the displacement of them: W and b are its products with the basis.
    """

    positions: Tensor
    slopes: Tensor
    basis: Tensor | None
    metres_per_coefficient: Tensor | None

    def __init__(
        self,
        n_outputs: int,
        audio_width: int,
        feature_dim: int = 64,
        n_subjects: int = 8,
        period: int = 30,
        n_head: int = 4,
        dropout: float = 0.1,
        n_coefficients: int | None = None,
    ) -> None:
        super().__init__()
        self.n_outputs, self.feature_dim, self.n_subjects = n_outputs, feature_dim, n_subjects
        self.audio_width, self.period, self.n_head, self.dropout = audio_width, period, n_head, dropout
        self.audio_feature_map = nn.Linear(audio_width, feature_dim)
        self.vertice_map = nn.Linear(n_outputs, feature_dim)
        self.vertice_map_r = nn.Linear(feature_dim, n_outputs if n_coefficients is None else n_coefficients)
        self.register_buffer("basis", None if n_coefficients is None else torch.zeros(n_coefficients, n_outputs))
        self.register_buffer("metres_per_coefficient", None if n_coefficients is None else torch.ones(()))
        self._composed: MadeOnce[LinearMotion] = MadeOnce()
        self.obj_vector = nn.Linear(n_subjects, feature_dim, bias=False)
        self.layer = nn.TransformerDecoderLayer(feature_dim, n_head, 2 * feature_dim, dropout, batch_first=True)
        nn.init.zeros_(self.vertice_map_r.weight)  # as in the reference: an untrained model predicts the template
        nn.init.zeros_(self.vertice_map_r.bias)
        self.register_buffer("positions", periodic_positions(feature_dim, period), persistent=False)
        self.register_buffer("slopes", torch.tensor(alibi_slopes(n_head)), persistent=False)

    # -- parts ---------------------------------------------------------------------------------------------------

    def decode(self, latent: Tensor) -> Tensor:
        """Latent [.., H] to displacement [.., V*3], metres."""
        decoded: Tensor = self.vertice_map_r(latent)
        return decoded if self.basis is None else decoded @ self.basis

    @property
    def linear_decode(self) -> LinearMotion:
        """W [V*3, H] and b [V*3]; with a basis their products with it, made once for weights that do not change."""
        weight, bias, basis = self.vertice_map_r.weight, self.vertice_map_r.bias, self.basis
        if basis is None:
            return LinearMotion(weight, bias)
        if torch.is_grad_enabled() and weight.requires_grad:
            return LinearMotion(basis.t() @ weight, bias @ basis)
        with torch.no_grad():  # a loss lends the buffer under another name at every call, the parameters never
            return self._composed.get((weight, bias), lambda: LinearMotion(basis.t() @ weight, bias @ basis))

    @torch.no_grad()
    def set_basis(self, matrix: Tensor) -> None:
        """Take the shapes of a rig, [K, V*3] in metres, in place. Raises ValueError for another size."""
        basis, unit = self.basis, self.metres_per_coefficient
        if basis is None or unit is None or basis.shape != matrix.shape:
            raise ValueError(f"shapes {list(matrix.shape)} for a decoder of other sizes")
        furthest = matrix.unflatten(1, (-1, 3)).norm(dim=-1).amax(1)  # that a coefficient moves a vertex at 1
        unit.copy_(furthest[furthest > 0].square().mean().sqrt() if bool(furthest.any()) else unit)
        basis.copy_(matrix / unit)
        self._composed = MadeOnce()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DecoderParts:
        self._composed = MadeOnce()  # a parameter that moves to a device stays the same one
        return super()._apply(fn, recurse)

    @property
    def output_parameters(self) -> list[nn.Parameter]:
        """Weight and bias of the output map."""
        return list(self.vertice_map_r.parameters())

    def feedback_map(self, detach_output_map: bool = True) -> tuple[Tensor, Tensor]:
        """``vertice_map(W z + b) = M z + c``: returns M [H, H] and c [H].

        With ``detach_output_map`` W and b count as constants: the policy gradient must not train the map from latent
        to face, which belongs to the supervised term.
        """
        weight: Tensor = self.vertice_map_r.weight
        bias: Tensor = self.vertice_map_r.bias
        if detach_output_map:
            weight, bias = weight.detach(), bias.detach()
        if self.basis is None:
            return self.vertice_map.weight @ weight, self.vertice_map(bias)
        embedding = self.vertice_map.weight @ self.basis.t()  # [H, K]: W itself is far larger
        return embedding @ weight, embedding @ bias + self.vertice_map.bias

    def feedback(self, detach_output_map: bool = True) -> Affine:
        """:meth:`feedback_map`, laid out for step mode."""
        matrix, offset = self.feedback_map(detach_output_map)
        return Affine(matrix.t(), offset)
