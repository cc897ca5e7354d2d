"""Rows of a batch on a device: few operations however many lanes, and no waiting for the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on ``device``; the host does not wait for a copy to CUDA."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def places(lengths: Sequence[int], which: Sequence[int | None], n_time: int) -> Tensor:
    """Where :func:`take` finds what the lanes show, [B, n_time] int64 on the CPU; 0: nowhere.

    Args:
        lengths: of N pieces. which: by lane one of them, cut after ``n_time``; None: none.
    """
    ends = torch.tensor([0, *lengths]).cumsum(0)
    some = torch.tensor([i is not None for i in which])
    index = torch.tensor([i or 0 for i in which], dtype=torch.int64)
    first, n = ends[index], torch.where(some, ends.diff()[index], 0) if lengths else torch.zeros_like(index)
    column = torch.arange(n_time)
    return torch.where(column < n[:, None], 1 + first[:, None] + column, 0)


def take(pieces: Sequence[Tensor], place: Tensor, like: Tensor) -> Tensor:
    """Lanes [B, T, ..] of N pieces [n, ..] at their :func:`places`; 0 where there is none.

    ``like``: [..], typed and placed as a row of a piece.
    """
    return torch.cat([torch.zeros_like(like).unsqueeze(0), *pieces])[place]
