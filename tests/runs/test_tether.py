"""What a killed process started ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# tells its number, waits for the tether to be tied, and would go on for a minute
CHILD = """
import os, sys, time
import s2f_rl.runs.tether as tether
if sys.argv[1] == "elsewhere":
    tether._libc, tether._POLL_S = None, 0.01
tether.die_with_starter()
assert tether.PARENT not in os.environ
with open("child", "w") as file: file.write(str(os.getpid()))
os.rename("child", "ready")
time.sleep(60)
"""
PARENT = """
import os, subprocess, sys
from s2f_rl.runs.tether import PARENT
number = {"right": os.getpid(), "leaked": os.getppid()}[sys.argv[2]]
subprocess.Popen([sys.executable, "-c", sys.argv[3], sys.argv[1]], env={**os.environ, PARENT: str(number)}).wait()
"""


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(process: int) -> bool:
    """Whether a process ends within half a minute."""
    for _ in range(600):
        if not alive(process):
            return True
        time.sleep(0.05)
    return False


def start(folder: Path, where: str, number: str) -> tuple[subprocess.Popen[bytes], int]:
    """A parent and the number of its child, which has tied itself."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, where, number, CHILD], cwd=folder, env=environment)
    while not (folder / "ready").exists():
        assert parent.poll() is None
        time.sleep(0.02)
    return parent, int((folder / "ready").read_text())


@pytest.mark.parametrize("where", ["linux", "elsewhere"])
def test_it_ends_with_its_parent(tmp_path: Path, where: str) -> None:
    parent, child = start(tmp_path, where, "right")
    assert alive(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert gone(child)


def test_a_number_of_another_process_ties_nothing(tmp_path: Path) -> None:
    """A command between the two handed the variable on: its own children are not the suite's."""
    parent, child = start(tmp_path, "linux", "leaked")
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    time.sleep(0.2)
    assert alive(child)
    os.kill(child, signal.SIGKILL)
    assert gone(child)
