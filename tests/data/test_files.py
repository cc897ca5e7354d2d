"""Atomic writes, and arrays that may be hostile."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from s2f_rl.data.audio import write_wav
from s2f_rl.data.files import (
    atomic_path,
    atomic_save_npy,
    atomic_save_npy_parts,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    load_json,
    load_npy,
    npy_header,
    require_target,
)
from s2f_rl.data.tensor_files import save_safetensors, save_tensors
from s2f_rl.errors import UserError
from s2f_rl.evaluation.tables import write_rows


class TestAtomicWrites:
    def test_parts_make_the_file_of_the_whole_array(self, tmp_path: Path) -> None:
        array = np.random.default_rng(0).normal(size=(11, 6)).astype(np.float32)
        atomic_save_npy(tmp_path / "whole.npy", array)
        parts = [array[:4], array[4:4], array[4:].astype(np.float64)]
        atomic_save_npy_parts(tmp_path / "parts.npy", (11, 6), parts)
        assert (tmp_path / "parts.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
        for wrong in ([array[:10]], [array, array], [array[:, :5]]):
            with pytest.raises(ValueError, match="for an array of shape"):
                atomic_save_npy_parts(tmp_path / "parts.npy", (11, 6), wrong)
        assert (tmp_path / "parts.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
        assert len(list(tmp_path.iterdir())) == 2

    def test_writes_what_it_was_given_and_leaves_nothing_else(self, tmp_path: Path) -> None:
        atomic_write_bytes(tmp_path / "deep" / "a.bin", b"\x00\x01")
        atomic_write_text(tmp_path / "deep" / "b.txt", "Ä")
        atomic_save_npy(tmp_path / "deep" / "c.npy", np.arange(3.0))
        atomic_write_json(tmp_path / "deep" / "d.json", {"k": [1, "ä"]})
        assert (tmp_path / "deep" / "a.bin").read_bytes() == b"\x00\x01"
        assert (tmp_path / "deep" / "b.txt").read_text(encoding="utf-8") == "Ä"
        np.testing.assert_array_equal(np.load(tmp_path / "deep" / "c.npy"), [0, 1, 2])
        assert load_json(tmp_path / "deep" / "d.json") == {"k": [1, "ä"]}
        assert sorted(os.listdir(tmp_path / "deep")) == ["a.bin", "b.txt", "c.npy", "d.json"]

    def test_an_error_keeps_the_old_file(self, tmp_path: Path) -> None:
        target = tmp_path / "a.txt"
        atomic_write_text(target, "old")
        with pytest.raises(RuntimeError), atomic_path(target) as temporary:
            temporary.write_text("half")
            assert temporary.parent == tmp_path and temporary.name.startswith(".")
            raise RuntimeError
        assert target.read_text() == "old"
        assert os.listdir(tmp_path) == ["a.txt"]

    def test_readers_see_the_old_file_until_the_end(self, tmp_path: Path) -> None:
        target = tmp_path / "a.txt"
        atomic_write_text(target, "old")
        with atomic_path(target) as temporary:
            temporary.write_text("new")
            assert target.read_text() == "old"
        assert target.read_text() == "new"

    def test_permissions_follow_the_umask(self, tmp_path: Path) -> None:
        previous = os.umask(0o027)
        try:
            atomic_write_text(tmp_path / "a.txt", "x")
        finally:
            os.umask(previous)
        assert os.stat(tmp_path / "a.txt").st_mode & 0o777 == 0o640

    def test_unwritable_targets_are_user_errors(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        (tmp_path / "folder" / "inner").mkdir(parents=True)
        with pytest.raises(UserError, match="cannot be written"):
            atomic_write_text(tmp_path / "file" / "a.txt", "x")
        with pytest.raises(UserError, match="cannot be replaced"):
            atomic_write_text(tmp_path / "folder", "x")
        assert sorted(os.listdir(tmp_path)) == ["file", "folder"]

    def test_objects_are_never_saved(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError):
            atomic_save_npy(tmp_path / "a.npy", np.array([{}], dtype=object))
        assert os.listdir(tmp_path) == []


def _header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(64)


class TestLoadNpy:
    def test_is_memory_mapped_on_demand(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.arange(6, dtype=np.float32).reshape(2, 3))
        mapped, loaded = load_npy(tmp_path / "a.npy"), load_npy(tmp_path / "a.npy", mmap=False)
        assert isinstance(mapped, np.memmap) and not isinstance(loaded, np.memmap)
        np.testing.assert_array_equal(mapped, loaded)
        assert npy_header(tmp_path / "a.npy") == ((2, 3), np.dtype("float32"))

    def test_empty_arrays_load(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.empty((0, 4), dtype=np.float32))
        assert load_npy(tmp_path / "a.npy").shape == (0, 4)

    @pytest.mark.parametrize("mmap", [True, False])
    def test_hostile_files(self, tmp_path: Path, mmap: bool) -> None:
        good = tmp_path / "good.npy"
        np.save(good, np.zeros((10, 10), dtype=np.float32))
        huge = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"
        huge = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + huge.ljust(117) + b"\n" + bytes(64)
        cases = {
            "truncated.npy": (good.read_bytes()[:200], "truncated"),
            "cut in the header.npy": (good.read_bytes()[:20], "not a readable npy"),
            "empty.npy": (b"", "not a readable npy"),
            "text.npy": (b"hello" * 100, "not a readable npy"),
            "huge.npy": (huge, "truncated"),
            "negative.npy": (huge.replace(b"1000000000000", b"-100000000000"), "impossible shape"),
            "hexadecimal.npy": (_header("(0x" + "f" * 9000 + ",)"), "impossible shape of huge numbers"),
            "many axes.npy": (_header("(" + "9000000000000000000," * 400 + ")"), "impossible shape"),
            "true.npy": (_header("(True, 2)"), "impossible shape|not a readable npy"),
            "code.npy": (huge.replace(b"1000000000000", b"__import__(1)"), "not a readable npy"),
            "version.npy": (b"\x93NUMPY\x09\x00" + good.read_bytes()[8:], "not a readable npy"),
        }
        for name, (content, message) in cases.items():
            (tmp_path / name).write_bytes(content)
            with pytest.raises(UserError, match=message) as caught:
                load_npy(tmp_path / name, mmap=mmap)
            assert name in str(caught.value) and "\n" not in str(caught.value)

    def test_objects_and_other_types_are_refused(self, tmp_path: Path) -> None:
        np.save(tmp_path / "o.npy", np.array([1, "a"], dtype=object), allow_pickle=True)
        np.save(tmp_path / "s.npy", np.array(["a"]))
        np.save(tmp_path / "r.npy", np.zeros(2, dtype=[("a", "f4")]))
        for name, message in (("o.npy", "Python objects"), ("s.npy", "not numbers"), ("r.npy", "not numbers")):
            with pytest.raises(UserError, match=message):
                load_npy(tmp_path / name)

    def test_pickle_bytes_are_never_run(self, tmp_path: Path) -> None:
        (tmp_path / "p.npy").write_bytes(pickle.dumps([1, 2]))
        with pytest.raises(UserError):
            load_npy(tmp_path / "p.npy")

    def test_missing_files_and_folders(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no such file"):
            load_npy(tmp_path / "a.npy")
        (tmp_path / "b.npy").mkdir()
        with pytest.raises(UserError, match="is a folder"):
            load_npy(tmp_path / "b.npy")


def test_threads_parse_headers_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11 fails where two threads parse a literal at once, as numpy does with every header."""
    np.save(tmp_path / "a.npy", np.arange(6.0))
    inside, most = [], []

    def slow(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.005)
            inside.pop()
            return real(*given, **named)

        return call

    monkeypatch.setattr(np, "load", slow(np.load))
    monkeypatch.setattr(np.lib.format, "read_array_header_1_0", slow(np.lib.format.read_array_header_1_0))
    with ThreadPoolExecutor(8) as pool:
        arrays = list(pool.map(lambda k: load_npy(tmp_path / "a.npy", mmap=bool(k % 2)), range(16)))
    assert all(np.array_equal(each, np.arange(6.0)) for each in arrays)
    assert len(most) == 32 and max(most) == 1


def test_broken_json_is_a_user_error(tmp_path: Path) -> None:
    for content in (b"{", b"\xff\xfe", b"[" * 100000):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(UserError, match="not readable as JSON"):
            load_json(tmp_path / "a.json")


def _device(path: Path) -> None:
    """A device of its own: where the code is broken, root's tests would replace the system's."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:  # then /dev/null cannot be replaced either
        path.symlink_to("/dev/null")


SPECIAL_TARGETS: dict[str, Callable[[Path], object]] = {
    "a device": _device,
    "a named pipe": os.mkfifo,
    "a folder": Path.mkdir,
}


class TestTargets:
    @pytest.mark.parametrize("kind", SPECIAL_TARGETS)
    def test_what_is_no_file_is_not_replaced(self, kind: str, tmp_path: Path) -> None:
        SPECIAL_TARGETS[kind](tmp_path / "out.npy")
        before = os.lstat(tmp_path / "out.npy")
        with pytest.raises(UserError, match=rf"out\.npy: cannot be replaced \(it is {kind}\)"):
            require_target(tmp_path / "out.npy")
        with pytest.raises(UserError, match=rf"out\.npy: cannot be replaced \(it is {kind}\)"):
            atomic_save_npy(tmp_path / "out.npy", np.zeros(3))
        after = os.lstat(tmp_path / "out.npy")
        assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
        assert os.listdir(tmp_path) == ["out.npy"]

    def test_the_system_s_devices_are_refused(self) -> None:
        for name in ("/dev/null", "/dev/zero"):
            with pytest.raises(UserError, match=rf"{name}: cannot be replaced \(it is a device\)"):
                require_target(name)

    def test_links_are_written_through(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "real.txt").write_text("old")
        for link, real in (("a.txt", "elsewhere/real.txt"), ("b.txt", "elsewhere/new.txt")):
            (tmp_path / link).symlink_to(real)
            atomic_write_text(tmp_path / link, "new")
            assert (tmp_path / link).is_symlink() and (tmp_path / real).read_text() == "new"
        assert sorted(os.listdir(tmp_path / "elsewhere")) == ["new.txt", "real.txt"]
        assert sorted(os.listdir(tmp_path)) == ["a.txt", "b.txt", "elsewhere"]

    def test_circles_and_impossible_names(self, tmp_path: Path) -> None:
        (tmp_path / "loop").symlink_to("loop")
        for name in ("loop", "a\0b"):
            with pytest.raises(UserError, match="cannot be written"):
                require_target(tmp_path / name)
        for name in ("loop", "x" * 300, "a\0b"):
            with pytest.raises(UserError, match="cannot be written"):
                atomic_write_text(tmp_path / name, "x")
        assert os.listdir(tmp_path) == ["loop"] and os.readlink(tmp_path / "loop") == "loop"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A place where files end at 20 kB; the system refuses as a full disk does, only with another number."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        yield tmp_path
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


class TestFullDisk:
    """torch.save raises a RuntimeError then, numpy an OSError without a number, soundfile its own."""

    NUMBERS = np.arange(10_000.0)
    WRITERS: dict[str, Callable[[Path], object]] = {
        "numpy": lambda path: atomic_save_npy(path, TestFullDisk.NUMBERS),
        "torch": lambda path: save_tensors(path, {"a": torch.from_numpy(TestFullDisk.NUMBERS)}),
        "safetensors": lambda path: save_safetensors(path, {"a": torch.from_numpy(TestFullDisk.NUMBERS)}),
        "json": lambda path: atomic_write_json(path, TestFullDisk.NUMBERS.tolist()),
        "soundfile": lambda path: write_wav(path, TestFullDisk.NUMBERS / 10_000, 16000, "FLOAT"),
        "table": lambda path: write_rows(path, [{"number": number} for number in TestFullDisk.NUMBERS]),
    }

    @pytest.mark.parametrize("writer", WRITERS)
    def test_one_line_and_the_old_file_stays(self, writer: str, small_disk: Path) -> None:
        path = small_disk / "out.bin"
        path.write_bytes(b"old")
        with pytest.raises(UserError, match=r"/out\.bin: cannot be written \(File too large\); free some space"):
            self.WRITERS[writer](path)
        assert path.read_bytes() == b"old" and os.listdir(small_disk) == ["out.bin"]

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    def test_other_numbers(self, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a full disk answers to the question whether there is room, after an error that does not tell."""

        def full(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        with pytest.raises(UserError, match=rf"a: cannot be written \({os.strerror(number)}\)"):
            with atomic_path(tmp_path / "a"):
                monkeypatch.setattr(os, "fsync", full)
                raise RuntimeError("unexpected pos 64 vs 0")
        assert os.listdir(tmp_path) == []

    def test_other_errors_stay_what_they_are(self, tmp_path: Path) -> None:
        for error in (RuntimeError("x"), OSError("x"), OSError(errno.EACCES, "x"), ValueError("x"), KeyError("x")):
            with pytest.raises(type(error)) as caught, atomic_path(tmp_path / "a"):
                raise error
            assert caught.value is error and os.listdir(tmp_path) == []


def test_names_that_are_no_text_are_written_as_escapes(tmp_path: Path) -> None:
    atomic_write_json(tmp_path / "a.json", {"\udcff": "ä"})
    assert load_json(tmp_path / "a.json") == {"\udcff": "ä"}
