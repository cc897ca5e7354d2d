"""A pickle machine whose work stays in proportion to its file.

A pickle of 200 bytes can ask for work without end: containers that share their parts double with every level, and are
walked through whole when they are hashed, copied or shown; whole numbers may have millions of digits; a length or a
place in the memo may be any number. Here every such step is looked at before it is taken.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable, Iterable
from typing import IO, Any, ClassVar

import numpy as np

from s2f_rl.errors import UserError

_INTEGER_BYTES, _INTEGER_DIGITS = 16, 40
_KEY_BITS = 64  # whole numbers beyond can be made to collide, which makes a dictionary slow
_ROOM, _ROOM_PER_BYTE = 10**6, 4  # an honest file needs about two: each byte string once to encode, once in an array


class BoundedUnpickler(pickle._Unpickler):
    """Python's unpickler with bounds; subclasses say what may be looked up (:meth:`find_class`).

    It derives from Python's own implementation in Python: the one in C allocates as much memory as a file's memo
    indices ask for, so that ten bytes can exhaust the machine. The bulk of a corpus pickle is a few hundred large
    byte strings, for which the difference in speed is small.

    Raises:
        UserError: keys and set members other than names, numbers and tuples of them, whole numbers beyond 128 bits, a
            file that ends too early, or one that asks for far more work than its size explains.
    """

    # attributes of the base class, which has no types
    stack: list[object]
    append: Callable[[object], None]
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]

    def __init__(self, file: IO[bytes]) -> None:
        bounded = _BoundedFile(file)
        self.size = bounded.size
        self._room = _ROOM + _ROOM_PER_BYTE * bounded.size
        super().__init__(bounded, encoding="latin1")

    def spend(self, *values: object) -> None:
        """Count all that lies in ``values``, what is shared as often as it occurs; stop a file that asks for more."""
        waiting: list[object] = list(values)
        while waiting:
            value = waiting.pop()
            self._room -= 1 + (len(value) if isinstance(value, (str, bytes, bytearray, *_CONTAINERS)) else 0)
            if self._room < 0:
                raise UserError("repeats shared parts without end, which no honest file does, and was not loaded")
            if isinstance(value, dict):
                waiting.extend(value)
                waiting.extend(value.values())
            elif isinstance(value, _CONTAINERS):
                waiting.extend(value)

    def get_extension(self, code: int) -> None:
        raise UserError(f"asks for the registered class number {code}, which is not plain data, and was not loaded")

    def _keys(self, keys: Iterable[object]) -> None:
        for key in keys:
            check_key(key)
            self.spend(key)

    def _load_setitem(self) -> None:
        self._keys(self.stack[-2:-1])
        pickle._Unpickler.load_setitem(self)  # type: ignore[attr-defined]

    def _load_setitems(self) -> None:
        self._keys(self.stack[::2])  # since the last mark
        pickle._Unpickler.load_setitems(self)  # type: ignore[attr-defined]

    def _load_dict(self) -> None:
        self._keys(self.stack[::2])
        pickle._Unpickler.load_dict(self)  # type: ignore[attr-defined]

    def _load_additems(self) -> None:
        self._keys(self.stack)
        pickle._Unpickler.load_additems(self)  # type: ignore[attr-defined]

    def _load_frozenset(self) -> None:
        self._keys(self.stack)
        pickle._Unpickler.load_frozenset(self)  # type: ignore[attr-defined]

    def _load_bytearray(self) -> None:
        # The original makes the whole array before it looks whether the file has so much.
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(length)))

    def _load_int(self) -> None:
        text = self.readline()[:-1]
        self.append({b"00": False, b"01": True}[text] if text in (b"00", b"01") else _integer(text))

    def _load_long(self) -> None:
        self.append(_integer(self.readline()[:-1].removesuffix(b"L")))

    def _load_long1(self) -> None:
        self._load_binary(self.read(1)[0])

    def _load_long4(self) -> None:
        self._load_binary(struct.unpack("<i", self.read(4))[0])

    def _load_binary(self, length: int) -> None:
        if not 0 <= length <= _INTEGER_BYTES:
            raise UserError(f"holds a whole number of {length} bytes, which no corpus does, and was not loaded")
        self.append(pickle.decode_long(self.read(length)))

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,  # type: ignore[attr-defined]
        pickle.SETITEM[0]: _load_setitem,
        pickle.SETITEMS[0]: _load_setitems,
        pickle.DICT[0]: _load_dict,
        pickle.ADDITEMS[0]: _load_additems,
        pickle.FROZENSET[0]: _load_frozenset,
        pickle.BYTEARRAY8[0]: _load_bytearray,
        pickle.INT[0]: _load_int,
        pickle.LONG[0]: _load_long,
        pickle.LONG1[0]: _load_long1,
        pickle.LONG4[0]: _load_long4,
    }


def _spending(name: str, arguments: Callable[[object], object]) -> Callable[[BoundedUnpickler], None]:
    """An instruction that calls something: its arguments are counted first, for the callee may walk through them."""
    original = getattr(pickle._Unpickler, name)

    def load(self: BoundedUnpickler) -> None:
        self.spend(arguments(self.stack))
        original(self)

    return load


for _code, _name, _arguments in (
    (pickle.REDUCE, "load_reduce", lambda stack: stack[-1]),
    (pickle.BUILD, "load_build", lambda stack: stack[-1]),
    (pickle.NEWOBJ, "load_newobj", lambda stack: stack[-1]),
    (pickle.NEWOBJ_EX, "load_newobj_ex", lambda stack: stack[-2:]),
    (pickle.INST, "load_inst", lambda stack: stack),
    (pickle.OBJ, "load_obj", lambda stack: stack),
):
    BoundedUnpickler.dispatch[_code[0]] = _spending(_name, _arguments)


class _BoundedFile:
    """Reads a file, but no more than it holds: a forged length then asks for no memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        at = file.tell()
        self.size = file.seek(0, io.SEEK_END)
        file.seek(at)
        self.readline = file.readline

    def read(self, n: int) -> bytes:
        if n > self.size - self._file.tell():
            raise UserError("ends too early; the file is truncated or damaged, copy it again")
        return self._file.read(n)


_CONTAINERS = (tuple, list, dict, set, frozenset)
_KEY_TYPES = (str, bytes, int, float, type(None), np.bool_, np.number)


def check_key(key: object) -> Any:
    """Return a dictionary's key or a set's member if hashing it is cheap; raises UserError for anything else."""
    for part in key if type(key) is tuple else (key,):
        if not isinstance(part, _KEY_TYPES) or isinstance(part, int) and part.bit_length() > _KEY_BITS:
            raise UserError(
                f"names something by a {type(part).__name__}; keys are names, numbers and tuples of them, and the file "
                "was not loaded"
            )
    return key


def _integer(text: bytes) -> int:
    if len(text) > _INTEGER_DIGITS:
        raise UserError(f"holds a whole number of {len(text)} digits, which no corpus does, and was not loaded")
    return int(text, 0)
