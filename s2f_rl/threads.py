"""How many threads torch uses, and where: one in the frame loop, a process's share of the cores elsewhere.

This module loads nothing heavy; torch is imported by the functions that set its threads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_inside = 0  # frame loops that run now, in all threads of this process
_outside = 1  # the threads that torch had before the first of them


@contextmanager
def one_thread() -> Iterator[None]:
    import torch

    global _inside, _outside
    with _lock:
        if not _inside:
            _outside = torch.get_num_threads()
        _inside += 1
    torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
        torch.set_num_threads(_outside)
