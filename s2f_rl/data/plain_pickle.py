"""An unpickler that can build numpy arrays and plain containers, and has nothing else to build with.

A pickle is a program for a small stack machine. Its one dangerous instruction looks up a class or a function by name
and calls it. Here that lookup knows only the handful of names by which numpy (1.x and 2.x, Python 2 and 3) pickles
arrays, scalars and dtypes, and the plain containers; each answers with a checked constructor of our own, not with the
real object. No class, function or array lies on the machine's stack, so that no instruction can alter one.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from s2f_rl.errors import UserError

_ALLOWED_KINDS = "biufcSU"
_MAX_DEPTH = 200


class PlainUnpickler(pickle._Unpickler):
    """Restricted unpickler; :meth:`load` returns the content with real numpy arrays in it.

    It derives from Python's own implementation in Python: the one in C allocates as much memory as a file's memo
    indices ask for, so that ten bytes can exhaust the machine. The bulk of a corpus pickle is a few hundred large
    byte strings, for which the difference in speed is small.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(_BoundedFile(file), encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _CONSTRUCTORS[module, name]
        except KeyError:
            raise UserError(
                f"asks for {str(module)[:80]}.{str(name)[:80]}, which is not plain data, and was not loaded; "
                "only numpy arrays and plain containers are accepted"
            ) from None

    def _load_bytearray(self) -> None:
        # The original makes the whole array before it looks whether the file has so much.
        (length,) = struct.unpack("<Q", self.read(8))  # type: ignore[attr-defined]
        self.append(bytearray(self.read(length)))  # type: ignore[attr-defined]

    dispatch = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: _load_bytearray}  # type: ignore[dict-item]

    def get_extension(self, code: int) -> None:
        raise UserError(f"asks for the registered class number {code}, which is not plain data, and was not loaded")

    def load(self) -> Any:
        return _finished(super().load(), {}, 0)


class _BoundedFile:
    """Reads a file, but no more than it holds: a forged length then asks for no memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        at = file.tell()
        self._size = file.seek(0, io.SEEK_END)
        file.seek(at)
        self.readline = file.readline

    def read(self, n: int) -> bytes:
        if n > self._size - self._file.tell():
            raise UserError("ends too early; the file is truncated or damaged, copy it again")
        return self._file.read(n)


class _Constructor:
    """Something a pickle may call. It has no attribute that a pickle could set."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise UserError("tries to alter a constructor, and was not loaded")


class _Dtype:
    __slots__ = ("dtype",)

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
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


def _checked_dtype(code: Any) -> np.dtype:
    if not isinstance(code, (str, bytes)):
        raise UserError("holds an array of an unreadable type; only plain numbers and strings are accepted")
    text = code.decode("latin1") if isinstance(code, bytes) else code
    if text[:1] in "<>|=":
        text = text[1:]
    if text[:1] not in _ALLOWED_KINDS or not text[1:].isdecimal():  # no field lists, no subarrays
        raise UserError(f"holds an array of type {text[:40]!r}; only plain numbers and strings are accepted")
    return np.dtype(code.decode("latin1") if isinstance(code, bytes) else code)


def _array_of(content: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
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
    if dtype.dtype.itemsize == 0:
        return np.empty(shape, dtype.dtype)
    return np.ndarray(shape, dtype.dtype, buffer=content, order="F" if order == "F" else "C")


def _reconstruct(kind: Any, shape: Any = None, code: Any = None) -> _Array:
    if kind is not _NDARRAY:
        raise UserError("holds a special kind of array; only plain arrays are accepted")
    return _Array()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any, axis_order: Any = None) -> _Array:
    if order == "K" and axis_order is not None:
        return _Array(_array_of(content, dtype, shape, "C").transpose(axis_order))
    return _Array(_array_of(content, dtype, shape, order))


def _scalar(dtype: Any, content: Any = b"") -> Any:
    return _array_of(content, dtype, (), "C")[()]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How Python 3 writes bytes in the old pickle protocols."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise UserError(f"asks for the codec {str(encoding)[:40]!r}, and was not loaded")
    return text.encode("latin1")


def _empty_bytes(*arguments: Any) -> bytes:
    if arguments:
        raise UserError("asks for bytes in an unknown way; the file is damaged")
    return b""


def _not_called(*_: Any) -> None:
    raise UserError("holds an array written in an unknown way; save it again with a plain pickle.dump")


_NDARRAY = _Constructor(_not_called)  # only ever an argument of _reconstruct
_CONSTRUCTORS: dict[tuple[str, str], _Constructor] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Constructor(_Dtype),
    ("_codecs", "encode"): _Constructor(_encode),
    ("collections", "OrderedDict"): _Constructor(OrderedDict),
    **{(core + ".multiarray", "_reconstruct"): _Constructor(_reconstruct) for core in ("numpy.core", "numpy._core")},
    **{(core + ".multiarray", "scalar"): _Constructor(_scalar) for core in ("numpy.core", "numpy._core")},
    **{(core + ".numeric", "_frombuffer"): _Constructor(_from_buffer) for core in ("numpy.core", "numpy._core")},
    **{
        (module, function.__name__): _Constructor(function)
        for module in ("builtins", "__builtin__")
        for function in (set, frozenset, complex)
    },
    **{(module, "bytes"): _Constructor(_empty_bytes) for module in ("builtins", "__builtin__")},
}


def _finished(value: Any, done: dict[int, tuple[Any, Any]], depth: int) -> Any:
    """Replace the stand-ins in ``value`` by arrays; ``done`` {id: (object, result)} keeps shared parts shared."""
    if isinstance(value, (_Dtype, _Constructor)):
        raise UserError("holds something that is not plain data; only numpy arrays and plain containers are accepted")
    if isinstance(value, _Array):
        if value.array is None:
            raise UserError("holds an array without content; the file is damaged")
        return value.array
    if not isinstance(value, (dict, list, tuple, set, frozenset)):
        return value
    if id(value) in done:
        return done[id(value)][1]
    if depth > _MAX_DEPTH:
        raise UserError(f"nests containers more than {_MAX_DEPTH} deep, which no corpus does")
    if isinstance(value, (tuple, set, frozenset)):
        result = type(value)(_finished(item, done, depth + 1) for item in value)
        done[id(value)] = (value, result)
        return result
    done[id(value)] = (value, value)
    if isinstance(value, list):
        value[:] = [_finished(item, done, depth + 1) for item in value]
    else:
        items = [(_finished(key, done, depth + 1), _finished(item, done, depth + 1)) for key, item in value.items()]
        value.clear()
        value.update(items)
    return value
