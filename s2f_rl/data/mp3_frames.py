"""The frames of MP3 files, counted without decoding them.

A decoder guesses the length of an MP3 file without a Xing header, and of files joined end to end it may read the first
alone. So the frames are walked here, and every part is decoded as a file of its own that states its length. Sources:
ISO 11172-3 and 13818-3 (frame headers), the descriptions of the Xing, LAME, VBRI and ID3v2.4 tags.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from s2f_rl.data.sound_containers import truncated, unreadable
from s2f_rl.data.splicing import Piece, join
from s2f_rl.errors import UserError

_KBITS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_KIND = 0xFFFE0C00  # sync, version, layer and sampling rate: equal in all frames of a part
_NO_CRC, _PLAIN, _BITS = 0x10000, 0xFFFF0DFF, 0x9000
_MOST_ATTEMPTS = 1 << 20
_CANDIDATE = re.compile(rb"\xff|ID3|TAG|APETAGEX")


@dataclass(frozen=True)
class Frame:
    """A frame by its header: bytes and samples in it, Hz, channels, and where its side information ends."""

    word: int
    n_bytes: int
    samples: int
    rate: int
    channels: int
    side: int


@dataclass
class Mp3Part:
    """Frames that are decoded together.

    Attributes:
        first: its first frame.
        n_frames: those that hold sound.
        stated: (frames, bytes) of its Xing or VBRI header; None where it says nothing of one.
        info: the frame with the Xing header; empty without.
        pieces: (offset, length) of the frames in the file.
    """

    first: Frame
    info: bytes = b""
    stated: tuple[int | None, int | None] = (None, None)
    n_frames: int = 0
    n_bytes: int = 0
    pieces: list[Piece] = field(default_factory=list)

    @property
    def samples(self) -> int | None:
        """Samples per channel; None where a Xing header may have the decoder leave out the encoder's padding."""
        return None if self.info else self.n_frames * self.first.samples

    def file_pieces(self) -> list[Piece]:
        """A whole MP3 file of this part: one that states how many frames it has.

        Without a Xing header of its own it gets one, and a frame of silence before the sound: decoders leave out their
        delay of 529 samples when they find such a header, and only then.
        """
        if self.info:
            at = self.first.side
            return [self.info[: at + 8] + struct.pack(">I", self.n_frames) + self.info[at + 12 :], *self.pieces]
        word = (self.first.word | _NO_CRC) & _PLAIN | _BITS
        silence = parse_frame(word)
        assert silence is not None
        empty = struct.pack(">I", word)
        header = empty.ljust(silence.side, b"\0") + b"Info" + struct.pack(">II", 1, self.n_frames + 1)
        return [header.ljust(silence.n_bytes, b"\0") + empty.ljust(silence.n_bytes, b"\0"), *self.pieces]


def parse_frame(word: int) -> Frame | None:
    """A frame by its first 32 bits; None where they are no header of layer 3, or one of free format."""
    version, layer, bits, rate = (word >> 19) & 3, (word >> 17) & 3, (word >> 12) & 15, (word >> 10) & 3
    if word >> 21 != 0x7FF or version == 1 or layer != 1 or bits in (0, 15) or rate == 3:
        return None
    first, hz, channels = version == 3, _RATES[version][rate], 1 if (word >> 6) & 3 == 3 else 2
    n_bytes = (144000 if first else 72000) * _KBITS[first][bits] // hz + ((word >> 9) & 1)
    side = 4 + (17 if first == (channels == 1) else 32 if first else 9)
    return Frame(word, n_bytes, 1152 if first else 576, hz, channels, side)


def tag_bytes(content: bytes) -> int:
    """Length of the tag (ID3 or APE) that starts here; 0 for none."""
    if content[:3] == b"ID3" and len(content) >= 10 and max(content[6:10]) < 128:
        a, b, c, d = content[6:10]
        return 10 + (a << 21 | b << 14 | c << 7 | d) + (10 if content[5] & 16 else 0)
    if content[:8] == b"APETAGEX" and len(content) >= 32:
        size, _, flags = struct.unpack_from("<III", content, 12)
        return 32 + size if flags & 1 << 29 else 32
    return 128 if content[:3] == b"TAG" else 0


def mp3_parts(path: Path, offset: int = 0, n_bytes: int = -1) -> tuple[list[Mp3Part], tuple[str, ...]]:
    """The parts of an MP3 file, or of one in the bytes (offset, n_bytes) of another, and what to warn of.

    A part begins at the start, after a tag, at a Xing header, and where rate or channels change. Padding, tags and what
    else is no frame are left out.

    Raises:
        UserError: no frames; the last one, or some that a header states, are missing; parts of different rates.
    """
    with open(path, "rb") as file:
        file.seek(offset)
        content = file.read(n_bytes)
    parts: list[Mp3Part] = []
    end = junk = 0
    for at, frame in _frames(path, content):
        if parts and not tag_bytes(content[end : end + 32]):
            junk += len(content[end:at].strip(b"\0"))
        kind, stated = _header_tag(content[at : at + frame.n_bytes], frame)
        last = parts[-1] if parts else None
        full = last is not None and last.stated[0] is not None and 0 < last.stated[0] <= last.n_frames
        if (
            last is None
            or kind
            or at > end
            or full
            or (frame.word ^ last.first.word) & _KIND
            or (frame.channels != last.first.channels)
        ):
            last = Mp3Part(frame, stated=stated)
            parts.append(last)
        if kind in ("Xing", "Info") and stated[0] is not None:
            last.info = content[at : at + frame.n_bytes]
        elif not kind:
            last.n_frames += 1
            join(last.pieces, offset + at, frame.n_bytes)
        last.n_bytes += frame.n_bytes
        end = at + frame.n_bytes
    parts = [part for part in parts if part.n_frames or part.stated[0]]
    if not parts:
        raise unreadable(path, "no frame of MP3 in it")
    n_samples = sum(part.n_frames * part.first.samples for part in parts)
    missing = 0
    for part in parts:
        frames, whole = part.stated
        if frames is not None and part.n_frames < frames and (whole is None or part.n_bytes < whole):
            missing += (frames - part.n_frames) * part.first.samples
    if missing:
        raise truncated(path, n_samples, n_samples + missing)
    rates = sorted({part.first.rate for part in parts})
    if len(rates) > 1:
        raise UserError(f"{path}: its parts have rates of {', '.join(map(str, rates))} Hz; export it as one WAV file")
    return parts, (f"{junk} bytes between its frames are no sound; export it again if some is missing",) if junk else ()


def _frames(path: Path, content: bytes) -> Iterator[tuple[int, Frame]]:
    """Frames and their offsets. Where frames do not follow each other, one counts only if another follows it."""
    at, attempts = 0, 0
    before: Frame | None = None
    while at < len(content):
        skip = tag_bytes(content[at : at + 32])
        if skip:
            at, before = at + skip, None
            continue
        frame = parse_frame(int.from_bytes(content[at : at + 4], "big")) if at + 4 <= len(content) else None
        if frame is not None:
            same = before is not None and not (frame.word ^ before.word) & _KIND
            if same and at + frame.n_bytes > len(content):
                raise truncated(path, len(content) - at, frame.n_bytes, "bytes of its last frame")
            if same or _followed(content, at + frame.n_bytes, frame):
                yield at, frame
                at, before = at + frame.n_bytes, frame
                continue
        found = _CANDIDATE.search(content, at + 1)
        before, attempts = None, attempts + 1
        if found is None or attempts > _MOST_ATTEMPTS:
            return
        at = found.start()


def _followed(content: bytes, at: int, frame: Frame) -> bool:
    if at == len(content) or tag_bytes(content[at : at + 32]):
        return True
    after = parse_frame(int.from_bytes(content[at : at + 4], "big")) if at + 4 <= len(content) else None
    return after is not None and not (after.word ^ frame.word) & _KIND


def _header_tag(content: bytes, frame: Frame) -> tuple[str, tuple[int | None, int | None]]:
    """Kind of a frame that holds no sound but a header ("" for sound), and the (frames, bytes) that it states."""
    name = content[frame.side : frame.side + 4]
    if name in (b"Xing", b"Info") and len(content) >= frame.side + 16:
        flags, first, second = struct.unpack_from(">III", content, frame.side + 4)
        frames = first if flags & 1 else None
        n_bytes = (second if flags & 1 else first) if flags & 2 else None
        return name.decode(), (frames, n_bytes)
    if content[36:40] == b"VBRI" and len(content) >= 54:
        n_bytes, frames = struct.unpack_from(">II", content, 46)
        return "VBRI", (frames, n_bytes)
    return "", (None, None)
