"""Pickles whose work is out of proportion to their size: refused at once."""

from __future__ import annotations

import io
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s2f_rl.data.bounded_pickle import BoundedUnpickler
from s2f_rl.data.files import load_plain_pickle
from s2f_rl.errors import UserError

LEVELS = 60


def _doubled(pair: bytes, start: bytes = b")q\x00") -> bytes:
    """60 levels, each holding the one before twice: 2^60 parts in 400 bytes. The last is at place 59 of the memo."""
    return start + b"".join(pair.replace(b"#", b"h" + bytes([k - 1])) + b"q" + bytes([k]) for k in range(1, LEVELS))


TUPLES, LISTS, SETS = b"##\x86", b"](##e", b"(##\x91"
LAST = b"h" + bytes([LEVELS - 1])
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
BOMBS = {
    "a dictionary's key": _doubled(TUPLES) + b"}" + LAST + b"K\x01s.",
    "keys": _doubled(TUPLES) + b"}(" + LAST + b"K\x01u.",
    "keys of the old instruction": _doubled(TUPLES) + b"(" + LAST + b"K\x01d.",
    "a set's member": _doubled(TUPLES) + b"\x8f(" + LAST + b"\x90.",
    "a frozen set's member": _doubled(TUPLES) + b"(" + LAST + b"\x91.",
    "nested frozen sets": _doubled(SETS, b"(K\x01\x91q\x00") + b"}" + LAST + b"K\x01s.",
    "a set of a call": _doubled(TUPLES) + b"c__builtin__\nset\n](" + LAST + b"e\x85R.",
    "a frozen set of a call": _doubled(TUPLES) + b"c__builtin__\nfrozenset\n](" + LAST + b"e\x85R.",
    "an ordered dictionary": _doubled(TUPLES) + b"ccollections\nOrderedDict\n](](" + LAST + b"K\x01ee\x85R.",
    "an argument": _doubled(TUPLES) + b"c_codecs\nencode\n" + LAST + b"R.",
    "a state": _doubled(TUPLES) + ARRAY + LAST + b"b.",
    "a value": _doubled(TUPLES) + b"}X\x01\x00\x00\x00a" + LAST + b"s.",
    "lists": _doubled(LISTS, b"]q\x00") + b".",
}


def _load(content: bytes, tmp_path: Path) -> Any:
    (tmp_path / "x.pkl").write_bytes(content)
    return load_plain_pickle(tmp_path / "x.pkl")


@pytest.mark.parametrize("name", BOMBS)
def test_shared_parts_do_not_multiply(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.pkl: (repeats shared parts|names something by a)"):
        _load(b"\x80\x04" + BOMBS[name], tmp_path)


def test_few_shared_parts_are_fine(tmp_path: Path) -> None:
    template = np.arange(6000.0).reshape(-1, 3)
    loaded = _load(pickle.dumps(dict.fromkeys([f"s{k}" for k in range(100)], template)), tmp_path)
    assert len(loaded) == 100 and loaded["s0"] is loaded["s99"]
    inner = ("a", 1)
    assert _load(pickle.dumps({inner: [inner] * 50, ("b", 2.5, None): {inner}}), tmp_path)[inner] == [inner] * 50


def test_one_array_many_times(tmp_path: Path) -> None:
    """A megabyte that readers would copy two thousand times."""
    array = np.zeros(2**17)
    with pytest.raises(UserError, match="repeats shared parts"):
        _load(pickle.dumps({k: array for k in range(2000)}), tmp_path)


def test_one_text_encoded_many_times(tmp_path: Path) -> None:
    """300 KB that make 10 GB of copies."""
    text = b"X" + struct.pack("<I", 10**5) + b"x" * 10**5 + b"q\x000"
    call = b"c_codecs\nencode\nh\x00\x85R"
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="repeats shared parts"):
            _load(b"\x80\x02" + text + b"(" + call * 10**4 + b"l.", tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 2 * 10**7
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "content",
    [
        b"\x8b" + struct.pack("<i", 10**6) + b"\xff" * 10**6,
        b"\x8a\xff" + b"\x7f" * 255,
        b"\x8b" + struct.pack("<i", -1),
        b"L" + b"9" * 5000 + b"L\n",
        b"I" + b"9" * 5000 + b"\n",
        b"I0x" + b"f" * 10**5 + b"\n",
    ],
)
def test_huge_numbers(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.pkl: holds a whole number of -?\d+ (bytes|digits)"):
        _load(content + b".", tmp_path)


def test_numbers_of_every_spelling(tmp_path: Path) -> None:
    numbers = [0, 1, -1, 255, 2**31, -(2**63), 2**64, 10**30, True, False]
    for protocol in range(6):
        assert _load(pickle.dumps(numbers, protocol=protocol), tmp_path) == numbers


@pytest.mark.parametrize("key", [((1, 2), 3), frozenset({1}), 2**70, 1 - 2j])
def test_keys_that_are_refused(key: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        BoundedUnpickler(io.BytesIO(pickle.dumps({key: 1}))).load()
        _load(pickle.dumps({key: 1}), tmp_path)


def test_attributes_are_not_set(tmp_path: Path) -> None:
    """An ordered dictionary whose ``items`` is a number would end in a traceback later."""
    content = b"\x80\x02ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x01sb."
    with pytest.raises(UserError, match="sets attributes"):
        _load(content, tmp_path)


def test_arrays_of_nothing(tmp_path: Path) -> None:
    """Ten thousand million elements of no bytes each, which numpy makes one byte each."""
    content = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85X\x01\x00\x00\x00b\x87R(K\x01"
        b"\x8a\x05\x00\xe4\x0b\x54\x02\x85cnumpy\ndtype\nX\x02\x00\x00\x00S0K\x00K\x01\x87R\x89X\x00\x00\x00\x00tb."
    )
    with pytest.raises(UserError, match="take no bytes"):
        _load(content, tmp_path)
