"""MP3 files by their frames: without a Xing header, joined end to end, with tags in between, cut short."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from s2f_rl.data.audio import read_wav, wav_header
from s2f_rl.data.mp3_frames import mp3_parts, parse_frame, tag_bytes
from s2f_rl.errors import UserError
from tests.sounds import RATE_HZ, id3, speech

N = 20000


def mp3(rate: int = RATE_HZ, channels: int = 1, seed: int = 0) -> bytes:
    """A file with a Xing header, as LAME writes it: it states 20000 samples."""
    file = io.BytesIO()
    samples = np.stack([speech(N, seed)] * channels, axis=1)
    soundfile.write(file, samples, rate, format="MP3", subtype="MPEG_LAYER_III")
    return file.getvalue()


def frames(content: bytes) -> list[bytes]:
    """All frames of a file without tags, the Xing header among them."""
    found, at = [], 0
    while at < len(content):
        frame = parse_frame(int.from_bytes(content[at : at + 4], "big"))
        assert frame is not None
        found.append(content[at : at + frame.n_bytes])
        at += frame.n_bytes
    return found


def plain(content: bytes) -> bytes:
    """The same sound without the Xing header."""
    return b"".join(frames(content)[1:])


def decode(path: Path, content: bytes) -> np.ndarray:
    path.write_bytes(content)
    waveform, rate = read_wav(path)
    assert wav_header(path) == (len(waveform), rate)
    return waveform


@pytest.fixture()
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.mp3"


def test_headers_of_frames() -> None:
    """The arithmetic of ISO 11172-3, 2.4.3.1: 144 * bits per second / rate, and one more with padding."""
    found = parse_frame(0xFFFB90C4)  # version 1, 128 kbit/s, 44.1 kHz, mono
    assert found is not None
    assert (found.n_bytes, found.samples, found.rate, found.channels, found.side) == (417, 1152, 44100, 1, 21)
    padded, low = parse_frame(0xFFFB9244), parse_frame(0xFFF38844)
    assert padded is not None and (padded.n_bytes, padded.channels, padded.side) == (418, 2, 36)
    assert low is not None and (low.n_bytes, low.samples, low.rate, low.side) == (72 * 64000 // 16000, 576, 16000, 21)
    for word in (0xFFFB00C4, 0xFFFBF0C4, 0xFFFB9CC4, 0xFFFD90C4, 0xFFEB90C4, 0x7FFB90C4, 0xFFF990C4):
        assert parse_frame(word) is None  # free, bad bits, bad rate, layer 2, reserved version, no sync, reserved layer


def test_tags_are_measured() -> None:
    assert [tag_bytes(id3(n)[:32]) for n in (0, 300, 100_000)] == [10, 310, 100_010]
    assert tag_bytes(b"TAG" + bytes(29)) == 128 and tag_bytes(b"none") == 0
    ape = b"APETAGEX" + struct.pack("<IIIII", 2000, 100, 2, 5 << 29, 0)  # a header, not a footer
    assert tag_bytes(ape + bytes(8)) == 132


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_with_a_xing_header_the_encoders_padding_is_left_out(path: Path, rate: int, channels: int) -> None:
    content = mp3(rate, channels)
    waveform = decode(path, content)
    assert len(waveform) == N
    reference = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)[0].mean(axis=1)
    np.testing.assert_allclose(waveform, reference, atol=1e-6)
    np.testing.assert_allclose(decode(path, id3(2000) + content), waveform, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_without_a_header_every_frame_is_read(path: Path, rate: int, channels: int) -> None:
    """LAME puts 1105 samples before the sound (its delay of 576 and the decoder's of 529)."""
    content = mp3(rate, channels)
    waveform = decode(path, plain(content))
    per_frame = 576 if rate < 32000 else 1152
    assert len(waveform) == per_frame * (len(frames(content)) - 1)
    np.testing.assert_allclose(waveform[1105 : 1105 + N], decode(path, content), atol=1e-6)


def test_a_bit_rate_that_varies_does_not_mislead(path: Path) -> None:
    """A decoder that takes the first frame's bit rate for all would state a third of these, or three times as many."""
    from s2f_rl.data.mp3_frames import _BITS

    small = frames(mp3())[1:]
    word = int.from_bytes(small[0][:4], "big") & 0xFFFF0DFF | _BITS
    large = parse_frame(word)
    assert large is not None and large.n_bytes > 2 * len(small[3])
    silence = word.to_bytes(4, "big").ljust(large.n_bytes, b"\0")
    for content in (silence + b"".join(small), b"".join(small[:1]) + silence * len(small)):
        expected = 576 * ((1 + len(small)) if content.startswith(silence) else (len(small) + 1))
        assert len(decode(path, content)) == expected


@pytest.mark.parametrize("between", [b"", id3(700), b"TAG" + bytes(125), b"TAG" + bytes(125) + id3(5000), bytes(300)])
def test_files_joined_end_to_end(path: Path, between: bytes) -> None:
    first, second = mp3(seed=1), mp3(seed=2)
    one, two = decode(path, first), decode(path, second)
    np.testing.assert_allclose(decode(path, first + between + second), np.concatenate([one, two]), atol=1e-6)
    whole = decode(path, plain(first) + between + second)
    assert len(whole) == 576 * (len(frames(first)) - 1) + N
    np.testing.assert_allclose(whole[1105 : 1105 + N], one, atol=1e-6)
    np.testing.assert_allclose(whole[-N:], two, atol=1e-6)
    bare = decode(path, first + between + plain(second))
    np.testing.assert_allclose(bare[:N], one, atol=1e-6)
    assert len(bare) == N + 576 * (len(frames(second)) - 1)


def test_a_header_that_counts_itself(path: Path) -> None:
    """Its bytes say that all frames are there; the decoder is told how many there are."""
    content = bytearray(mp3())
    at = content.index(b"Xing") + 8
    content[at : at + 4] = (int.from_bytes(content[at : at + 4], "big") + 1).to_bytes(4, "big")
    np.testing.assert_allclose(decode(path, bytes(content)), decode(path, mp3()), atol=1e-6)


def test_mono_and_stereo_joined(path: Path) -> None:
    one, two = mp3(channels=1), mp3(channels=2)
    waveform = decode(path, one + two)
    np.testing.assert_allclose(waveform[:N], decode(path, one), atol=1e-6)
    np.testing.assert_allclose(waveform[N:], decode(path, two), atol=1e-6)


def test_rates_that_differ_are_refused(path: Path) -> None:
    path.write_bytes(mp3(16000) + mp3(44100))
    with pytest.raises(UserError, match="a.mp3: its parts have rates of 16000, 44100 Hz; export it as one WAV file"):
        read_wav(path)


def test_missing_frames_are_refused(path: Path) -> None:
    content = mp3()
    pieces = frames(content)
    n_frames = len(pieces) - 1
    for kept in (1, n_frames // 2, n_frames - 1):
        path.write_bytes(b"".join(pieces[: 1 + kept]))
        with pytest.raises(
            UserError, match=f"truncated, {576 * kept} samples where its header states {576 * n_frames}"
        ):
            wav_header(path)
    for whole in (content, plain(content)):
        for cut in (1, len(pieces[-1]) // 2, len(pieces[-1]) - 4):
            path.write_bytes(whole[:-cut])
            with pytest.raises(UserError, match=r"truncated, \d+ bytes of its last frame where its header states"):
                read_wav(path)


def test_what_is_no_frame_is_left_out(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = plain(mp3())
    waveform = decode(path, content)
    np.testing.assert_allclose(decode(path, content + bytes(999)), waveform, atol=1e-6)
    np.testing.assert_allclose(decode(path, bytes(999) + content), waveform, atol=1e-6)
    assert caplog.records == []
    pieces = frames(content)
    assert len(decode(path, b"".join(pieces[:9]) + b"rubbish" + b"".join(pieces[9:]))) == len(waveform)
    assert "7 bytes between its frames are no sound" in caplog.text


def test_the_name_does_not_matter(tmp_path: Path) -> None:
    for name in ("a.wav", "a", "a.MP3"):
        assert len(decode(tmp_path / name, mp3())) == N


@pytest.mark.parametrize("content", [b"", b"\xff" * 5000, bytes(5000), id3(100), b"text" * 100])
def test_no_frame_at_all(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.mp3: cannot be read as sound"):
        mp3_parts(path)
    with pytest.raises(UserError, match=r"a\.mp3: cannot be read as sound"):
        read_wav(path)
