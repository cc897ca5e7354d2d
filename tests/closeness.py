"""Comparing results of sums that another instruction set adds up in another order."""

from __future__ import annotations

import torch
from torch import Tensor


def assert_close_to_largest(ours: Tensor, theirs: Tensor, rel: float, msg: str = "") -> None:
    """No element differs by more than ``rel`` times the largest magnitude of ``theirs``.

    Small elements of a float32 sum carry the rounding of the large ones, so a tolerance of their own size hangs on the
    order of the additions, that is, on the processor.
    """
    assert ours.shape == theirs.shape, f"{msg}: {list(ours.shape)} against {list(theirs.shape)}"
    largest = float(theirs.abs().max()) if theirs.numel() else 0.0
    torch.testing.assert_close(
        ours, theirs, rtol=0.0, atol=rel * largest, msg=lambda m: f"{msg} (largest {largest:g}): {m}"
    )
