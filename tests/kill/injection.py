"""Counts the moments in which a process writes files, and kills it (SIGKILL) in a chosen one.

Moments, each with the name of the file:

- ``before``, ``after``: a finished temporary file is about to be renamed onto its name, or has been;
- ``cut``: a temporary file (``.NAME.NUMBER.tmp.SUFFIX``) is half on disk;
- ``row``: half a line has been appended to a ``.jsonl``;
- ``line``: half a line has been appended to a logger's ``.csv``.
"""

from __future__ import annotations

import builtins
import os
import signal
from pathlib import Path
from typing import Any


def install(kill: str | None, log: str | None) -> None:
    """Watch this process from now on.

    Args:
        kill: ``kind:number:part``: die in the ``number``-th moment (from 0) of that kind in whose file name ``part``
            occurs; None: never.
        log: file to append every moment to, ``kind name`` a line; None: none.
    """
    kind_wanted, number, part = kill.split(":", 2) if kill else ("", "0", "")
    left = int(number)
    log_handle = None if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def reached(kind: str, name: Any) -> bool:
        nonlocal left
        if log_handle is not None:
            os.write(log_handle, f"{kind} {name}\n".encode())
        if kind != kind_wanted or part not in str(name):
            return False
        left -= 1
        return left < 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    replace, fsync, open_file = os.replace, os.fsync, builtins.open

    def watched_replace(source: Any, target: Any, **options: Any) -> None:
        if reached("before", target):
            die()
        replace(source, target, **options)
        if reached("after", target):
            die()

    def watched_fsync(handle: int) -> None:
        name = os.readlink(f"/proc/self/fd/{handle}")
        if ".tmp" in Path(name).name and reached("cut", name):
            os.truncate(name, os.path.getsize(name) // 2)
            die()
        fsync(handle)

    def watched_open(file: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
        stream = open_file(file, mode, *more, **options)
        kind = {".jsonl": "row", ".csv": "line"}.get(Path(str(file)).suffix)
        if not mode.startswith("a") or kind is None:
            return stream
        write = stream.write

        def watched_write(text: str) -> int:
            if reached(kind, file):
                write(text[: len(text) // 2])
                stream.flush()
                die()
            return write(text)

        stream.write = watched_write
        return stream

    os.replace, os.fsync, builtins.open = watched_replace, watched_fsync, watched_open  # type: ignore[assignment]
