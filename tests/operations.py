"""Counts the operations that torch dispatches, and those that would make the host wait for a device.

What a loop of tiny ones costs, as a number instead of a time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class CountOperations(TorchDispatchMode):
    """``with CountOperations() as count: ...``; then ``count.n``."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n += 1
        return function(*args, **(kwargs or {}))


WAITS = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "unique_consecutive"}
"""Operations whose result, or its size, the host must know."""


class CountWaits(CountOperations):
    """Counts operations that on CUDA wait for the device: ``item``, ``bool``, ``nonzero``, masks as an index, ...

    A stand-in where there is no such device. ``names`` lists what was met.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_") and any(
            each is not None and each.dtype in (torch.bool, torch.uint8) for each in args[1]
        )
        if name in WAITS or masks:
            self.n += 1
            self.names.append(name)
        return function(*args, **(kwargs or {}))
