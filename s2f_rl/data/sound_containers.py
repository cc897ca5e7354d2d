"""What the header of a sound file states of its samples, against the bytes that are there.

A decoder shortens a file whose end is missing without a word, so the chunks are walked here: RIFF, RIFX, RF64, BW64,
W64, AIFF, AIFC, CAF, AU and NIST SPHERE. Sources: EBU Tech 3306 (RF64), Apple's AIFF-C and CAF specifications,
libsndfile's W64.
"""

from __future__ import annotations

import io
import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from s2f_rl.data.splicing import SplicedFile
from s2f_rl.errors import UserError

_MOST_CHUNKS = 10000
_KNOWN = (b"data", b"fmt ", b"fact", b"LIST", b"JUNK", b"PAD ", b"bext", b"cue ", b"id3 ", b"ID3 ", b"COMM", b"SSND")
_W64 = bytes.fromhex("2e91cf11a5d628db04c10000")  # the end of "riff"; the other ids end in ..f3acd3118cd100c04f8edb8a
_W64_ID = bytes.fromhex("f3acd3118cd100c04f8edb8a")
_PLAIN_WAV = {1: None, 3: None, 6: 1, 7: 1}
"""Codings of WAV of a fixed number of bytes per sample: PCM, float, A-law, mu-law."""
_PLAIN_AIFC = {b"NONE": None, b"twos": None, b"sowt": None, b"raw ": 1, b"in24": 3, b"in32": 4, b"fl32": 4}
_PLAIN_AIFC |= {b"FL32": 4, b"fl64": 8, b"FL64": 8, b"ulaw": 1, b"ULAW": 1, b"alaw": 1, b"ALAW": 1}
_PLAIN_AU = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}


@dataclass(frozen=True)
class Layout:
    """Where the samples of a file lie.

    Attributes:
        rate, channels: in Hz, and how many, as the header states them.
        block: bytes of one sample of all channels; 0 where a coding packs samples.
        offset, n_bytes: the samples' place in the file.
        container: "wav", "w64", "aiff", "caf", "au" or "nist".
        is_mp3: whether those bytes are an MP3 file.
        header: what to put before those bytes to decode them, in a form that every decoder knows; empty where the
            file itself is to be decoded.
        notes: what is worth a warning, each "what; what to do".
    """

    rate: int
    channels: int
    block: int
    offset: int
    n_bytes: int
    container: str
    is_mp3: bool = False
    header: bytes = b""
    notes: tuple[str, ...] = ()

    @property
    def samples(self) -> int | None:
        """Samples per channel; None where only a decoder can tell."""
        return self.n_bytes // self.block if self.block else None


@dataclass(frozen=True)
class _Chunking:
    id_bytes: int
    size: str
    counts_header: bool = False
    align: int = 2


_RIFF, _RIFX = _Chunking(4, "<I"), _Chunking(4, ">I")
_CAF, _W64_CHUNKS = _Chunking(4, ">q", align=1), _Chunking(16, "<Q", counts_header=True, align=8)


def truncated(path: Path, present: int, stated: int, unit: str = "samples") -> UserError:
    """The error of a file that holds less than it says."""
    return UserError(f"{path}: truncated, {present} {unit} where its header states {stated}; copy it again")


def find_layout(path: Path, start: int = 0) -> Layout | None:
    """The samples of a file in one of the containers above, which begins at ``start``; None for any other file.

    A header that leaves the length open (a size of 0, of all ones, or just below 2 GB or 4 GB: what programs write
    that cannot go back) means the rest of the file.

    Raises:
        UserError: fewer samples than the header states, or a header that describes none.
    """
    with io.BufferedReader(SplicedFile(path, [(start, max(0, os.stat(path).st_size - start))])) as file:
        layout = _layout(path, file)
    return layout and replace(layout, offset=start + layout.offset)


def _layout(path: Path, file: BinaryIO) -> Layout | None:
    magic = file.read(40)
    end = file.seek(0, 2)
    try:
        if magic[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and magic[8:12] == b"WAVE":
            return _wav(path, file, 12, end, _RIFX if magic[:4] == b"RIFX" else _RIFF)
        if magic[:4] == b"riff" and magic[4:16] == _W64 and magic[24:28] == b"wave":
            return _wav(path, file, 40, end, _W64_CHUNKS)
        if magic[:4] == b"FORM" and magic[8:12] in (b"AIFF", b"AIFC"):
            return _aiff(path, file, end, magic[8:12])
        if magic[:4] == b"caff":
            return _caf(path, file, end)
        if magic[:4] in (b".snd", b"dns."):
            return _au(path, magic, end)
        if magic[:8] == b"NIST_1A\n":
            return _sphere(path, file, end)
    except struct.error:
        raise unreadable(path, "its header is cut short") from None
    return None


def unreadable(path: Path, why: str) -> UserError:
    """The error of a file that no decoder takes."""
    return UserError(f"{path}: cannot be read as sound ({why}); write it again as a WAV file")


def walk(file: BinaryIO, at: int, end: int, chunking: _Chunking = _RIFF) -> Iterator[tuple[bytes, int, int]]:
    """Chunks (id, offset of the body, stated size) from ``at`` on; the last may state more than the file holds."""
    head = chunking.id_bytes + struct.calcsize(chunking.size)
    for _ in range(_MOST_CHUNKS):
        if at + head > end:
            return
        file.seek(at)
        content = file.read(head)
        name = content[: chunking.id_bytes]
        if name[:4] == bytes(4):
            return
        size = struct.unpack_from(chunking.size, content, chunking.id_bytes)[0]
        size -= head if chunking.counts_header and size >= head else 0
        yield name, at + head, size
        at += head + max(0, size)
        if at > end:
            return
        file.seek(at)
        if file.read(4) not in _KNOWN:  # some programs forget to pad
            at += -at % chunking.align


def _length(size: int, present: int) -> tuple[int, str | None]:
    """Bytes of sound that a chunk of a stated size has to hold, and what to warn of."""
    if size <= present and size > 0:
        return size, None
    if size <= 0 or size == 0xFFFFFFFF or size >= 2**62:
        return present, None
    if 0x7F000000 <= size <= 0x80010000 or 0xFFFF0000 <= size < 2**32:
        return present, (
            f"its header states {size} bytes, as programs do that do not know the length: the {present} bytes that "
            "are there are taken for all; write it again if it should be longer"
        )
    return size, None


def _complete(path: Path, layout: Layout, present: int, note: str | None) -> Layout:
    if layout.channels < 1 or layout.rate < 1:
        raise unreadable(path, f"its header states {layout.channels} channels at {layout.rate} Hz")
    block = layout.block or 1
    if present // block < layout.n_bytes // block:
        raise truncated(path, present // block, layout.n_bytes // block, "samples" if layout.block else "bytes")
    return replace(layout, notes=layout.notes + ((note,) if note else ()))


def _wav(path: Path, file: BinaryIO, at: int, end: int, chunking: _Chunking) -> Layout:
    order = chunking.size[0]
    form, fact, found, long_size = b"", b"", None, None
    for name, body, size in walk(file, at, end, chunking):
        if chunking is _W64_CHUNKS and name[4:] != _W64_ID:
            continue
        if name[:4] in (b"fmt ", b"fact", b"ds64"):
            file.seek(body)
            content = file.read(min(size, 4096))
            if name[:4] == b"ds64":
                long_size = struct.unpack_from(order + "Q", content, 8)[0]
            elif name[:4] == b"fact":
                fact = content
            else:
                form = content
        elif name[:4] == b"data" and found is None:
            found = body, size
        if form and found:
            break
    if not form or found is None:
        raise unreadable(path, f"it has no {'sound' if form else 'format'} chunk")
    offset, size = found
    if size == 0xFFFFFFFF and long_size is not None:
        size = long_size
    present = end - offset
    if size == 0 and _only_chunks(file, offset, end, chunking):
        present = 0
    n_bytes, note = _length(size, present)
    tag, channels, rate, _, block, bits = struct.unpack_from(order + "HHIIHH", form)
    if tag == 0xFFFE and len(form) >= 26:
        tag = struct.unpack_from(order + "H", form, 24)[0]
        if tag in _PLAIN_WAV:  # the plain form of it says the same, and no decoder stumbles over it
            form = struct.pack(order + "H", tag) + form[2:16]
    if tag in _PLAIN_WAV and channels:
        least = channels * (_PLAIN_WAV[tag] or math.ceil(bits / 8))
        if block < least or block % channels:  # some programs leave it at 0
            block = least
            form = form[:8] + struct.pack(order + "IH", rate * block & 0xFFFFFFFF, block) + form[14:]
    else:
        block = 0
    note = note or _after(path, file, offset + n_bytes, end)
    layout = Layout(rate, channels, block, offset, n_bytes, "w64" if chunking is _W64_CHUNKS else "wav", tag == 0x55)
    return replace(
        _complete(path, layout, present, note), header=_wav_header(order, form, fact, n_bytes // (block or 1), n_bytes)
    )


def _wav_header(order: str, form: bytes, fact: bytes, samples: int, n_bytes: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return name + struct.pack(order + "I", len(content)) + content + bytes(len(content) % 2)

    body = chunk(b"fmt ", form) + (chunk(b"fact", fact) if fact else b"")
    if n_bytes + len(body) < 0xFFFFF000:
        whole = struct.pack(order + "I", 12 + len(body) + n_bytes)
        return (
            (b"RIFF" if order == "<" else b"RIFX")
            + whole
            + b"WAVE"
            + body
            + b"data"
            + struct.pack(order + "I", n_bytes)
        )
    sizes = struct.pack("<QQQI", 48 + len(body) + n_bytes, n_bytes, samples, 0)
    return b"RF64\xff\xff\xff\xffWAVE" + chunk(b"ds64", sizes) + body + b"data\xff\xff\xff\xff"


def _only_chunks(file: BinaryIO, at: int, end: int, chunking: _Chunking) -> bool:
    """Whether nothing but whole chunks follows, as after the empty sound of a file that is really empty."""
    last = at
    for name, body, size in walk(file, at, end, chunking):
        if not name[:4].isascii() or not name[:4].decode("ascii").isprintable():
            return False
        last = body + max(0, size)
    return last <= end < last + 8


def _after(path: Path, file: BinaryIO, at: int, end: int) -> str | None:
    """What to warn of when something else than chunks, tags and padding follows the sound."""
    file.seek(at)
    next_bytes = file.read(16)
    for start in (next_bytes, next_bytes[1:]):
        if start[:4] in (b"RIFF", b"RF64"):
            raise UserError(f"{path}: a second WAV file follows the first in it; join recordings with a sound program")
        name = start[:4]
        if not name.strip(b"\0") or (name.isascii() and name.decode("ascii").isprintable()):
            return None
    if end - at < 8:
        return None
    return f"{end - at} bytes follow the sound that its header states, and are not read; write it again"


def _aiff(path: Path, file: BinaryIO, end: int, kind: bytes) -> Layout:
    common, found = b"", None
    for name, body, size in walk(file, 12, end, _RIFX):
        file.seek(body)
        if name == b"COMM":
            common = file.read(min(size, 1024))
        elif name == b"SSND":
            inner = struct.unpack(">I", file.read(4))[0]
            found = body + 8 + inner, size - 8 - inner if size > 0 else 0
        if common and found:
            break
    if not common or found is None:
        raise unreadable(path, f"it has no {'sound' if common else 'format'} chunk")
    channels, frames, bits, exponent, mantissa = struct.unpack_from(">hIhHQ", common)
    rate = round(math.ldexp(mantissa, min(exponent & 0x7FFF, 16400) - 16383 - 63))
    coding = common[18:22] if kind == b"AIFC" else b"NONE"
    block = 0
    if coding in _PLAIN_AIFC:
        block = max(0, channels) * (_PLAIN_AIFC[coding] or math.ceil(bits / 8))
    offset, size = found
    present = max(0, end - offset)
    if size <= 0 and 0 < frames * block <= present:
        size = frames * block
    elif size <= 0 and _only_chunks(file, offset, end, _RIFX):
        present = 0
    n_bytes, note = _length(size, present)
    if block and n_bytes == size:  # the sound chunk may be padded, the number of samples is what counts
        present = min(present, n_bytes) if n_bytes <= present else present
        n_bytes = frames * block or n_bytes
    layout = _complete(path, Layout(rate, channels, block, offset, n_bytes, "aiff"), present, note)
    count = layout.samples if layout.samples is not None else frames
    common = common[:2] + struct.pack(">I", count) + common[6:]
    chunks = b"COMM" + struct.pack(">I", len(common)) + common + bytes(len(common) % 2)
    chunks += b"SSND" + struct.pack(">III", min(n_bytes + 8, 2**32 - 1), 0, 0)
    whole = struct.pack(">I", min(4 + len(chunks) + n_bytes, 2**32 - 1))
    return replace(layout, header=b"FORM" + whole + kind + chunks)


def _caf(path: Path, file: BinaryIO, end: int) -> Layout:
    description, found = b"", None
    for name, body, size in walk(file, 8, end, _CAF):
        if name == b"desc":
            file.seek(body)
            description = file.read(32)
        elif name == b"data":
            found = body + 4, size - 4 if size >= 4 else -1
            break
    if not description or found is None:
        raise unreadable(path, f"it has no {'sound' if description else 'format'} chunk")
    rate, coding, _, per_packet, in_packet, channels, _ = struct.unpack(">d4sIIIII", description)
    if not 0 < rate < 1e9:
        raise unreadable(path, f"its header states a rate of {rate} Hz")
    block = per_packet if coding in (b"lpcm", b"ulaw", b"alaw") and in_packet == 1 else 0
    offset, size = found
    n_bytes, note = _length(size, end - offset) if size else (0, None)
    layout = _complete(path, Layout(round(rate), channels, block, offset, n_bytes, "caf"), end - offset, note)
    if not block:
        return layout
    header = b"caff\0\1\0\0desc" + struct.pack(">q", 32) + description + b"data" + struct.pack(">qI", n_bytes + 4, 0)
    return replace(layout, header=header)


def _au(path: Path, head: bytes, end: int) -> Layout:
    order = ">" if head[:1] == b"." else "<"
    offset, size, coding, rate, channels = struct.unpack_from(order + "IIIII", head, 4)
    present = max(0, end - offset)
    n_bytes, note = _length(size, present)
    return _complete(
        path, Layout(rate, channels, _PLAIN_AU.get(coding, 0) * channels, offset, n_bytes, "au"), present, note
    )


def _sphere(path: Path, file: BinaryIO, end: int) -> Layout:
    file.seek(8)
    size = file.read(8).strip()
    offset = int(size) if size.isdigit() else 1024
    fields = dict(
        line.split(" -i ", 1) for line in file.read(min(offset, 65536)).decode("latin1").splitlines() if " -i " in line
    )
    try:
        count, rate = int(fields["sample_count"]), int(fields["sample_rate"])
        channels = int(fields.get("channel_count", 1))
        block = channels * int(fields.get("sample_n_bytes", 2))
    except (KeyError, ValueError):
        raise unreadable(path, "its header states no sample_count or sample_rate") from None
    return _complete(path, Layout(rate, channels, block, offset, count * block, "nist"), max(0, end - offset), None)
