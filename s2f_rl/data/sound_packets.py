"""What Ogg, MP4, Matroska, AVI, FLV and FLAC files state of their length, against the bytes that are there.

Sources: RFC 3533 (Ogg), ISO 14496-12 (MP4), RFC 8794 (EBML), RFC 9639 (FLAC).
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from s2f_rl.data.sound_containers import truncated, unreadable, walk
from s2f_rl.errors import UserError

_FIRST, _LAST = 2, 4
_SEGMENT = 0x18538067
_MIRRORED = bytes(int(f"{k:08b}"[::-1], 2) for k in range(256))


def flac_samples(path: Path, offset: int) -> int | None:
    """Samples per channel that STREAMINFO states, of a FLAC stream at ``offset``; None where it leaves them open."""
    with open(path, "rb") as file:
        file.seek(offset)
        head = file.read(26)
    if len(head) < 26 or head[4] & 127:
        raise unreadable(path, "its header is cut short")
    return int.from_bytes(head[21:26], "big") & (1 << 36) - 1 or None


def ogg_links(path: Path) -> tuple[list[tuple[int, int]], tuple[str, ...]]:
    """The streams that follow each other in an Ogg file, each (offset, length), and what to warn of.

    Raises:
        UserError: the last page is cut short, a page is damaged, or one is missing between others.
    """
    starts: list[int] = []
    before: dict[bytes, tuple[int, bytes]] = {}  # of each stream, its last page's number and position
    flags, at = _LAST, 0
    with open(path, "rb") as file:
        end = file.seek(0, 2)
        while at < end:
            file.seek(at)
            head = file.read(27)
            sizes = file.read(head[26]) if len(head) == 27 else b""
            length = 27 + len(sizes) + sum(sizes)
            if head[:4] != b"OggS"[: len(head)]:
                if not flags & _LAST:
                    raise _damaged(path, at)
                at = _next_page(file, at, end)
                continue
            if at + length > end or len(head) < 27 or len(sizes) < head[26]:
                raise truncated(path, end - at, max(length, 28), "bytes of its last page")
            if not _is_sound(head + sizes + file.read(sum(sizes))):
                raise _damaged(path, at)
            position, stream, number = head[6:14], head[14:18], int.from_bytes(head[18:22], "little")
            last, reached = before.get(stream, (number - 1, b""))
            # a stream that was joined on its way goes on at any number behind its headers, whose position is 0
            if not head[5] & _FIRST and number != last + 1 and reached != bytes(8):
                raise UserError(f"{path}: its pages {last + 1} to {number - 1} are missing; copy it again")
            before[stream] = number, position
            if head[5] & _FIRST and (not starts or not flags & _FIRST):
                starts.append(at)
            flags, at = head[5], at + length
    if not starts:
        raise unreadable(path, "no stream begins in it")
    notes = () if flags & _LAST else ("its stream has no end; copy it again if some is missing",)
    return [(a, b - a) for a, b in zip(starts, [*starts[1:], end], strict=True)], notes


def _is_sound(page: bytes) -> bool:
    """Whether a page has the CRC that it states: zlib's polynomial with the bits of each byte the other way round."""
    mirrored = (page[:22] + bytes(4) + page[26:]).translate(_MIRRORED)
    return zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF == int.from_bytes(page[22:26].translate(_MIRRORED), "big")


def _damaged(path: Path, at: int) -> UserError:
    return UserError(f"{path}: damaged, its Ogg page at byte {at} is not what was written; copy it again")


def _next_page(file: BinaryIO, at: int, end: int) -> int:
    while at < end:
        file.seek(at + 1)
        block = file.read(1 << 16)
        found = block.find(b"OggS")
        if found >= 0:
            return at + 1 + found
        at += max(1, len(block) - 3)
    return end


def check_boxes(path: Path) -> None:
    """Raise UserError when a box of an MP4 file reaches beyond the file's end."""
    with open(path, "rb") as file:
        end, at = file.seek(0, 2), 0
        while at + 8 <= end:
            file.seek(at)
            size, _, long_size = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
            size = {0: end - at, 1: long_size}.get(size, size)
            if at + size > end:
                raise truncated(path, end, at + size, "bytes")
            at += max(8, size)


def check_segment(path: Path) -> None:
    """Raise UserError when the segment of a Matroska or WebM file, if it states its length, is longer than the file."""
    with open(path, "rb") as file:
        end, at = file.seek(0, 2), 0
        while at < end:
            file.seek(at)
            head = file.read(12)
            name, used = _vint(head, keep_marker=True)
            size, more = _vint(head[used:])
            if size is None or name is None:  # as live streams write it: up to the end
                return
            at += used + more + size
            if at > end and name == _SEGMENT:
                raise truncated(path, end, at, "bytes")


def _vint(content: bytes, keep_marker: bool = False) -> tuple[int | None, int]:
    """A number of EBML and its length in bytes; None where it is left open or there is none."""
    if not content or not content[0]:
        return None, 1
    length = 9 - content[0].bit_length()
    value = int.from_bytes(content[:length], "big")
    if keep_marker:
        return value, length
    value &= (1 << 7 * length) - 1
    return None if value == (1 << 7 * length) - 1 else value, length


def check_riff(path: Path) -> None:
    """Raise UserError when the list of frames of an AVI file is longer than the file."""
    with open(path, "rb") as file:
        end = file.seek(0, 2)
        for name, body, size in walk(file, 12, end):
            if name == b"LIST" and body + size > end:
                raise truncated(path, end, body + size, "bytes")


def check_flv(path: Path) -> None:
    """Raise UserError when the last tag of an FLV file is cut short."""
    with open(path, "rb") as file:
        end, at = file.seek(0, 2), 13
        while at < end:
            file.seek(at)
            length = 11 + int.from_bytes(file.read(4)[1:], "big")
            if at + length > end:
                raise truncated(path, end, at + length, "bytes")
            at += length + 4


CHECKS = {"mov": check_boxes, "matroska": check_segment, "avi": check_riff, "flv": check_flv}
"""What is looked at before PyAV decodes: its name of the format, and the check."""
