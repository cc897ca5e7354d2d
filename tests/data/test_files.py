"""Atomic writes, and arrays that may be hostile."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from s2f_rl.data.files import (
    atomic_path,
    atomic_save_npy,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    load_json,
    load_npy,
    npy_header,
)
from s2f_rl.errors import UserError


class TestAtomicWrites:
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


def test_broken_json_is_a_user_error(tmp_path: Path) -> None:
    for content in (b"{", b"\xff\xfe", b"[" * 100000):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(UserError, match="not readable as JSON"):
            load_json(tmp_path / "a.json")
