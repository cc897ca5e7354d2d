"""Safe file access: atomic writes, arrays without pickles, pickles without code.

A published corpus is somebody else's files. Nothing here executes what it reads, nothing here leaves half a file
behind, and whatever is wrong with a file comes back as one :class:`~s2f_rl.errors.UserError` naming it.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from s2f_rl.data.plain_pickle import PlainUnpickler
from s2f_rl.errors import UserError

_NUMERIC_KINDS = "biuf"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it onto ``path`` when the block ends well.

    The file is flushed to disk before the rename, so that after a crash ``path`` is either the old file or the
    complete new one. On any exception the temporary file is removed and ``path`` is untouched.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Hidden, so that a crash leaves nothing that a listing takes for data; the suffix is kept for audio writers.
        temporary = path.with_name(f".{path.stem[:100]}.{secrets.token_hex(6)}.tmp{path.suffix}")
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({_reason(error)}); choose a writable folder") from error
    try:
        try:
            yield temporary
        except OSError as error:
            if error.errno in _FULL:
                raise UserError(f"{path}: cannot be written ({_reason(error)}); free some space") from error
            raise
        _flush_to_disk(temporary)
        try:
            os.replace(temporary, path)
        except OSError as error:
            raise UserError(f"{path}: cannot be replaced ({_reason(error)}); move away what is there") from error
    finally:
        temporary.unlink(missing_ok=True)
    _flush_folder(path.parent)


def atomic_write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def atomic_write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` to ``path`` atomically, as UTF-8."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write plain data as indented JSON, atomically. NaN and infinities are refused with ValueError."""
    atomic_write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def atomic_save_npy(path: str | os.PathLike[str], array: Any) -> None:
    """Save an array to ``path`` atomically. Object arrays are refused with ValueError."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, np.asarray(array), allow_pickle=False)


def require_file(path: str | os.PathLike[str], remedy: str = "check the path") -> Path:
    """Return ``path`` if it is a readable file, else raise a UserError that names it."""
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder where a file is expected; {remedy}")
    if not path.is_file():
        raise UserError(f"{path}: no such file; {remedy}")
    return path


def load_npy(path: str | os.PathLike[str], mmap: bool = True) -> np.ndarray:
    """Read a numeric ``.npy`` array, memory-mapped by default.

    Raises:
        UserError: the file is missing, a folder, truncated, larger in its header than on disk, holds Python objects
            or anything but real numbers, or is no npy file at all.
    """
    path = require_file(path)
    header = npy_header(path)
    try:
        array = np.load(path, mmap_mode="r" if mmap and 0 not in header[0] else None, allow_pickle=False)
    except Exception as error:  # numpy raises many types on broken files
        raise UserError(f"{path}: cannot be read as a numpy array ({_reason(error)}); write it again") from error
    return array


def npy_header(path: str | os.PathLike[str]) -> tuple[tuple[int, ...], np.dtype]:
    """Return ``(shape, dtype)`` of a ``.npy`` file from its header, without reading its data.

    The header is believed only as far as the file's size bears it out, so that a small file cannot ask for a large
    allocation. Raises UserError as :func:`load_npy`.
    """
    path = require_file(path)
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            shape, _, dtype = _read_header(file, version)
            offset = file.tell()
            size = os.fstat(file.fileno()).st_size
    except Exception as error:  # numpy raises many types on broken headers
        raise UserError(
            f"{path}: not a readable npy file ({_reason(error)}); write it again with numpy.save"
        ) from error
    if dtype.hasobject:
        raise UserError(f"{path}: holds Python objects, which are never loaded; save a plain numeric array")
    if dtype.kind not in _NUMERIC_KINDS or dtype.names is not None:
        raise UserError(f"{path}: holds {dtype}, not numbers; save a plain numeric array")
    needed = dtype.itemsize
    for length in shape:
        if not isinstance(length, int) or length < 0:
            raise UserError(f"{path}: its header states the impossible shape {shape}; write it again")
        needed *= length
    if size - offset < needed:
        raise UserError(
            f"{path}: truncated, {size - offset} bytes of data where its header states {needed}; copy it again"
        )
    return shape, dtype


def load_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file (UTF-8). Raises UserError when it is missing or no JSON."""
    path = require_file(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({_reason(error)}); mend or delete it") from error


def load_plain_pickle(path: str | os.PathLike[str]) -> Any:
    """Read a pickle that holds only numpy arrays, numbers, strings and plain containers, Python 2 files included.

    Byte strings of Python 2 are decoded as latin1. No class or function that the file names is ever looked up, except
    the handful by which numpy pickles its arrays, and those are replaced by checked versions of our own; so no
    file can run code.

    Raises:
        UserError: the file is missing, truncated, or asks for anything else.
    """
    path = require_file(path)
    try:
        with open(path, "rb") as file:
            return PlainUnpickler(file).load()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except MemoryError as error:
        raise UserError(f"{path}: states more data than memory can hold; the file is damaged") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(f"{path}: cannot be read as a pickle ({_reason(error)}); copy or download it again") from error


def _read_header(file: IO[bytes], version: tuple[int, int]) -> tuple[tuple[int, ...], bool, np.dtype]:
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version in ((2, 0), (3, 0)):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"unknown npy version {version}")


def _reason(error: BaseException) -> str:
    """A short, one-line account of an exception for a message to the user."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    return text[:200] if " " in text else f"{type(error).__name__} {text[:200]}".rstrip()


def _flush_to_disk(path: Path) -> None:
    # A writer may have replaced or removed the temporary file; then its error should be seen, not ours.
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # some systems cannot open a folder; the rename itself has been done
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
