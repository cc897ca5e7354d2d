"""A disk that is full, or that cannot be written, ends a run; with room again it goes on as if nothing had been."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kill.scenes import assert_same_folders, fresh


def mount(*arguments: str) -> bool:
    """Whether the command ``mount`` did it."""
    try:
        return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def can_mount() -> bool:
    """Only an administrator can make a disk of a few kilobytes, and not in every container."""
    with tempfile.TemporaryDirectory() as folder:
        return (
            mount("-t", "tmpfs", "-o", "size=64k", "none", folder) and not subprocess.run(["umount", folder]).returncode
        )


pytestmark = pytest.mark.skipif(not can_mount(), reason="no permission to mount a small disk")


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Iterator[Path]:
    """What a scene reads, with ``runs`` and ``cache`` on a disk of their own."""
    folder = fresh(template, tmp_path / "broken")
    (folder / "disk").mkdir()
    assert mount("-t", "tmpfs", "-o", "size=32m", "none", str(folder / "disk"))
    for name in ("runs", "cache"):
        (folder / "disk" / name).mkdir()
        (folder / name).symlink_to(Path("disk", name))
    yield folder
    subprocess.run(["umount", str(folder / "disk")], check=True)


def assert_same(folder: Path, whole: Path) -> None:
    """As if all had been on one disk."""
    for name in ("runs", "cache"):
        (folder / name).unlink()
        shutil.move(folder / "disk" / name, folder / name)
    assert_same_folders(whole, folder)


@pytest.mark.parametrize("share", [0.03, 0.5, 0.9] if "S2F_RL_KILLS" in os.environ else [0.5])
def test_full(server, folder: Path, unbroken, share: float) -> None:
    """``share``: how much of what the run writes there is room for."""
    whole = unbroken("ppo")
    needed = sum(path.stat().st_size for name in ("runs", "cache") for path in (whole / name).rglob("*"))
    ballast = folder / "disk" / "ballast"
    ballast.write_bytes(bytes(32 * 2**20 - int(share * needed) // 4096 * 4096))
    status, output = server.run(folder, "ppo"), (folder / "output.txt").read_text()
    assert status in (1, 2) and "error" in output.lower(), (status, output)
    ballast.unlink()
    assert server.run(folder, "ppo") == 0, (folder / "output.txt").read_text()
    assert_same(folder, whole)


def test_read_only(server, folder: Path, unbroken) -> None:
    assert server.run(folder, "ppo", "row:3:metrics.jsonl") == -9
    assert mount("-o", "remount,ro", str(folder / "disk"))
    assert server.run(folder, "ppo") == 2
    output = (folder / "output.txt").read_text()
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "Read-only file system" in line and "Traceback" not in output
    assert mount("-o", "remount,rw", str(folder / "disk"))
    assert server.run(folder, "ppo") == 0
    assert_same(folder, unbroken("ppo"))
