"""Safe file access: atomic writes, arrays without pickles, pickles without code.

A published corpus is somebody else's files. Nothing here executes what it reads, nothing here leaves half a file
behind, and whatever is wrong with a file comes back as one :class:`~s2f_rl.errors.UserError` naming it.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from s2f_rl.data.plain_pickle import PlainUnpickler
from s2f_rl.data.regular_files import decoded, is_there, kind_of, open_file, read_bytes, read_text, require_file
from s2f_rl.data.temporary import claimed_temporary
from s2f_rl.errors import UserError

__all__ = ["is_there", "open_file", "read_bytes", "read_text", "require_file"]

_NUMERIC_KINDS = "biuf"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_PROBE_BYTES = 2**20
_MOST_AXES = 32
_INTEGER_DIGITS = 19
_INFLATED_BYTES, _INFLATED_TIMES = 16 * 2**20, 50
_ONE_HEADER = threading.Lock()
"""numpy parses headers as Python literals, which two threads of Python 3.11 cannot do at once (a SystemError about the
depth of recursion, gh-106905)."""


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it onto ``path`` when the block ends well.

    The file is flushed to disk before the rename, so that after a crash ``path`` is either the old file or the
    complete new one. On any exception the temporary file is removed and ``path`` is untouched. A link is written
    through: it stays, and the file it leads to is replaced.

    Raises:
        UserError: ``path`` is a folder, a device, a pipe or a link in a circle, its folder cannot be written, or the
            disk is full, in whatever way the block's writer tells that.
    """
    path = Path(path)
    with ExitStack() as stack:
        try:
            target = _target(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = stack.enter_context(claimed_temporary(target))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be written ({_reason(error)}); choose a writable folder") from error
        try:
            yield temporary
            _flush_to_disk(temporary)
        except UserError:
            raise
        except Exception as error:
            full = _no_space(error, temporary)
            if full is not None:
                raise UserError(f"{path}: cannot be written ({os.strerror(full)}); free some space") from error
            raise
        try:
            os.replace(temporary, target)
        except OSError as error:
            raise UserError(f"{path}: cannot be replaced ({_reason(error)}); move away what is there") from error
    _flush_folder(target.parent)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty folder beside ``path``, which is new or empty; rename it to ``path`` when the block ends well.

    On any exception it is removed with all that is in it, and ``path`` is untouched.

    Raises:
        UserError: ``path`` cannot be written, or there is something in it.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{path.name[:50]}.", suffix=".tmp", dir=path.parent))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({_reason(error)}); choose another place") from error
    try:
        yield work
        work.chmod(0o755)  # mkdtemp's folders are their maker's alone
        try:
            if path.exists():
                path.rmdir()
            os.rename(work, path)
        except OSError as error:
            raise UserError(f"{path}: cannot be replaced ({_reason(error)}); name a new folder") from error
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def require_target(path: str | os.PathLike[str]) -> Path:
    """Return ``path`` if a file may be written there, as far as what is there tells, before the work for it begins.

    Raises UserError for a folder, a device, a pipe and the like, and for a link in a circle.
    """
    path = Path(path)
    try:
        _target(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written ({_reason(error)}); choose a writable folder") from error
    return path


def _target(path: Path) -> Path:
    """The file to replace: ``path``, or what it leads to. Raises UserError where there is something else, OSError."""
    try:
        kind = kind_of(os.stat(path).st_mode)
    except FileNotFoundError:  # nothing there, or a link to a file that is not there yet
        kind = None
    if kind is not None:  # a rename would replace a device as readily as a file
        raise UserError(f"{path}: cannot be replaced (it is {kind}); move it away or name another file")
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _no_space(error: Exception, temporary: Path) -> int | None:
    """The number of the system's error where a writer failed for want of space, else None.

    When a disk is full, torch raises a RuntimeError, numpy an OSError without a number, safetensors and soundfile
    errors of their own; so the disk itself is asked.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in _FULL else None
    try:
        with open(temporary, "ab") as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as refused:
        return refused.errno if refused.errno in _FULL else None
    return None


def atomic_write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def atomic_write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` to ``path`` atomically, as UTF-8; half characters (of names that are no UTF-8) as escapes."""
    atomic_write_bytes(path, text.encode("utf-8", "backslashreplace"))


def atomic_write_json(path: str | os.PathLike[str], content: object) -> None:
    """Write plain data as indented JSON, atomically. NaN and infinities are refused with ValueError."""
    atomic_write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def atomic_save_npy(path: str | os.PathLike[str], array: npt.ArrayLike) -> None:
    """Save an array to ``path`` atomically. Object arrays are refused with ValueError."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, np.asarray(array), allow_pickle=False)


def atomic_save_npy_parts(
    path: str | os.PathLike[str], shape: tuple[int, ...], parts: Iterable[npt.NDArray[np.float32]]
) -> None:
    """Save a float32 array of ``shape`` to ``path`` atomically, given in parts [n, ..] one after another.

    The file is the one that :func:`atomic_save_npy` writes. Raises ValueError where the parts make another shape.
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        n = 0
        for part in parts:
            if part.shape[1:] != shape[1:]:
                raise ValueError(f"a part of shape {part.shape} for an array of shape {shape}")
            file.write(np.ascontiguousarray(part, dtype="<f4").data)
            n += len(part)
        if n != shape[0]:
            raise ValueError(f"parts of {n} in all for an array of shape {shape}")


def load_npy(path: str | os.PathLike[str], mmap: bool = True) -> np.ndarray:
    """Read a numeric ``.npy`` array, memory-mapped by default.

    Raises:
        UserError: the file is missing, a folder, truncated, larger in its header than on disk, holds Python objects
            or anything but real numbers, or is no npy file at all.
    """
    path = require_file(path)
    header = npy_header(path)
    try:
        if mmap and 0 not in header[0]:
            with _ONE_HEADER:
                return np.load(path, mmap_mode="r", allow_pickle=False)
        with open_file(path) as file, _ONE_HEADER:
            return np.load(file, allow_pickle=False)
    except Exception as error:  # numpy raises many types on broken files
        raise UserError(f"{path}: cannot be read as a numpy array ({_reason(error)}); write it again") from error


def npy_header(path: str | os.PathLike[str]) -> tuple[tuple[int, ...], np.dtype]:
    """Return ``(shape, dtype)`` of a ``.npy`` file from its header, without reading its data.

    The header is believed only as far as the file's size bears it out, so that a small file cannot ask for a large
    allocation. Raises UserError as :func:`load_npy`.
    """
    with open_file(path) as file:
        return _checked_header(file, os.fstat(file.fileno()).st_size, path)


def load_npz(path: str | os.PathLike[str], texts: bool = False) -> dict[str, np.ndarray]:
    """Read the numeric arrays of an ``.npz`` file by name; with ``texts`` also those of words of a fixed length.

    Raises:
        UserError: as :func:`load_npy`; also when it would unpack to far more than its size explains.
    """
    with open_file(path) as file:
        largest = _INFLATED_BYTES + _INFLATED_TIMES * os.fstat(file.fileno()).st_size
        arrays = {}
        try:
            with zipfile.ZipFile(file) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > largest:
                    raise UserError(f"{path}: would unpack to more than {largest} bytes; write it again")
                for entry in archive.infolist():
                    content = io.BytesIO(archive.read(entry))
                    name = entry.filename.removesuffix(".npy")
                    _checked_header(content, len(content.getbuffer()), f"{path}: {name}", "U" if texts else "")
                    content.seek(0)
                    with _ONE_HEADER:
                        arrays[name] = np.load(content, allow_pickle=False)
        except UserError:
            raise
        except Exception as error:  # whatever a hostile or truncated zip makes zipfile raise
            raise UserError(f"{path}: not a readable npz file ({_reason(error)}); write it again") from error
    return arrays


def _checked_header(
    file: IO[bytes], size: int, path: str | os.PathLike[str], more_kinds: str = ""
) -> tuple[tuple[int, ...], np.dtype]:
    try:
        version = np.lib.format.read_magic(file)
        shape, _, dtype = _read_header(file, version)
        offset = file.tell()
    except Exception as error:  # numpy raises many types on broken headers
        raise UserError(
            f"{path}: not a readable npy file ({_reason(error)}); write it again with numpy.save"
        ) from error
    if dtype.hasobject:
        raise UserError(f"{path}: holds Python objects, which are never loaded; save a plain numeric array")
    if dtype.kind not in _NUMERIC_KINDS + more_kinds or dtype.names is not None:
        raise UserError(f"{path}: holds {dtype}, not numbers; save a plain numeric array")
    needed = dtype.itemsize
    for length in shape:
        # a number of thousands of digits cannot even be shown
        if type(length) is not int or not 0 <= length < 2**63 or len(shape) > _MOST_AXES:
            shown = str(shape) if all(abs(length) < 2**99 for length in shape[:9]) else "of huge numbers"
            raise UserError(f"{path}: its header states the impossible shape {shown[:80]}; write it again")
        needed *= length
    if size - offset < needed:
        raise UserError(
            f"{path}: truncated, {size - offset} bytes of data where its header states {needed}; copy it again"
        )
    return shape, dtype


def load_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file (UTF-8). Raises UserError when it is missing or no JSON, or holds numbers beyond 64 bits."""
    content = read_bytes(path)
    try:
        return json.loads(decoded(content), parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({_reason(error)}); mend or delete it") from error


def _integer(text: str) -> int:
    if len(text) > _INTEGER_DIGITS:
        raise ValueError(f"a whole number of {len(text)} digits")
    return int(text)


def load_plain_pickle(path: str | os.PathLike[str]) -> Any:
    """Read a pickle that holds only numpy arrays, numbers, strings and plain containers, Python 2 files included.

    Byte strings of Python 2 are decoded as latin1. No class or function that the file names is ever looked up, except
    the handful by which numpy pickles its arrays, and those are replaced by checked versions of our own; so no
    file can run code.

    Raises:
        UserError: the file is missing, truncated, or asks for anything else.
    """
    with open_file(path) as file:
        return _unpickled(file, path)


def _unpickled(file: IO[bytes], path: str | os.PathLike[str]) -> object:
    try:
        return PlainUnpickler(file).load()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except MemoryError as error:
        raise UserError(f"{path}: states more data than memory can hold; the file is damaged") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(f"{path}: cannot be read as a pickle ({_reason(error)}); copy or download it again") from error


def _read_header(file: IO[bytes], version: tuple[int, int]) -> tuple[tuple[int, ...], bool, np.dtype]:
    with _ONE_HEADER:
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(file)
        if version in ((2, 0), (3, 0)):
            return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"unknown npy version {version}")


def _reason(error: BaseException) -> str:
    """A short, one-line account of an exception for a message to the user."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    try:
        text = " ".join(str(error).split())
    except ValueError:  # it names a number of thousands of digits
        text = ""
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
