"""Temporary files beside what is written: claimed while a process writes, taken over once that process is gone.

A killed process leaves its temporary file behind. The next one that writes the same file finds it under the same name
and takes it over; :func:`remove_leftovers` clears a folder of the others. Whether somebody still writes a file is told
by a lock, which the system drops with the process, however it ends.
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_NAME = re.compile(r"\..+\.[0-9a-f]{12}\.tmp(\.[^.]+)?")


@contextmanager
def claimed_temporary(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file beside ``path`` that no other process will touch; removed if the block fails.

    Hidden, so that a crash leaves nothing that a listing takes for data; the suffix is kept for audio writers.

    Raises:
        OSError: the folder cannot be written.
    """
    temporary, handle = _claim(path)
    try:
        yield temporary
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove the temporary files that killed processes left in ``folder`` and its subfolders.

    Left alone: files that another process writes right now, other names, folders of other runs (with a ``.lock``), and
    everything on systems without locks.
    """
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not os.path.exists(os.path.join(place, name, ".lock"))]
        for name in files:
            if _NAME.fullmatch(name):
                _remove(Path(place, name))


def _name(path: Path, number: str) -> Path:
    return path.with_name(f".{path.stem[:100]}.{number}.tmp{path.suffix}")


def _claim(path: Path) -> tuple[Path, int]:
    """The first free name and an open file that holds it. Names are counted, so that leftovers do not pile up."""
    for number in itertools.count():
        temporary = _name(path, f"{number:012x}")
        try:
            handle = _locked(temporary, os.O_CREAT)
        except BlockingIOError:
            continue
        except (
            OSError
        ):  # another user's leftover, no locks here, or a folder that cannot be written: the next line tells
            break
        os.ftruncate(handle, 0)
        return temporary, handle
    temporary = _name(path, secrets.token_hex(6))
    return temporary, os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)


def _remove(path: Path) -> None:
    try:
        handle = _locked(path)
    except OSError:
        return
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # a folder that cannot be written
    finally:
        os.close(handle)


def _locked(path: Path, flags: int = 0) -> int:
    """An open and locked file. Raises BlockingIOError when another process holds it or has just renamed it away."""
    if sys.platform == "win32":
        raise OSError("no locks here")
    handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | flags, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            same = os.path.samestat(os.stat(path), os.fstat(handle))
        except FileNotFoundError:
            same = False
        if not same:
            raise BlockingIOError(f"{path}: was renamed")
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:  # no locks here: leave nothing that nobody will ever remove
        if flags and os.fstat(handle).st_size == 0:
            path.unlink(missing_ok=True)
        os.close(handle)
        raise
    return handle
