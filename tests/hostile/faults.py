"""Cases that are faults, one for each thing that the harness looks at; they show that it would see it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import urllib.request
from pathlib import Path

from s2f_rl.errors import UserError


def hangs(rng: random.Random, material: Path, folder: Path, done: list[str]) -> None:
    """Works for ever."""
    while True:
        pass


def eats_memory(rng: random.Random, material: Path, folder: Path, done: list[str]) -> None:
    """Asks for more than there may be."""
    bytearray(2**33)


def raises(rng: random.Random, material: Path, folder: Path, done: list[str]) -> None:
    """Ends in a traceback."""
    _ = 1 // 0


def two_lines(rng: random.Random, material: Path, folder: Path, done: list[str]) -> None:
    """Refuses with what a terminal would obey."""
    error = UserError("x")
    error.args = ("two\nlines",)
    raise error


def leaves_a_file(rng: random.Random, material: Path, folder: Path, done: list[str]) -> None:
    """Leaves half a file behind."""
    (folder / ".out.123.tmp.npy").write_bytes(b"half")


def asks_the_network(rng: random.Random, material: Path, folder: Path, done: list[str]) -> None:
    """Asks a hub, and goes on when there is none."""
    with contextlib.suppress(OSError):
        urllib.request.urlopen("http://localhost:9/")


def crashes(rng: random.Random, material: Path, folder: Path, done: list[str]) -> None:
    """Is ended by the system."""
    os.kill(os.getpid(), signal.SIGSEGV)


FAULTS = {
    f"fault: {case.__name__.replace('_', ' ')}": case
    for case in (hangs, eats_memory, raises, two_lines, leaves_a_file, asks_the_network, crashes)
}
