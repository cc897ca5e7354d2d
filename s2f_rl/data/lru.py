"""A small cache that is bounded by the bytes of its tensors."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch


class TensorCache:
    """Keeps the most recently used tensors up to a number of bytes. Several threads may use it at once.

    A tensor larger than the whole cache is returned but not kept. The kept tensor itself is never handed out but a
    copy, so that changing a result in place changes nothing here.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, torch.Tensor] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def n_bytes(self) -> int:
        """Bytes held at the moment."""
        return self._bytes

    def get(self, key: Hashable, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Return a copy of the tensor under ``key``, made by ``make()`` when it is not there."""
        with self._lock:
            kept = self._entries.get(key)
            if kept is not None:
                self._entries.move_to_end(key)
        if kept is not None:
            return kept.clone()
        made = make()
        size = made.element_size() * made.nelement()
        with self._lock:
            if size <= self.max_bytes and key not in self._entries:
                self._entries[key] = made.clone()
                self._bytes += size
                while self._bytes > self.max_bytes:
                    _, dropped = self._entries.popitem(last=False)
                    self._bytes -= dropped.element_size() * dropped.nelement()
        return made

    def __getstate__(self) -> dict[str, Any]:
        """A copy in another process starts empty."""
        return {"max_bytes": self.max_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["max_bytes"])  # type: ignore[misc]
