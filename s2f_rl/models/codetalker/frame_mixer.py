"""What both halves of CodeTalker's autoencoder are made of: a convolution over time, then a transformer without a mask.

Every frame sees the whole sequence, later frames too. Time is known by the convolution alone: the position added to a
sequence is that of its row in the batch, not of its frames (the public code indexes its table so).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2f_rl.models.decoder_parts import periodic_positions

LEAK = 0.2
"""Slope of the leaky ReLU below zero."""
KERNEL = 5
"""Frames that the convolution sees, two on either side."""
_EPSILON = 1e-5  # of the norm over time


class Block(nn.Module):
    """A pre-norm transformer block: x + attention(norm(x)), then x + MLP(norm(x)).

    As in the public code, scores are scaled by the width (not a head's) to the power -1/2, queries, keys and values
    have no bias, and GELU is its tanh approximation.

    Args:
        width: W. hidden: width of the MLP. n_head: attention heads.
    """

    def __init__(self, width: int, hidden: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor, newest: bool = False) -> Tensor:
        """x [B, T, W] -> [B, T, W]; ``newest``: the last frame alone [B, 1, W], which still sees all."""
        width, normed = x.shape[-1], self.norm1(x)
        if newest:
            x = x[:, -1:]
        query = F.linear(normed[:, -1:] if newest else normed, self.qkv.weight[:width])
        key, value = F.linear(normed, self.qkv.weight[width:]).chunk(2, dim=-1)
        query, key, value = (part.unflatten(-1, (self.n_head, -1)).transpose(1, 2) for part in (query, key, value))
        attended = F.scaled_dot_product_attention(query, key, value, scale=width**-0.5)
        x = x + self.out(attended.transpose(1, 2).flatten(-2))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class FrameMixer(nn.Module):
    """Convolution over 5 frames with replicated ends, leaky ReLU, norm over time, linear map, position, transformer.

    Args:
        width: W. hidden: width of the blocks' MLP. n_layers: blocks. n_head: attention heads.
    """

    def __init__(self, width: int, hidden: int, n_layers: int, n_head: int) -> None:
        super().__init__()
        if width % n_head or width % 2:
            raise ValueError(f"a codebook of width {width} with {n_head} heads: the width must be even, and a multiple")
        self.convolution = nn.Conv1d(width, width, KERNEL)
        self.map = nn.Linear(width, width)
        self.blocks = nn.ModuleList(Block(width, hidden, n_head) for _ in range(n_layers))

    def forward(self, x: Tensor, shared_row: bool) -> Tensor:
        """x [B, T, W] -> [B, T, W]; ``shared_row``: all rows get the first one's position, else each its own."""
        padded = F.pad(x.transpose(1, 2), (KERNEL // 2, KERNEL // 2), "replicate").transpose(1, 2)
        return self.transformed(self.convolved(padded), 1 if shared_row else len(x))

    def convolved(self, x: Tensor) -> Tensor:
        """Convolution and leaky ReLU: [B, T + 4, W] -> [B, T, W]."""
        return F.leaky_relu(self.convolution(x.transpose(1, 2)), LEAK).transpose(1, 2)

    def transformed(
        self, convolved: Tensor, n_rows: int = 1, window: int | None = None, newest: bool = False
    ) -> Tensor:
        """The rest, from the norm over time on: [B, T, W] -> [B, T, W].

        A lone frame is normed to zero, as two equal ones are: the public code cannot norm one, and doubles it.

        Args:
            n_rows: rows of the table of positions that are used, 1 or B.
            window: frames at the end that the transformer sees; the norm sees all. None: all.
            newest: give the last frame alone, [B, 1, W].
        """
        mean, variance = convolved.mean(1, keepdim=True), convolved.var(1, correction=0, keepdim=True)
        seen = convolved if window is None else convolved[:, -window:]
        x = self.map((seen - mean) * torch.rsqrt(variance + _EPSILON))
        x = x + periodic_positions(x.shape[-1], n_rows).to(x).unsqueeze(1)
        for number, block in enumerate(self.blocks, start=1):
            x = block(x, newest and number == len(self.blocks))
        return x
