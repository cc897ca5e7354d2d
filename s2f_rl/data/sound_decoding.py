"""One door to every sound file: what it is by its first bytes, how long, and its samples in blocks.

libsndfile decodes what it knows, fed with headers that state the true length; PyAV (the ``render`` extra) the rest.
Files are told by their content, never by probing: a decoder that guesses may take a playlist for sound, and open what
it names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s2f_rl.data.files import require_file
from s2f_rl.data.mp3_frames import mp3_parts, parse_frame, tag_bytes
from s2f_rl.data.sound_containers import Layout, find_layout, truncated, unreadable
from s2f_rl.data.sound_packets import CHECKS, flac_samples, ogg_links
from s2f_rl.data.splicing import Piece, SplicedFile
from s2f_rl.errors import UserError

if TYPE_CHECKING:
    from av import AudioFrame

RATES_HZ = (4000, 384000)
"""Sample rates that are read."""
MOST_CHANNELS = 256
MOST_SAMPLES = 2**30
"""Longest sound that is read, samples per channel: 6 hours at 48 kHz, 4 GB of memory."""
_UNMEASURED = "its format is one whose length is not checked; write it as a WAV file if some is missing"
_BLOCK = 1 << 12
_EXTRA = 'pip install "s2f_rl[render]"'
_ERRORS = (RuntimeError, OSError, ValueError, TypeError, MemoryError)  # soundfile's own errors are RuntimeErrors


@dataclass(frozen=True)
class Sound:
    """A sound file that was looked into.

    Attributes:
        path: the file.
        rate, channels: in Hz, and how many.
        samples: per channel; None where only decoding tells.
        decode: gives the samples from the start, float32 [n, channels] at a time.
        notes: what is worth a warning, each "what; what to do".
    """

    path: Path
    rate: int
    channels: int
    samples: int | None
    decode: Callable[[], Iterator[np.ndarray]]
    notes: tuple[str, ...] = ()

    def blocks(self) -> Iterator[np.ndarray]:
        """The samples, float32 [n, channels] at a time. Raises UserError where they end before they should."""
        count = 0
        try:
            for block in self.decode():
                count += len(block)
                if count > MOST_SAMPLES:
                    raise _too_long(self.path)
                yield block
        except UserError:
            raise
        except _ERRORS as error:
            if self.samples is None or not count:
                raise unreadable(self.path, _short(error)) from error
        if self.samples is not None and count != self.samples:
            raise truncated(self.path, count, self.samples)

    def count(self) -> int:
        """Samples per channel, decoded once where the file does not state them."""
        if self.samples is not None:
            return self.samples
        stat = os.stat(self.path)
        return _decoded(self.path, stat.st_size, stat.st_mtime_ns)


def open_sound(path: str | os.PathLike[str]) -> Sound:
    """Look into a sound file.

    WAV (and RF64, W64), AIFF, CAF, AU, Ogg and MP3 are measured by their own counts of bytes, pages and frames, FLAC by
    its own count of samples and whether the last can be decoded; MP4, WebM and what else PyAV reads by their packets.

    Raises:
        UserError: missing, a folder, truncated, no readable sound, longer than :data:`MOST_SAMPLES`, or a rate outside
            :data:`RATES_HZ`.
    """
    path = require_file(path)
    try:
        sound = _open(path)
    except (*_ERRORS, EOFError) as error:
        if isinstance(error, UserError):
            raise
        raise unreadable(path, _short(error)) from error
    if not RATES_HZ[0] <= sound.rate <= RATES_HZ[1]:
        raise UserError(
            f"{path}: has a sample rate of {sound.rate} Hz; {RATES_HZ[0]} to {RATES_HZ[1]} Hz are read, export it again"
        )
    if sound.channels > MOST_CHANNELS:
        raise UserError(f"{path}: has {sound.channels} channels; at most {MOST_CHANNELS} are read, export it in mono")
    if sound.samples is not None and sound.samples > MOST_SAMPLES:
        raise _too_long(path)
    return sound


def _open(path: Path) -> Sound:
    with open(path, "rb") as file:
        offset = 0
        head = file.read(64)
        while head[:3] == b"ID3" and tag_bytes(head):
            offset += tag_bytes(head)
            file.seek(offset)
            head = file.read(64)
    layout = find_layout(path, offset)
    if layout is not None:
        return _chunked(path, layout, offset)
    if head[:4] == b"fLaC":
        return _flac(path, offset)
    if head[:4] == b"OggS":
        links, notes = ogg_links(path)
        try:
            return _by_libsndfile(path, [([link], None) for link in links], notes)
        except RuntimeError:  # a film, or a coding that libsndfile has not
            return _by_pyav(path, "ogg", notes)
    demuxer = _demuxer(head)
    if demuxer in CHECKS:
        CHECKS[demuxer](path)
    is_frame = parse_frame(int.from_bytes(head[:4], "big")) is not None
    if is_frame or (demuxer is None and (path.suffix.lower() == ".mp3" or (offset and not head.strip(b"\0")))):
        return _mp3(path)
    if demuxer:
        return _by_pyav(path, demuxer, () if demuxer in {*CHECKS, "aac"} else (_UNMEASURED,))
    return _by_libsndfile(path, [([(0, _size(path))], None)], (_UNMEASURED,))


def _demuxer(head: bytes) -> str | None:
    """PyAV's name for a container by its first bytes; None for one that is not handed to it."""
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    marks = {
        b"\x1aE\xdf\xa3": "matroska",
        b"0&\xb2u": "asf",
        b"FLV\x01": "flv",
        b"#!AMR": "amr",
        b"ADIF": "aac",
        b"\x0bw": "ac3",
    }
    for mark, name in marks.items():
        if head.startswith(mark):
            return name
    if len(head) > 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[2] & 0xF0 != 0xF0:
        return "mp3" if head[1] & 6 else "aac"  # of what mp3_parts does not take: MPEG audio of layers 1 and 2
    return None


def _chunked(path: Path, layout: Layout, start: int) -> Sound:
    """A file (from ``start`` on) whose samples were found; if plain, they are counted before a decoder sees them."""
    pieces: list[Piece] = [(start, _size(path) - start)]
    if layout.header:
        pieces = [layout.header, (layout.offset, layout.n_bytes)]
    if layout.is_mp3:
        return _mp3(path, layout.offset, layout.n_bytes)
    if layout.samples is None:
        try:
            return _by_libsndfile(path, [(pieces, None)], layout.notes)
        except RuntimeError:  # such as AAC in a CAF
            return _by_pyav(path, layout.container, layout.notes)

    def decode() -> Iterator[np.ndarray]:
        if not layout.samples:
            return iter(())
        sound = _by_libsndfile(path, [(pieces, None)], ())
        stated = (layout.samples, layout.channels, layout.rate)
        found = (sound.samples, sound.channels, sound.rate)
        if found != stated:
            raise unreadable(path, f"its (samples, channels, rate) are {stated}, and {found} to the decoder")
        return sound.decode()

    return Sound(path, layout.rate, layout.channels, layout.samples, decode, layout.notes)


def _by_libsndfile(path: Path, parts: list[tuple[list[Piece], int | None]], notes: tuple[str, ...]) -> Sound:
    """Parts one after another; where a number of samples is given, those before the last so many are left out."""
    import soundfile

    total, rate, channels, skips = 0, 0, 0, []
    for pieces, samples in parts:
        with SplicedFile(path, pieces) as spliced, soundfile.SoundFile(spliced) as file:
            skips.append(0 if samples is None else file.frames - samples)
            total += file.frames - skips[-1]
            rate, channels = rate or file.samplerate, max(channels, file.channels)
            if file.samplerate != rate:
                raise UserError(
                    f"{path}: its parts have rates of {rate} and {file.samplerate} Hz; export it as one file"
                )

    class Forward(soundfile.SoundFile):  # after each read soundfile seeks to where it is, and codecs start anew there
        def seekable(self) -> bool:
            return False

    def decode() -> Iterator[np.ndarray]:
        for (pieces, _), skip in zip(parts, skips, strict=True):
            with SplicedFile(path, pieces) as spliced, Forward(spliced) as file:
                left = file.frames  # never more: what follows the sound may be no sound
                while len(block := file.read(min(_BLOCK, left), dtype="float32", always_2d=True)):
                    left -= len(block)
                    block, skip = block[skip:], max(0, skip - len(block))
                    yield np.broadcast_to(block, (len(block), channels)) if block.shape[1] == 1 else block

    return Sound(path, int(rate), int(channels), total, decode, notes)


def _mp3(path: Path, offset: int = 0, n_bytes: int = -1) -> Sound:
    parts, notes = mp3_parts(path, offset, n_bytes)
    return _by_libsndfile(path, [(part.file_pieces(), part.samples) for part in parts], notes)


def _flac(path: Path, offset: int) -> Sound:
    import soundfile

    samples = flac_samples(path, offset)
    if samples is None:  # streamed: libsndfile reads none of it
        return _by_pyav(path, "flac")
    pieces: list[Piece] = [(offset, _size(path) - offset)]
    sound = _by_libsndfile(path, [(pieces, None)], ())
    with SplicedFile(path, pieces) as spliced, soundfile.SoundFile(spliced) as file:
        with suppress(*_ERRORS):
            file.seek(samples - 1)
            if len(file.read(1)) == 1:
                return sound
    present = 0
    with suppress(*_ERRORS):
        for block in sound.decode():
            present += len(block)
    raise truncated(path, present, samples)


def _by_pyav(path: Path, demuxer: str, notes: tuple[str, ...] = ()) -> Sound:
    try:
        import av
    except ImportError as error:
        raise UserError(
            f"{path}: reading {demuxer} needs PyAV ({error}); run: {_EXTRA}, or write it as a WAV file"
        ) from error

    def decode() -> Iterator[np.ndarray]:
        resampler: Any = None
        form: tuple[object, ...] = ()
        first: tuple[str, int] | None = None
        n_packets = 0
        try:
            with av.open(str(path), format=demuxer) as container:
                if not container.streams.audio:
                    raise UserError(f"{path}: holds no sound; give a recording with sound")
                stream = container.streams.audio[0]
                for packet in container.demux(stream):
                    if packet.is_corrupt:
                        raise unreadable(path, f"truncated in its packet {n_packets + 1}")
                    n_packets += packet.size > 0
                    for frame in packet.decode():
                        first = first or (frame.layout.name, frame.sample_rate)
                        if form != (frame.format.name, frame.layout.name, frame.sample_rate):
                            if resampler is not None:
                                yield from _planes(resampler.resample(None))
                            form = frame.format.name, frame.layout.name, frame.sample_rate
                            resampler = av.AudioResampler(format="fltp", layout=first[0], rate=first[1])
                        yield from _planes(resampler.resample(frame))
                if resampler is not None:
                    yield from _planes(resampler.resample(None))
                # of PCM a container counts the samples, and its check has seen to it that they are there
                if n_packets < stream.frames and not stream.codec_context.name.startswith("pcm_"):
                    raise truncated(path, n_packets, stream.frames, "packets")
        except (av.error.FFmpegError, IndexError) as error:
            raise unreadable(path, f"damaged or truncated, {_short(error)}") from error

    def form() -> tuple[int, int]:
        try:
            with av.open(str(path), format=demuxer) as container:
                for frame in container.decode(audio=0) if container.streams.audio else ():
                    return frame.sample_rate, len(frame.layout.channels)
        except (av.error.FFmpegError, IndexError) as error:
            raise unreadable(path, f"damaged or truncated, {_short(error)}") from error
        raise UserError(f"{path}: holds no sound; give a recording with sound")

    return Sound(path, *form(), None, decode, notes)


def _planes(frames: list[AudioFrame]) -> Iterator[np.ndarray]:
    for frame in frames:
        yield np.ascontiguousarray(frame.to_ndarray().T)


@lru_cache(maxsize=4096)
def _decoded(path: Path, size: int, modified_ns: int) -> int:
    return sum(map(len, open_sound(path).blocks()))


def _size(path: Path) -> int:
    return os.stat(path).st_size


def _too_long(path: Path) -> UserError:
    return UserError(f"{path}: longer than {MOST_SAMPLES} samples (6 hours at 48 kHz); cut it into pieces")


def _short(error: BaseException) -> str:
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return " ".join(text.split())[:160] or type(error).__name__
