"""Sound files byte by byte, as programs write them and as accidents leave them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from s2f_rl.data.audio import read_wav, wav_header
from s2f_rl.errors import UserError

RATE_HZ = 16000


def speech(n: int, seed: int = 0) -> np.ndarray:
    """16-bit samples [n] of a wavering tone with some noise."""
    t = np.arange(n) / RATE_HZ
    wave = np.sin(2 * np.pi * 170 * t) * (1.2 + np.sin(9 * t)) / 3 + 0.02 * np.random.default_rng(seed).normal(size=n)
    return np.clip(16000 * wave, -32768, 32767).astype(np.int16)


def chunk(name: bytes, content: bytes, size: int | None = None, order: str = "<", pad: bool = True) -> bytes:
    """A chunk of RIFF or AIFF; ``size`` where the header is to state another."""
    stated = struct.pack(order + "I", len(content) if size is None else size)
    return name + stated + content + (bytes(len(content) % 2) if pad else b"")


def form(channels: int = 1, rate: int = RATE_HZ, bits: int = 16, tag: int = 1, block: int | None = None) -> bytes:
    """Content of a format chunk."""
    block = channels * bits // 8 if block is None else block
    return struct.pack("<HHIIHH", tag, channels, rate, rate * block & 0xFFFFFFFF, block, bits)


def wav(
    data: bytes,
    size: int | None = None,
    riff: int | None = None,
    fmt: bytes | None = None,
    before: bytes = b"",
    after: bytes = b"",
    pad: bool = True,
) -> bytes:
    """A WAV file; ``size`` and ``riff`` where its data chunk and the whole are to state others."""
    body = b"WAVE" + chunk(b"fmt ", form() if fmt is None else fmt) + before
    body += chunk(b"data", data, size, pad=pad) + after
    return b"RIFF" + struct.pack("<I", len(body) if riff is None else riff) + body


def aiff(data: bytes, frames: int, size: int | None = None, bits: int = 16, after: bytes = b"") -> bytes:
    """An AIFF file of mono big-endian samples at 16 kHz."""
    common = struct.pack(">hIhHQ", 1, frames, bits, 16383 + 13, RATE_HZ << 50)
    sound = struct.pack(">II", 0, 0) + data
    body = b"AIFF" + chunk(b"COMM", common, order=">") + chunk(b"SSND", sound, size, order=">") + after
    return b"FORM" + struct.pack(">I", len(body)) + body


def rf64(data: bytes, size: int | None = None) -> bytes:
    """An RF64 file, whose ds64 chunk states the size."""
    stated = len(data) if size is None else size
    sizes = struct.pack("<QQQI", min(72 + stated, 2**64 - 1), stated, stated // 2, 0)
    body = b"WAVE" + chunk(b"ds64", sizes) + chunk(b"fmt ", form()) + b"data\xff\xff\xff\xff" + data
    return b"RF64\xff\xff\xff\xff" + body


def id3(n: int) -> bytes:
    """An ID3v2 tag of ``n`` bytes and its header."""
    return b"ID3\x04\x00\x00" + bytes([n >> 21 & 127, n >> 14 & 127, n >> 7 & 127, n & 127]) + bytes(n)


def refusal(path: Path, content: bytes | None = None) -> str:
    """The one line, without the file's name, with which header and reader refuse a file (holding ``content``)."""
    if content is not None:
        path.write_bytes(content)
    lines = []
    for look in (wav_header, read_wav):
        with pytest.raises(UserError) as caught:
            look(path)
        lines.append(str(caught.value))
    assert lines[0] == lines[1] and lines[0].startswith(f"{path}: ") and "\n" not in lines[0]
    return lines[0].removeprefix(f"{path}: ")
