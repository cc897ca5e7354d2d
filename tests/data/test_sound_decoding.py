"""The one door to sound files: FLAC, Ogg, what PyAV reads, and what is never handed to a decoder."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile

from s2f_rl.data import sound_decoding
from s2f_rl.data.audio import read_wav, wav_header
from s2f_rl.data.sound_decoding import open_sound
from s2f_rl.errors import UserError
from tests.sounds import RATE_HZ, id3, refusal, speech

N = 30000
RATE = 48000
VOICE = (speech(N) / 32768).astype(np.float32)


@pytest.fixture()
def encode(tmp_path: Path):
    """``encode("a.m4a", "aac")``: a file of the voice at 48 kHz, written by PyAV."""
    av = pytest.importorskip("av")

    def encode(name: str, codec: str, kind: str | None = None, **options: str) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w", format=kind, options=options) as out:
            stream = out.add_stream(codec, rate=RATE, layout="mono")
            frame = av.AudioFrame.from_ndarray(VOICE[None], "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
            form = stream.codec_context.format.name if stream.codec_context.format else "fltp"
            to_codec = av.AudioResampler(form, "mono", RATE, frame_size=960 if "opus" in codec else 1024)
            for part in [*to_codec.resample(frame), *to_codec.resample(None)]:
                out.mux(stream.encode(part))
            out.mux(stream.encode(None))
        return path

    return encode


class TestFlac:
    @pytest.fixture()
    def path(self, tmp_path: Path) -> Path:
        soundfile.write(tmp_path / "a.flac", speech(N), RATE_HZ, format="FLAC", subtype="PCM_16")
        return tmp_path / "a.flac"

    def test_half_is_refused(self, path: Path) -> None:
        whole = path.read_bytes()
        line = refusal(path, whole[: len(whole) // 2])
        assert line.startswith("truncated, ") and line.endswith(f"samples where its header states {N}; copy it again")
        assert N / 4 < int(line.split()[1]) < 0.6 * N
        assert refusal(path, whole[:-1]).startswith("truncated, ")

    def test_tags_before_and_behind(self, path: Path) -> None:
        path.write_bytes(id3(500) + path.read_bytes() + b"TAG" + bytes(125))
        np.testing.assert_array_equal(read_wav(path)[0], VOICE)
        assert wav_header(path) == (N, RATE_HZ)

    def test_streamed_without_a_length(self, path: Path) -> None:
        pytest.importorskip("av")
        content = bytearray(path.read_bytes())
        content[21] &= 0xF0
        content[22:26] = bytes(4)
        path.write_bytes(content)
        np.testing.assert_allclose(read_wav(path)[0], VOICE, atol=1e-6)
        assert wav_header(path) == (N, RATE_HZ)
        assert "damaged or truncated" in refusal(path, bytes(content[:-1]))


class TestOgg:
    @pytest.mark.parametrize("coding", ["VORBIS", "OPUS"])
    def test_streams_one_after_another(self, tmp_path: Path, coding: str) -> None:
        path = tmp_path / "a.ogg"
        soundfile.write(path, speech(N), RATE_HZ, format="OGG", subtype=coding)
        content, (one, _) = path.read_bytes(), read_wav(path)
        path.write_bytes(content + content)
        np.testing.assert_array_equal(read_wav(path)[0], np.concatenate([one, one]))
        assert wav_header(path) == (2 * N, RATE_HZ)

    def test_a_page_that_is_missing(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = tmp_path / "a.ogg"
        soundfile.write(path, speech(N), RATE_HZ, format="OGG", subtype="VORBIS")
        content = path.read_bytes()
        assert refusal(path, content[:-1]).startswith("truncated, ") and caplog.records == []
        path.write_bytes(content[: content.rindex(b"OggS")])
        assert 0 < len(read_wav(path)[0]) < N and "its stream has no end" in caplog.text

    @pytest.mark.parametrize("coding", ["VORBIS", "OPUS"])
    def test_a_damaged_page(self, tmp_path: Path, coding: str) -> None:
        """One bit of each page, in its mark, its position, its table and its sound; and a page that was left out."""
        path = tmp_path / "a.ogg"
        soundfile.write(path, speech(4 * N), RATE_HZ, format="OGG", subtype=coding)
        content = path.read_bytes()
        starts = [k for k in range(len(content)) if content[k : k + 4] == b"OggS"]
        assert len(starts) >= 5
        for k in starts[1:]:
            for at in (k + 2, k + 7, k + 22, k + 60):
                damaged = bytearray(content)
                damaged[at] ^= 1
                assert refusal(path, bytes(damaged)) == (
                    f"damaged, its Ogg page at byte {k} is not what was written; copy it again"
                )
        assert refusal(path, content[: starts[3]] + content[starts[4] :]) == (
            "its pages 3 to 3 are missing; copy it again"
        )


class TestPyAV:
    FILES = (
        ("a.m4a", "aac", None, {}),
        ("b.m4a", "aac", None, {"movflags": "+faststart"}),
        ("c.mp4", "aac", "mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("a.aac", "aac", "adts", {}),
        ("a.webm", "libopus", None, {}),
        ("a.flv", "aac", "flv", {}),
        ("a.avi", "aac", "avi", {}),
    )

    @pytest.mark.parametrize(("name", "codec", "kind", "options"), FILES)
    def test_they_are_read_whole(self, encode, name: str, codec: str, kind: str | None, options: dict) -> None:
        path = encode(name, codec, kind, **options)
        waveform, rate = read_wav(path)
        assert rate == RATE and 0 <= len(waveform) - N < 4096 and wav_header(path) == (len(waveform), rate)
        lag = max(range(0, 3000), key=lambda k: float(waveform[k : k + 20000] @ VOICE[: len(waveform[k : k + 20000])]))
        found = waveform[lag : lag + 20000]
        assert np.corrcoef(found, VOICE[: len(found)])[0, 1] > 0.98

    @pytest.mark.parametrize(("name", "codec", "kind", "options"), FILES)
    @pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
    def test_a_part_is_refused(self, encode, name: str, codec: str, kind, options: dict, share: float) -> None:
        path = encode(name, codec, kind, **options)
        content = path.read_bytes()
        line = refusal(path, content[: int(share * len(content))])
        assert "truncated" in line

    @pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_s24le"])
    @pytest.mark.parametrize("name", ["a.mov", "a.avi"])
    def test_pcm_whose_samples_are_counted(self, encode, name: str, codec: str) -> None:
        path = encode(name, codec)
        np.testing.assert_allclose(read_wav(path)[0], VOICE, atol=1e-6 if codec == "pcm_s24le" else 2**-15)
        content = path.read_bytes()
        assert "truncated" in refusal(path, content[: len(content) // 2])

    def test_without_the_extra_one_line_names_it(self, encode, monkeypatch: pytest.MonkeyPatch) -> None:
        path = encode("a.m4a", "aac")
        monkeypatch.setitem(sys.modules, "av", None)
        line = refusal(path)
        assert line.startswith("reading mov needs PyAV") and 'pip install "s2f_rl[render]"' in line

    def test_a_film_without_sound(self, tmp_path: Path) -> None:
        av = pytest.importorskip("av")
        path = tmp_path / "a.mp4"
        with av.open(str(path), "w") as out:
            stream = out.add_stream("libx264", rate=25)
            stream.width = stream.height = 32
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        assert refusal(path) == "holds no sound; give a recording with sound"

    def test_lengths_are_decoded_once(self, encode, monkeypatch: pytest.MonkeyPatch) -> None:
        path = encode("a.webm", "libopus")
        first = wav_header(path)
        monkeypatch.setattr(sound_decoding.Sound, "blocks", lambda self: pytest.fail("decoded again"))
        assert wav_header(path) == first


class TestNeverGuessed:
    """Only what its first bytes tell is decoded: a playlist must not make a decoder open other files or the network."""

    @pytest.mark.parametrize(
        "content",
        [
            b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.mp3\n",
            b"ffconcat version 1.0\nfile other.wav\n",
            b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
            b"plain text\n" * 50,
            b"\xff\xfe" * 100,
            bytes(3000),
            b"",
        ],
    )
    @pytest.mark.parametrize("name", ["a.wav", "a.mp4", "a.mp3", "a"])
    def test_other_files(self, tmp_path: Path, content: bytes, name: str) -> None:
        assert refusal(tmp_path / name, content).startswith("cannot be read as sound (")

    def test_random_bytes_behind_every_mark(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        marks = [b"RIFF\0\0\0\0WAVEfmt ", b"RF64\xff\xff\xff\xffWAVEds64", b"FORM\0\0\0\0AIFFCOMM", b"caff\0\1\0\0desc"]
        marks += [
            b".snd",
            b"fLaC",
            b"OggS",
            b"ID3\4\0\0\0\0\0\0",
            b"\xff\xfb\x90\xc4",
            b"\0\0\0\x18ftypM4A ",
            b"NIST_1A\n",
        ]
        marks += [b"\x1aE\xdf\xa3", b"FLV\x01", b"RIFF\0\0\0\0AVI ", b"\xff\xf1", b"0&\xb2u", b"#!AMR\n"]
        for mark in marks:
            for size in (0, 3, 40, 3000):
                line = refusal(tmp_path / "a.bin", mark + rng.integers(0, 256, size, np.uint8).tobytes())
                assert len(line) < 300

    def test_formats_whose_length_is_not_known_are_told(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        soundfile.write(tmp_path / "a.voc", speech(N), RATE_HZ, format="VOC", subtype="PCM_16")
        assert len(read_wav(tmp_path / "a.voc")[0]) == N
        assert "whose length is not checked" in caplog.text


def test_values_that_are_no_sound(tmp_path: Path) -> None:
    samples = VOICE.copy()
    for value, shown in ((1e20, "1e+20"), (-1e9, "1e+09")):
        samples[7] = value
        soundfile.write(tmp_path / "a.wav", samples, RATE_HZ, subtype="FLOAT")
        with pytest.raises(UserError) as caught:
            read_wav(tmp_path / "a.wav")
        assert str(caught.value) == (
            f"{tmp_path / 'a.wav'}: holds a value of {shown}, where sound is within -1 to 1; write it again"
        )
    samples[7] = 32767
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ, subtype="FLOAT")
    np.testing.assert_array_equal(read_wav(tmp_path / "a.wav")[0], samples)


def test_decoding_goes_forward_only(tmp_path: Path) -> None:
    """Block by block gives the very samples that one read gives, in codings with a state as well."""
    for subtype in ("GSM610", "IMA_ADPCM"):
        path = tmp_path / f"{subtype}.wav"
        soundfile.write(path, speech(N), 8000, subtype=subtype)
        whole = read_wav(path)[0]
        sound = open_sound(path)
        assert sum(map(len, sound.blocks())) == sound.samples == len(whole)
        with soundfile.SoundFile(path) as file:
            reference = np.empty((sound.samples, 1), np.float32)
            file.buffer_read_into(reference, "float32")
        np.testing.assert_array_equal(whole, reference[:, 0])
