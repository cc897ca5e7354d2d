"""Temporary files: of a live process they are left alone, of a dead one taken over or removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from s2f_rl.data.files import atomic_path, atomic_write_text
from s2f_rl.data.temporary import remove_leftovers
from s2f_rl.errors import UserError

WRITER = """
import sys
from s2f_rl.data.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print(temporary.name, flush=True)
    input()
    temporary.write_text("whole")
"""


def writer(path: Path) -> tuple[subprocess.Popen[str], str]:
    """A process in the middle of writing ``path``, and the name of its temporary file."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], **pipes)  # type: ignore[call-overload]
    return process, process.stdout.readline().strip()


def killed_writer(path: Path) -> str:
    process, name = writer(path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return name


class TestLeftovers:
    def test_the_next_write_takes_it_over(self, tmp_path: Path) -> None:
        name = killed_writer(tmp_path / "last.pt")
        assert os.listdir(tmp_path) == [name] and name.startswith(".last.") and name.endswith(".tmp.pt")
        killed_writer(tmp_path / "last.pt")
        assert os.listdir(tmp_path) == [name]  # they do not pile up
        atomic_write_text(tmp_path / "last.pt", "new")
        assert os.listdir(tmp_path) == ["last.pt"] and (tmp_path / "last.pt").read_text() == "new"

    def test_two_write_the_same_file_at_once(self, tmp_path: Path) -> None:
        process, name = writer(tmp_path / "a.txt")
        atomic_write_text(tmp_path / "a.txt", "ours")
        remove_leftovers(tmp_path)
        assert sorted(os.listdir(tmp_path)) == sorted([name, "a.txt"]) and (tmp_path / name).read_text() == "half"
        process.communicate("go on\n")
        assert process.returncode == 0
        assert os.listdir(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "whole"

    def test_a_name_that_another_has_just_given_up(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Between the first one's rename and its end a second one begins under the same name; it must be left alone."""
        second = ExitStack()
        rename = os.replace

        def replace(source: Path, target: Path) -> None:
            monkeypatch.undo()
            rename(source, target)
            assert second.enter_context(atomic_path(tmp_path / "a.txt")) == source
            source.write_text("second")

        monkeypatch.setattr(os, "replace", replace)
        atomic_write_text(tmp_path / "a.txt", "first")
        assert (tmp_path / "a.txt").read_text() == "first"
        second.close()
        assert (tmp_path / "a.txt").read_text() == "second" and os.listdir(tmp_path) == ["a.txt"]

    def test_removed_with_the_folder_below(self, tmp_path: Path) -> None:
        for place in (tmp_path, tmp_path / "logs", tmp_path / "other_run"):
            killed_writer(place / "a.npy")
        (tmp_path / "other_run" / ".lock").touch()
        mine = [".last.0123456789ab.tmp.pt", ".last.tmp.pt", ".notes.txt", "last.0123456789ab.tmp.pt"]
        for name in mine:
            (tmp_path / name).touch()
        remove_leftovers(tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*mine[1:], "logs", "other_run"])
        assert not list((tmp_path / "logs").iterdir())
        assert len(list((tmp_path / "other_run").iterdir())) == 2
        remove_leftovers(tmp_path / "absent")

    def test_something_else_of_that_name(self, tmp_path: Path) -> None:
        name = killed_writer(tmp_path / "a.txt")
        (tmp_path / name).unlink()
        (tmp_path / name).symlink_to(tmp_path / "precious")
        (tmp_path / "precious").write_text("x")
        atomic_write_text(tmp_path / "a.txt", "new")
        remove_leftovers(tmp_path)
        assert (tmp_path / "precious").read_text() == "x" and (tmp_path / "a.txt").read_text() == "new"

    def test_without_locks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise OSError(37, "No locks available")

        name = killed_writer(tmp_path / "a.txt")
        monkeypatch.setattr("s2f_rl.data.temporary.fcntl.flock", refuse)
        remove_leftovers(tmp_path)
        assert os.listdir(tmp_path) == [name]
        atomic_write_text(tmp_path / "b.txt", "new")
        assert sorted(os.listdir(tmp_path)) == [name, "b.txt"]

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match="cannot be written"):
            atomic_write_text(tmp_path / "file" / "a.txt", "x")
