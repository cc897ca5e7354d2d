"""The restricted unpickler: what it reads, and everything it must not."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import tracemalloc
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s2f_rl.data.files import load_plain_pickle
from s2f_rl.data.plain_pickle import PlainUnpickler
from s2f_rl.errors import UserError

PLAIN: dict[Any, Any] = {
    "vertices": np.random.default_rng(0).normal(size=(4, 3)),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
    "turned": np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1),
    "strided": np.arange(10)[::3],
    "big endian": np.arange(3, dtype=">f4"),
    "scalar": np.float32(3),
    "zero-dimensional": np.array(2.5),
    "text": np.array(["a", "bcd"]),
    "flags": np.array([True, False]),
    "empty": np.empty((0, 3)),
    "nested": {"deeper": [{"array": np.arange(2)}, (np.arange(3), None)]},
    ("tuple", 1): {1, 2},
    np.int64(7): b"bytes\xff",
    "frozen": frozenset({3}),
    "complex": 1 - 2j,
    "ordered": OrderedDict(b=1, a=2),
    "long": 2**80,
}


def _load(content: bytes, tmp_path: Path) -> Any:
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    return load_plain_pickle(path)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("spelling", [b"numpy._core", b"numpy.core"])
def test_arrays_and_containers_come_back(protocol: int, spelling: bytes, tmp_path: Path) -> None:
    content = pickle.dumps(PLAIN, protocol=protocol)
    if protocol < 4:  # later protocols state the length of each name
        content = content.replace(b"numpy._core", spelling)
    loaded = _load(content, tmp_path)
    np.testing.assert_equal(loaded, PLAIN)
    assert list(loaded) == list(PLAIN) and list(loaded["ordered"]) == ["b", "a"]
    assert loaded["big endian"].dtype == np.dtype(">f4") and loaded["fortran"].dtype == np.int16


def test_both_spellings_in_the_newest_protocol(tmp_path: Path) -> None:
    for module in ("numpy.core", "numpy._core"):
        encoded = module.encode() + b".numeric"
        content = (
            b"\x80\x05\x8c" + bytes([len(encoded)]) + encoded + b"\x8c\x0b_frombuffer\x93("
            b"\x96"
            + struct.pack("<Q", 8)
            + np.arange(2, dtype="<f4").tobytes()
            + b"\x8c\x05numpy\x8c\x05dtype\x93\x8c\x02f4\x89\x88\x87R(K\x03\x8c\x01<NNNJ\xff\xff\xff\xff"
            b"J\xff\xff\xff\xffK\x00tbK\x02\x85\x8c\x01CtR."
        )
        np.testing.assert_array_equal(_load(content, tmp_path), [0, 1])


def test_python_2_pickles_are_read(tmp_path: Path) -> None:
    """What Python 2.7 and numpy 1.x write for {"a": array([[1., 2., 3.]])}: byte strings as str, no codec."""
    raw = np.array([[1.0, 2.0, 3.0]]).tobytes()
    content = (
        b"\x80\x02}q\x00U\x01aq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04"
        b"U\x01bq\x05\x87q\x06Rq\x07(K\x01K\x01K\x03\x86q\x08cnumpy\ndtype\nq\tU\x02f8q\nK\x00K\x01\x87q\x0bRq\x0c"
        b"(K\x03U\x01<q\rNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0eb\x89U"
        + bytes([len(raw)])
        + raw
        + b"q\x0ftq\x10bs."
    )
    loaded = _load(content, tmp_path)
    assert list(loaded) == ["a"]
    np.testing.assert_array_equal(loaded["a"], [[1.0, 2.0, 3.0]])


def test_shared_and_circular_parts_stay_so(tmp_path: Path) -> None:
    shared: list[Any] = [np.arange(2)]
    circular: list[Any] = [shared, shared]
    circular.append(circular)
    loaded = _load(pickle.dumps(circular), tmp_path)
    assert loaded[0] is loaded[1] and loaded[2] is loaded
    np.testing.assert_array_equal(loaded[0][0], [0, 1])


class _Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def _state(value: Any, state: Any) -> bytes:
    """A pickle that builds ``value`` and then sets ``state`` on it."""
    return value + pickle.dumps(state, protocol=2)[2:-1] + b"b."


MARKER = "s2f_rl_code_was_run"
HOSTILE = {
    "system": pickle.dumps(_Calls(os.system, f"touch {MARKER}")),
    "system, protocol 0": f"cos\nsystem\n(S'touch {MARKER}'\ntR.".encode(),
    "eval": pickle.dumps(_Calls(eval, "1+1")),
    "eval, Python 2": b"c__builtin__\neval\n(S'1+1'\ntR.",
    "exec": pickle.dumps(_Calls(exec, "pass")),
    "getattr": pickle.dumps(_Calls(getattr, "a", "join")),
    "import": b"c__builtin__\n__import__\n(S'os'\ntR.",
    "dotted name": b"\x80\x04\x8c\x08builtins\x8c\x0eset.__class__.a\x93.",
    "dotted numpy": b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.",
    "numpy load": b"cnumpy\nload\n(S'x'\ntR.",
    "numpy runstring": b"cnumpy.testing._private.utils\nrunstring\n(S'1'\n}tR.",
    "copyreg": b"ccopyreg\n_reconstructor\n(c__builtin__\nobject\nc__builtin__\nobject\nNtR.",
    "copy_reg": b"ccopy_reg\n_reconstructor\n(c__builtin__\nobject\nc__builtin__\nobject\nNtR.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent": b"Psomething\n.",
    "codec": b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
    "codec zip": b"c_codecs\nencode\n(Vx\nVzip\ntR.",
    "codec without text": b"c_codecs\nencode\n(I1\ntR.",
    "decode": b"c_codecs\ndecode\n(S'x'\ntR.",
    "defaultdict": pickle.dumps(defaultdict(list)),
    "object": b"c__builtin__\nobject\n.",
    "instance": b"(i__main__\nThing\n.",
    "instance of os": b"(S'ls'\nios\nsystem\n.",
    "class alone": b"cnumpy\nndarray\n.",
    "dtype alone": b"cnumpy\ndtype\n(S'f8'\ntR.",
    "dtype in a list": b"(lcnumpy\ndtype\n(S'f8'\ntRa.",
    "constructor state": _state(b"\x80\x02c__builtin__\nset\n", {"a": 1}),
    "constructor slots": _state(b"\x80\x02c__builtin__\nset\n", (None, {"_function": 1})),
    "ndarray called": b"cnumpy\nndarray\n((I1000000000\ntS'O'\ntR.",
    "new object": b"\x80\x02cnumpy\nndarray\n)\x81.",
    "subclass": b"cnumpy.core.multiarray\n_reconstruct\n(c__builtin__\nset\n(I0\ntS'b'\ntR.",
    "never filled": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR.",
    "object array": pickle.dumps(np.array([1, "a"], dtype=object), protocol=2),
    "record array": pickle.dumps(np.zeros(2, dtype=[("a", "f4")]), protocol=2),
    "dates": pickle.dumps(np.array(["2020-01-01"], dtype="M8[D]"), protocol=2),
    "dtype list": b"cnumpy\ndtype\n((lS'f8'\natR.",
    "dtype string list": b"cnumpy\ndtype\n(S'f8,f8'\ntR.",
    "dtype object": b"cnumpy\ndtype\n(S'O8'\ntR.",
    "empty": b"",
    "no pickle": b"garbage",
    "text": b"hello world\n" * 10,
    "truncated": pickle.dumps(PLAIN)[:-300],
    "huge bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.",
    "huge bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"abc.",
    "huge text": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"abc.",
    "stack underflow": b"\x80\x02tb.",
    "deeply nested": b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        _load(HOSTILE[name], tmp_path)
    assert "x.pkl" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / MARKER).exists()


def test_the_message_names_what_the_file_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"asks for (posix|nt|os)\.system, which is not plain data"):
        _load(pickle.dumps(_Calls(os.system, "true")), tmp_path)


def test_memo_indices_do_not_allocate(tmp_path: Path) -> None:
    """Ten bytes that make the unpickler in C reserve tens of gigabytes."""
    assert _load(b"\x80\x02Nr\xff\xff\xff\xff.", tmp_path) is None


@pytest.mark.parametrize("opcode", [b"\x8e", b"\x96", b"\x8d"])
def test_forged_lengths_do_not_allocate(opcode: bytes, tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="ends too early"):
            _load(b"\x80\x05" + opcode + struct.pack("<Q", 3 * 10**9) + b"abc.", tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("shape", "n_bytes"), [((3,), 16), ((10**9,), 8), ((-1,), 8), ((2**33, 2**33), 8), ((1,), 0)])
def test_array_shapes_must_fit_their_bytes(shape: tuple[int, ...], n_bytes: int, tmp_path: Path) -> None:
    class Forged:
        def __reduce__(self) -> Any:
            function, arguments, state = np.arange(1.0).__reduce__()
            return function, arguments, (1, shape, np.dtype("f8"), False, bytes(n_bytes))

    content = pickle.dumps(Forged(), protocol=2)
    with pytest.raises(UserError, match="does not fit"):
        _load(content, tmp_path)


def test_a_refused_file_leaves_the_next_one_alone(tmp_path: Path) -> None:
    for content in HOSTILE.values():
        with pytest.raises(UserError):
            _load(content, tmp_path)
    np.testing.assert_equal(_load(pickle.dumps(PLAIN), tmp_path), PLAIN)


def test_damaged_bytes_never_escape_as_anything_but_an_exception(tmp_path: Path) -> None:
    """Flip bytes at random: every outcome is plain data or a UserError."""
    rng = random.Random(0)
    whole = pickle.dumps({"a": np.arange(5.0), "b": [1, "x", (2, np.float32(1))]}, protocol=2)
    for _ in range(600):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        try:
            _load(bytes(content), tmp_path)
        except UserError as error:
            assert "\n" not in str(error)


def test_folders_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_plain_pickle(tmp_path / "a.pkl")
    (tmp_path / "b.pkl").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        load_plain_pickle(tmp_path / "b.pkl")


def test_nothing_real_is_ever_looked_up() -> None:
    unpickler = PlainUnpickler(io.BytesIO())
    for module, name in (("numpy", "ndarray"), ("numpy", "dtype"), ("builtins", "set"), ("_codecs", "encode")):
        assert type(unpickler.find_class(module, name)).__name__ == "_Constructor"
