"""A process that ends with the one that started it: nothing of a killed suite or sweep goes on by itself."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

PARENT = "S2F_RL_PARENT"
"""Environment variable by which a process tells the command it starts to end with it: its process number."""
_POLL_S = 0.5
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with(parent: int) -> None:
    """End this process by SIGKILL when ``parent``, which started it, ends in whatever way; at once if it has already.

    Linux does that itself, and keeps to it through an exec. Elsewhere a thread looks every half second.
    """
    if _libc is not None and _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) == 0:
        if os.getppid() != parent:  # it ended before the call
            os.kill(os.getpid(), signal.SIGKILL)
    elif hasattr(os, "getppid") and sys.platform != "win32":
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def tied(command: Sequence[str]) -> list[str]:
    """The command, started so that it ends with this process whatever program it is; only on Linux.

    Not by a function between fork and exec: with one, Python runs its hooks around the fork, and a Ctrl-C or SIGTERM
    that arrives in one of them is lost.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def die_with_starter() -> None:
    """End with the process that :data:`PARENT` names, if it did start this one; processes further down are not told."""
    with contextlib.suppress(ValueError):
        parent = int(os.environ.pop(PARENT, ""))
        if os.getppid() == parent or not _exists(parent):
            die_with(parent)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


if __name__ == "__main__":  # of the command that tied() makes
    die_with(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
