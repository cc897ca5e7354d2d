"""The memory cache of the project: bounded by bytes, least recently used goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar


class HasBytes(Protocol):
    """What knows its own size, such as a tensor or an array."""

    @property
    def nbytes(self) -> int: ...


Value = TypeVar("Value", bound=HasBytes)


class ByteCache(Generic[Value]):
    """Keeps the most recently used values up to a number of bytes. Several threads may use it at once.

    What is handed out is the kept value itself: copy it where somebody may change it in place. The newest value stays
    whatever its size. A copy in another process starts empty.

    Args:
        max_bytes: bound on the sum of ``value.nbytes``.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, Value] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def n_bytes(self) -> int:
        """Bytes held at the moment."""
        return self._bytes

    def __contains__(self, key: Hashable) -> bool:
        return key in self._entries

    def find(self, key: Hashable) -> Value | None:
        """The value under ``key``, None when it is not there."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value under ``key``, made by ``make()`` when it is not there."""
        found = self.find(key)
        if found is not None:
            return found
        made = make()
        with self._lock:
            if key not in self._entries:
                self._entries[key] = made
                self._bytes += made.nbytes
                while self._bytes > self.max_bytes and len(self._entries) > 1:
                    self._bytes -= self._entries.popitem(last=False)[1].nbytes
        return made

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def __getstate__(self) -> dict[str, int]:
        return {"max_bytes": self.max_bytes}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__(state["max_bytes"])  # type: ignore[misc]
