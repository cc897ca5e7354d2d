"""An unpickler that can build numpy arrays and plain containers, and has nothing else to build with.

A pickle is a program for a small stack machine. Its one dangerous instruction looks up a class or a function by name
and calls it. Here that lookup knows only the handful of names by which numpy (1.x and 2.x, Python 2 and 3) pickles
arrays, scalars and dtypes, and the plain containers; each answers with a checked constructor of our own, not with the
real object. No class, function or array lies on the machine's stack, so that no instruction can alter one.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np

from s2f_rl.data.bounded_pickle import BoundedUnpickler, check_key
from s2f_rl.errors import UserError

_ALLOWED_KINDS = "biufcSU"
_MAX_DEPTH = 200
_UNFINISHED = 0
_SHARED_BYTES, _SHARED_TIMES = 64 * 2**20, 16  # some corpora give all subjects one template


class PlainUnpickler(BoundedUnpickler):
    """Restricted unpickler; :meth:`load` returns the content with real numpy arrays in it."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return CONSTRUCTORS[module, name]
        except KeyError:
            raise UserError(
                f"asks for {str(module)[:80]}.{str(name)[:80]}, which is not plain data, and was not loaded; "
                "only numpy arrays and plain containers are accepted"
            ) from None

    def _load_build(self) -> None:
        if not isinstance(self.stack[-2], (_Array, _Dtype, _Constructor)):
            raise UserError("sets attributes of something that is plain data, and was not loaded")
        BoundedUnpickler.dispatch[pickle.BUILD[0]](self)

    dispatch: ClassVar[dict[int, object]] = {**BoundedUnpickler.dispatch, pickle.BUILD[0]: _load_build}

    def load(self) -> Any:
        return Finish(_SHARED_BYTES + _SHARED_TIMES * self.size).of(super().load(), 0)[0]


class _Constructor:
    """Something a pickle may call. It has no attribute that a pickle could set."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *arguments: object) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: object) -> None:
        raise UserError("tries to alter a constructor, and was not loaded")


class _Dtype:
    __slots__ = ("dtype",)

    def __init__(self, code: object, align: object = False, copy: object = False) -> None:
        self.dtype = _checked_dtype(code)

    def __setstate__(self, state: Any) -> None:
        """Numpy's dtype state: (version, byte order, sub-dtype, names, fields, size, alignment, flags, ...)."""
        order, sub_dtype, names, fields = state[1:5]
        if sub_dtype is not None or names is not None or fields is not None or order not in ("<", ">", "|", "="):
            raise UserError("holds an array of a compound type; only plain numbers and strings are accepted")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands for an array until the whole file has been read."""

    __slots__ = ("array",)

    def __init__(self, array: np.ndarray | None = None) -> None:
        self.array = array

    def __setstate__(self, state: Any) -> None:
        """Numpy's array state: ([version,] shape, dtype, is Fortran-ordered, bytes)."""
        shape, dtype, is_fortran, content = state[-4:]
        self.array = _array_of(content, dtype, shape, "F" if is_fortran else "C")


def _checked_dtype(code: object) -> np.dtype:
    if not isinstance(code, (str, bytes)):
        raise UserError("holds an array of an unreadable type; only plain numbers and strings are accepted")
    text = code.decode("latin1") if isinstance(code, bytes) else code
    if text[:1] in "<>|=":
        text = text[1:]
    if text[:1] not in _ALLOWED_KINDS or not text[1:].isdecimal():  # no field lists, no subarrays
        raise UserError(f"holds an array of type {text[:40]!r}; only plain numbers and strings are accepted")
    return np.dtype(code.decode("latin1") if isinstance(code, bytes) else code)


def _array_of(content: object, dtype: object, shape: object, order: str) -> np.ndarray:
    if not isinstance(dtype, _Dtype):
        raise UserError("holds an array without a readable type; the file is damaged")
    if isinstance(content, str):  # bytes of a Python 2 pickle
        content = content.encode("latin1")
    if not isinstance(content, (bytes, bytearray)):
        raise UserError("holds an array of Python objects; only plain numbers and strings are accepted")
    shape = tuple(int(length) for length in (shape if isinstance(shape, tuple) else (shape,)))
    count = 1
    for length in shape:
        count *= length
    if min(shape, default=0) < 0 or count * dtype.dtype.itemsize != len(content):
        raise UserError(f"holds an array whose shape {str(shape)[:80]} does not fit its {len(content)} bytes")
    if dtype.dtype.itemsize == 0:  # any number of them fits into no bytes
        raise UserError("holds an array whose elements take no bytes; the file is damaged")
    return np.ndarray(shape, dtype.dtype, buffer=content, order="F" if order == "F" else "C")


def _reconstruct(kind: object, shape: object = None, code: object = None) -> _Array:
    if kind is not _NDARRAY:
        raise UserError("holds a special kind of array; only plain arrays are accepted")
    return _Array()


def _from_buffer(content: object, dtype: object, shape: object, order: Any, axis_order: Any = None) -> _Array:
    if order == "K" and axis_order is not None:
        return _Array(_array_of(content, dtype, shape, "C").transpose(axis_order))
    return _Array(_array_of(content, dtype, shape, order))


def _scalar(dtype: object, content: object = b"") -> object:
    return _array_of(content, dtype, (), "C")[()]


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """How Python 3 writes bytes in the old pickle protocols."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise UserError(f"asks for the codec {str(encoding)[:40]!r}, and was not loaded")
    return text.encode("latin1")


def _empty_bytes(*arguments: object) -> bytes:
    if arguments:
        raise UserError("asks for bytes in an unknown way; the file is damaged")
    return b""


def _ordered(pairs: Any = ()) -> OrderedDict[Any, object]:
    return OrderedDict((check_key(key), value) for key, value in (pairs.items() if isinstance(pairs, dict) else pairs))


def _set(members: Iterable[object] = ()) -> set[object]:
    return {check_key(member) for member in members}


def _frozenset(members: Iterable[object] = ()) -> frozenset[object]:
    return frozenset(_set(members))


def _not_called(*_: object) -> None:
    raise UserError("holds an array written in an unknown way; save it again with a plain pickle.dump")


_NDARRAY = _Constructor(_not_called)  # only ever an argument of _reconstruct
CONSTRUCTORS: dict[tuple[str, str], _Constructor] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Constructor(_Dtype),
    ("_codecs", "encode"): _Constructor(_encode),
    ("collections", "OrderedDict"): _Constructor(_ordered),
    **{(core + ".multiarray", "_reconstruct"): _Constructor(_reconstruct) for core in ("numpy.core", "numpy._core")},
    **{(core + ".multiarray", "scalar"): _Constructor(_scalar) for core in ("numpy.core", "numpy._core")},
    **{(core + ".numeric", "_frombuffer"): _Constructor(_from_buffer) for core in ("numpy.core", "numpy._core")},
    **{
        (module, name): _Constructor(function)
        for module in ("builtins", "__builtin__")
        for name, function in (("set", _set), ("frozenset", _frozenset), ("complex", complex))
    },
    **{(module, "bytes"): _Constructor(_empty_bytes) for module in ("builtins", "__builtin__")},
}


class Finish:
    """Replaces the stand-ins in what was loaded by arrays; what is shared stays shared.

    Args:
        limit: bytes that the content may take once everything shared is copied, as readers of arrays do.
        circular: whether a list or dictionary may hold itself.
    """

    def __init__(self, limit: int, circular: bool = True) -> None:
        self._limit, self._circular = limit, circular
        self._done: dict[int, tuple[object, object, int]] = {}  # {id: (object, result, bytes)}

    def of(self, value: object, depth: int) -> tuple[Any, int]:
        """``value`` with arrays in it, and its size in bytes with shared parts counted as often as they occur."""
        if isinstance(value, (_Dtype, _Constructor)):
            raise UserError(
                "holds something that is not plain data; only numpy arrays and plain containers are accepted"
            )
        if isinstance(value, _Array):
            if value.array is None:
                raise UserError("holds an array without content; the file is damaged")
            return value.array, value.array.nbytes
        if not isinstance(value, (dict, list, tuple, set, frozenset)):
            return value, len(value) if isinstance(value, (str, bytes, bytearray)) else 1
        if id(value) in self._done:
            _, result, size = self._done[id(value)]
            if size == _UNFINISHED and not self._circular:
                raise UserError("holds a container that holds itself, and was not loaded")
            return result, max(1, size)
        if depth > _MAX_DEPTH:
            raise UserError(f"nests containers more than {_MAX_DEPTH} deep, which no corpus does")
        result, size = self._container(value, depth + 1)
        if size > self._limit:
            raise UserError("repeats shared parts without end, which no honest file does, and was not loaded")
        self._done[id(value)] = (value, result, size)
        return result, size

    def _container(self, value: Any, depth: int) -> tuple[object, int]:
        if isinstance(value, (tuple, set, frozenset)):
            parts = [self.of(item, depth) for item in value]
            return type(value)(part for part, _ in parts), 1 + sum(size for _, size in parts)
        self._done[id(value)] = (value, value, _UNFINISHED)
        if isinstance(value, list):
            parts = [self.of(item, depth) for item in value]
            value[:] = [part for part, _ in parts]
        else:
            parts = [self.of(item, depth) for pair in value.items() for item in pair]
            value.clear()
            value.update(zip((key for key, _ in parts[::2]), (item for item, _ in parts[1::2]), strict=True))
        return value, 1 + sum(size for _, size in parts)
