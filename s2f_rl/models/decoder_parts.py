"""Parameters of FaceFormer's motion decoder, its tables of positions and slopes, and its linear maps.

The names are those of :class:`torch.nn.TransformerDecoderLayer` and of the published checkpoints.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn


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
    """

    positions: Tensor
    slopes: Tensor

    def __init__(
        self,
        n_outputs: int,
        audio_width: int,
        feature_dim: int = 64,
        n_subjects: int = 8,
        period: int = 30,
        n_head: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.n_outputs, self.feature_dim, self.n_subjects = n_outputs, feature_dim, n_subjects
        self.audio_width, self.period, self.n_head, self.dropout = audio_width, period, n_head, dropout
        self.audio_feature_map = nn.Linear(audio_width, feature_dim)
        self.vertice_map = nn.Linear(n_outputs, feature_dim)
        self.vertice_map_r = nn.Linear(feature_dim, n_outputs)
        self.obj_vector = nn.Linear(n_subjects, feature_dim, bias=False)
        self.layer = nn.TransformerDecoderLayer(feature_dim, n_head, 2 * feature_dim, dropout, batch_first=True)
        nn.init.zeros_(self.vertice_map_r.weight)  # as in the reference: an untrained model predicts the template
        nn.init.zeros_(self.vertice_map_r.bias)
        self.register_buffer("positions", periodic_positions(feature_dim, period), persistent=False)
        self.register_buffer("slopes", torch.tensor(alibi_slopes(n_head)), persistent=False)

    # -- parts ---------------------------------------------------------------------------------------------------

    def decode(self, latent: Tensor) -> Tensor:
        """Latent [.., H] to displacement [.., V*3], metres."""
        return self.vertice_map_r(latent)

    def feedback_map(self, detach_output_map: bool = True) -> tuple[Tensor, Tensor]:
        """``vertice_map(W z + b) = M z + c``: returns M [H, H] and c [H].

        With ``detach_output_map`` W and b count as constants: the policy gradient must not train the map from latent
        to face, which belongs to the supervised term.
        """
        weight: Tensor = self.vertice_map_r.weight
        bias: Tensor = self.vertice_map_r.bias
        if detach_output_map:
            weight, bias = weight.detach(), bias.detach()
        return self.vertice_map.weight @ weight, self.vertice_map(bias)

    def feedback(self, detach_output_map: bool = True) -> Affine:
        """:meth:`feedback_map`, laid out for step mode."""
        matrix, offset = self.feedback_map(detach_output_map)
        return Affine(matrix.t(), offset)
