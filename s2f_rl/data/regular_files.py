"""Opening somebody else's file: a regular one, of a size that can be meant, in the encodings that people save."""

from __future__ import annotations

import codecs
import errno
import os
import stat
from pathlib import Path
from typing import IO

from s2f_rl.errors import UserError

LARGEST_TEXT = 32 * 2**20
"""Bytes of the largest text that is read whole: the transcripts of some hundred hours, parsed in some gigabytes."""
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def is_there(path: str | os.PathLike[str]) -> bool:
    """Whether something bears this name, be it a link that leads nowhere: then it should be told, not passed over."""
    return os.path.lexists(path)


def kind_of(mode: int) -> str | None:
    """What ``st_mode`` says a file is, in words; None for a regular file."""
    return None if stat.S_ISREG(mode) else next((name for is_kind, name in _KINDS if is_kind(mode)), "no regular file")


def require_file(path: str | os.PathLike[str], remedy: str = "check the path") -> Path:
    """Return ``path`` if it is a regular file, or a link to one, else raise a UserError that names it.

    Reading a named pipe or a device would wait for ever, or never end.
    """
    path = Path(path)
    try:
        kind = kind_of(os.stat(path).st_mode)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {_why_absent(path, error)}; {remedy}") from error
    if kind is not None:
        raise UserError(f"{path}: is {kind} where a file is expected; {remedy}")
    return path


def open_file(path: str | os.PathLike[str], remedy: str = "check the path", largest: int | None = None) -> IO[bytes]:
    """Open a regular file for reading bytes, at most ``largest`` of them. Raises UserError as :func:`require_file`."""
    path = require_file(path, remedy)
    try:
        # should it have become a pipe since, the call does not wait for a writer
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    status = os.fstat(handle)
    kind = kind_of(status.st_mode)
    if kind is None and (largest is None or status.st_size <= largest):
        return os.fdopen(handle, "rb")
    os.close(handle)
    if kind is not None:
        raise UserError(f"{path}: is {kind} where a file is expected; {remedy}")
    raise UserError(f"{path}: has {status.st_size} bytes, more than such a file can have ({largest}); {remedy}")


def read_bytes(path: str | os.PathLike[str], remedy: str = "check the path", largest: int = LARGEST_TEXT) -> bytes:
    """The content of a regular file. Raises UserError as :func:`open_file`, also when reading fails."""
    with open_file(path, remedy, largest) as file:
        try:
            content = file.read(largest + 1)  # a file may grow while it is read
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); copy it again") from error
    if len(content) > largest:
        raise UserError(f"{path}: has more than {largest} bytes, which such a file cannot have; {remedy}")
    return content


def read_text(path: str | os.PathLike[str], remedy: str = "check the path", largest: int = LARGEST_TEXT) -> str:
    """The text of a UTF-8 file, see :func:`decoded`. Raises UserError as :func:`read_bytes` and for others."""
    try:
        return decoded(read_bytes(path, remedy, largest))
    except ValueError as error:
        raise UserError(f"{path}: is not text in UTF-8 ({error}); save it as UTF-8") from error


def decoded(content: bytes) -> str:
    """UTF-8 with or without the byte order mark that Windows' editors write; lines end in LF. Raises ValueError."""
    if content.startswith(_UTF_16) or b"\0" in content:
        raise ValueError("it is UTF-16, or no text")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} belongs to another encoding") from error


def _why_absent(path: Path, error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "is a link that leads in a circle"
    if isinstance(error, OSError) and error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EINVAL):
        return f"cannot be read ({error.strerror})"
    return "is a link that leads nowhere" if os.path.islink(path) else "no such file"
