"""Lengths of sound files by their own byte counts: half a file is refused, an open length is the rest of the file."""

from __future__ import annotations

import logging
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from s2f_rl.data.audio import read_wav, wav_header
from s2f_rl.errors import UserError
from tests.sounds import RATE_HZ, aiff, chunk, form, id3, refusal, rf64, speech, wav

SAMPLES = speech(2000)
DATA = SAMPLES.tobytes()
WAVEFORM = (SAMPLES / 32768).astype(np.float32)


@pytest.fixture()
def read(tmp_path: Path):
    """``read(bytes)``: waveform, after a look at the header that must say the same."""

    def read(content: bytes, name: str = "a.wav") -> np.ndarray:
        path = tmp_path / name
        path.write_bytes(content)
        waveform, rate = read_wav(path)
        assert wav_header(path) == (len(waveform), rate) == (len(waveform), RATE_HZ)
        return waveform

    return read


GUID = bytes.fromhex("000000001000800000aa00389b71")
EXTRA = chunk(b"LIST", b"INFOISFT\x05\0\0\0abcde\0")
WHOLE = {
    "plain": wav(DATA),
    "chunks before and after": wav(DATA, before=EXTRA + chunk(b"JUNK", b"odd"), after=EXTRA),
    "odd chunks without padding": wav(DATA, before=chunk(b"JUNK", b"odd", pad=False)),
    "wrong size of the whole": wav(DATA, riff=7, after=EXTRA),
    "no size of the whole": wav(DATA, riff=0),
    "zeros behind": wav(DATA) + bytes(5000),
    "block size left out": wav(DATA, fmt=form(block=0)),
    "extensible": wav(DATA, fmt=form(tag=0xFFFE) + struct.pack("<HHI", 22, 16, 4) + b"\1\0" + GUID),
    "extensible, not quite": wav(DATA, fmt=form(tag=0xFFFE) + struct.pack("<HHI", 22, 16, 4) + b"\1\0" + bytes(14)),
    "RF64": rf64(DATA),
    "BW64": rf64(DATA).replace(b"RF64", b"BW64"),
    "AIFF": aiff(SAMPLES.astype(">i2").tobytes(), len(SAMPLES)),
}
OPEN = {
    **{f"{size:#x}": wav(DATA, size) for size in (0, 0xFFFFFFFF)},
    "streamed by ffmpeg": wav(DATA, 0xFFFFFFFF, 0xFFFFFFFF, before=EXTRA),
    "streamed, sizes of 0": wav(DATA, 0, 0),
    "silence first": wav(bytes(800) + DATA[800:], 0, 0),
    "RF64 of open size": rf64(DATA, 0),
    "RF64 of all ones": rf64(DATA, 2**64 - 1),
    "AIFF of size 0": aiff(SAMPLES.astype(">i2").tobytes(), 0, 0),
}


@pytest.mark.parametrize("name", [*WHOLE, *OPEN])
def test_whole_and_streamed_files_are_read_to_the_end(read, name: str, caplog: pytest.LogCaptureFixture) -> None:
    expected = WAVEFORM.copy()
    if name == "silence first":
        expected[:400] = 0
    np.testing.assert_array_equal(read({**WHOLE, **OPEN}[name]), expected)
    assert caplog.records == []


@pytest.mark.parametrize("size", [0x7FFFF000, 0x7FFFFFFF - 36, 0x7FFFFFFF, 0x80000000, 0x80000024, 0xFFFFFF00])
def test_sizes_about_2_and_4_gb_are_taken_for_open_with_a_warning(read, caplog, size: int) -> None:
    np.testing.assert_array_equal(read(wav(DATA, size)), WAVEFORM)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and f"states {size} bytes" in record.message


@pytest.mark.parametrize("size", [len(DATA) + 2, 100_000, 3_000_000_000, 0x70000000])
def test_other_sizes_are_believed(tmp_path: Path, size: int) -> None:
    expected = f"truncated, 2000 samples where its header states {size // 2}; copy it again"
    assert refusal(tmp_path / "a.wav", wav(DATA, size)) == expected


@pytest.mark.parametrize(
    ("subtype", "kind", "suffix"),
    [
        ("PCM_U8", "WAV", "wav"),
        ("PCM_16", "WAV", "wav"),
        ("PCM_24", "WAV", "wav"),
        ("PCM_32", "WAV", "wav"),
        ("FLOAT", "WAV", "wav"),
        ("DOUBLE", "WAV", "wav"),
        ("ULAW", "WAV", "wav"),
        ("IMA_ADPCM", "WAV", "wav"),
        ("PCM_24", "WAVEX", "wav"),
        ("PCM_16", "RF64", "wav"),
        ("PCM_24", "W64", "w64"),
        ("PCM_16", "AIFF", "aiff"),
        ("PCM_24", "AIFF", "aiff"),
        ("FLOAT", "AIFF", "aiff"),
        ("ULAW", "AIFF", "aiff"),
        ("PCM_16", "CAF", "caf"),
        ("ALAC_16", "CAF", "caf"),
        ("PCM_16", "AU", "au"),
        ("PCM_16", "NIST", "sph"),
        ("PCM_16", "FLAC", "flac"),
        ("VORBIS", "OGG", "ogg"),
        ("OPUS", "OGG", "opus"),
        ("MPEG_LAYER_III", "MP3", "mp3"),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_part_of_a_file_is_refused_or_holds_all_samples(
    tmp_path: Path, subtype: str, kind: str, suffix: str, channels: int
) -> None:
    """Every length of the head, then lengths all over the file."""
    n = 997
    samples = np.stack([speech(n, k) for k in range(channels)], axis=1).squeeze()
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, samples, RATE_HZ, format=kind, subtype=subtype)
    whole = path.read_bytes()
    expected, _ = read_wav(path)
    decoded = soundfile.read(path, dtype="float32", always_2d=True)[0].mean(axis=1)
    assert len(expected) >= n
    np.testing.assert_allclose(expected, decoded, atol=1e-6)
    lengths = {*range(0, 120, 7), *range(len(whole) - 9, len(whole)), *range(121, len(whole), len(whole) // 24)}
    refused = 0
    for length in sorted(lengths):
        path.write_bytes(whole[:length])
        try:
            header = wav_header(path)
            waveform, _ = read_wav(path)
        except UserError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ") and ("truncated" in str(error) or "cannot be read" in str(error))
            with pytest.raises(UserError):
                read_wav(path)
        else:
            assert header == (len(expected), RATE_HZ)
            np.testing.assert_array_equal(waveform, expected)
    assert refused >= len(lengths) - 9  # only padding and what follows the sound may be missing


@pytest.mark.parametrize("name", ["plain", "chunks before and after", "RF64", "AIFF"])
def test_behind_a_tag(tmp_path: Path, read, name: str) -> None:
    np.testing.assert_array_equal(read(id3(1600) + WHOLE[name]), WAVEFORM)
    for tag in (id3(1600), id3(16000), id3(300) + id3(20)):
        content = tag + WHOLE[name]
        half = content[: len(tag) + len(WHOLE[name]) // 2]
        assert refusal(tmp_path / "a.wav", half) == refusal(tmp_path / "a.wav", half[len(tag) :])


def test_the_message_counts_samples(tmp_path: Path) -> None:
    stereo = np.stack([SAMPLES, SAMPLES], 1)
    for content, kind in ((wav(stereo.tobytes(), fmt=form(2)), "wav"), (wav(DATA * 2, fmt=form(1, bits=32)), "wav")):
        assert refusal(tmp_path / f"a.{kind}", content[: len(content) // 2]) == (
            f"truncated, {(len(content) // 2 - 44) // 4} samples where its header states 2000; copy it again"
        )
    content = aiff(SAMPLES.astype(">i2").tobytes(), 2000)
    assert refusal(tmp_path / "a.aiff", content[:1054]).startswith(
        "truncated, 500 samples where its header states 2000"
    )


def test_a_header_without_its_sound(tmp_path: Path, read) -> None:
    for content, reason in (
        (b"RIFF", "cannot be read as sound"),
        (wav(DATA)[:19], "it has no format chunk"),
        (wav(DATA)[:36], "it has no sound chunk"),
        (wav(DATA, fmt=form(0)), "states 0 channels"),
        (wav(DATA, fmt=form(rate=0)), "1 channels at 0 Hz"),
        (wav(DATA, fmt=form()[:12]), "its header is cut short"),
    ):
        assert reason in refusal(tmp_path / "a.wav", content)
    for empty in (wav(b""), wav(b"", after=EXTRA), aiff(b"", 0)):
        (tmp_path / "b.wav").write_bytes(empty)
        assert wav_header(tmp_path / "b.wav") == (0, RATE_HZ)
        with pytest.raises(UserError, match="holds no sound"):
            read_wav(tmp_path / "b.wav")


@pytest.mark.parametrize("rate", [1, 3999, 384001, 2**31])
def test_impossible_rates_are_refused(tmp_path: Path, rate: int) -> None:
    assert refusal(tmp_path / "a.wav", wav(DATA, fmt=form(rate=rate))) == (
        f"has a sample rate of {rate} Hz; 4000 to 384000 Hz are read, export it again"
    )


def test_more_channels_than_anything_has(tmp_path: Path) -> None:
    assert "has 300 channels; at most 256 are read, export it in mono" in refusal(
        tmp_path / "a.wav", wav(bytes(240000), fmt=form(300, block=0))
    )


@pytest.mark.parametrize("rate", [4000, 384000])
def test_the_bounds_are_read(tmp_path: Path, rate: int) -> None:
    (tmp_path / "a.wav").write_bytes(wav(DATA, fmt=form(rate=rate)))
    waveform, found = read_wav(tmp_path / "a.wav")
    assert found == rate and len(waveform) == 2000


def test_files_joined_end_to_end(tmp_path: Path) -> None:
    assert "a second WAV file follows the first" in refusal(tmp_path / "a.wav", wav(DATA) + wav(DATA))


def test_more_sound_than_the_header_states_is_told(read, caplog: pytest.LogCaptureFixture) -> None:
    np.testing.assert_array_equal(read(wav(DATA, 1000)), WAVEFORM[:500])
    assert "3000 bytes follow the sound that its header states" in caplog.text


def test_more_than_4_gb(tmp_path: Path) -> None:
    """A sparse file: 2 channels of 24 bits, 5 GB, which only RF64 can state."""
    from s2f_rl.data.sound_decoding import open_sound

    n = 900_000_000
    head = rf64(b"", 6 * n).replace(form(), form(2, bits=24))
    with open(tmp_path / "a.wav", "wb") as file:
        file.write(head)
        file.truncate(len(head) + 6 * n)
    sound = open_sound(tmp_path / "a.wav")
    assert sound.samples == n and next(sound.blocks()).shape[1] == 2
    with open(tmp_path / "a.wav", "r+b") as file:
        file.truncate(len(head) + 6 * (n - 7))
    with pytest.raises(UserError, match=f"truncated, {n - 7} samples where its header states {n}"):
        wav_header(tmp_path / "a.wav")


def test_what_is_too_long_is_refused(tmp_path: Path) -> None:
    n = 2**30 + 1
    with open(tmp_path / "a.wav", "wb") as file:
        file.write(wav(b"", n, fmt=form(bits=8)))
        file.truncate(44 + n)
    with pytest.raises(UserError, match=r"a\.wav: longer than 1073741824 samples"):
        read_wav(tmp_path / "a.wav")
