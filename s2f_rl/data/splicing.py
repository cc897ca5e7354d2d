"""Pieces of a file, with other bytes before or between them, as one file to read."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TypeAlias

Piece: TypeAlias = "bytes | tuple[int, int]"
"""Bytes, or the (offset, length) of bytes in the file."""


def join(pieces: list[Piece], offset: int, length: int) -> None:
    """Add bytes of the file, in one piece with the last where they follow it."""
    last = pieces[-1] if pieces else b""
    if isinstance(last, tuple) and sum(last) == offset:
        pieces[-1] = last[0], last[1] + length
    else:
        pieces.append((offset, length))


class SplicedFile(io.RawIOBase):
    """A readable, seekable file made of pieces of another; nothing is copied before it is read.

    Args:
        path: the file that (offset, length) pieces are of.
        pieces: in their order.
    """

    def __init__(self, path: str | os.PathLike[str], pieces: list[Piece]) -> None:
        super().__init__()
        self._file = open(Path(path), "rb", buffering=0)  # noqa: SIM115
        self._pieces, self._starts, self._at = pieces, [0], 0
        for piece in pieces:
            self._starts.append(self._starts[-1] + (len(piece) if isinstance(piece, bytes) else piece[1]))

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of any file."""
        self._at = max(0, offset + (0, self._at, self._starts[-1])[whence])
        return self._at

    def tell(self) -> int:
        """As of any file."""
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill a buffer as far as the pieces reach; returns the number of bytes."""
        view = memoryview(buffer).cast("B")
        filled = 0
        for piece, start, end in zip(self._pieces, self._starts, self._starts[1:], strict=False):
            if not start <= self._at < end or filled == len(view):
                continue
            wanted = min(end - self._at, len(view) - filled)
            if isinstance(piece, bytes):
                found = piece[self._at - start : self._at - start + wanted]
            else:
                self._file.seek(piece[0] + self._at - start)
                found = self._file.read(wanted) or b""
            view[filled : filled + len(found)] = found
            filled, self._at = filled + len(found), self._at + len(found)
            if len(found) < wanted:
                break
        return filled

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
