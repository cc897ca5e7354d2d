"""Sound files, resampling, and the frame counts that follow from them."""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from transformers import Wav2Vec2FeatureExtractor

from s2f_rl.data.audio import (
    conv_frames,
    normalise,
    read_wav,
    resample,
    resampled_length,
    wav_header,
    write_wav,
)
from s2f_rl.data.clock import PRESETS
from s2f_rl.errors import UserError

GOLDEN = Path(__file__).parents[1] / "golden"


def _noise(n: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).normal(size=n)).astype(np.float32)


@pytest.mark.parametrize(
    ("n", "rate_in", "rate_out"),
    [(30011, 22050, 16000), (30011, 22050, 19200), (4410, 44100, 16000), (999, 48000, 16000), (500, 16000, 19200)],
)
def test_resampling_equals_librosa(n: int, rate_in: int, rate_out: int) -> None:
    ours = resample(_noise(n), rate_in, rate_out)
    reference = librosa.resample(_noise(n), orig_sr=rate_in, target_sr=rate_out, res_type="soxr_hq")
    np.testing.assert_array_equal(ours, reference)
    assert len(ours) == resampled_length(n, rate_in, rate_out) and ours.dtype == np.float32


def test_the_same_rate_changes_nothing() -> None:
    np.testing.assert_array_equal(resample(_noise(100), 16000, 16000), _noise(100))


def test_normalisation_equals_the_feature_extractor() -> None:
    waveform = _noise(20000) + 0.02
    reference = Wav2Vec2FeatureExtractor()(waveform, sampling_rate=16000).input_values[0]
    np.testing.assert_allclose(normalise(waveform), reference, atol=1e-7, rtol=0)
    assert np.abs(normalise(np.zeros(10))).max() == 0


class TestReadWav:
    def test_channels_are_averaged(self, tmp_path: Path) -> None:
        stereo = np.stack([_noise(1000, 1), _noise(1000, 2)], axis=1)
        soundfile.write(tmp_path / "a.wav", stereo, 22050, subtype="PCM_16")
        waveform, rate = read_wav(tmp_path / "a.wav")
        assert rate == 22050 and waveform.dtype == np.float32
        np.testing.assert_allclose(waveform, soundfile.read(tmp_path / "a.wav")[0].mean(axis=1), atol=1e-7)
        assert wav_header(tmp_path / "a.wav") == (1000, 22050)

    def test_hostile_files(self, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "empty.wav", np.empty(0, np.float32), 16000)
        nan = _noise(100)
        nan[3] = np.nan
        soundfile.write(tmp_path / "nan.wav", nan, 16000, subtype="FLOAT")
        (tmp_path / "text.wav").write_text("no sound")
        (tmp_path / "nothing.wav").write_bytes(b"")
        (tmp_path / "folder.wav").mkdir()
        for name, message in {
            "empty": "holds no sound",
            "nan": "not finite",
            "text": "cannot be read as sound",
            "nothing": "cannot be read as sound",
            "folder": "is a folder",
            "missing": "no such file",
        }.items():
            with pytest.raises(UserError, match=message) as caught:
                read_wav(tmp_path / f"{name}.wav")
            assert f"{name}.wav" in str(caught.value) and "\n" not in str(caught.value)

    def test_writing_is_exact(self, tmp_path: Path) -> None:
        samples = np.array([0, 1, -32768, 32767], dtype=np.int16)
        write_wav(tmp_path / "a.wav", samples, 22050)
        np.testing.assert_array_equal(soundfile.read(tmp_path / "a.wav", dtype="int16")[0], samples)


class TestFrameCounts:
    @pytest.mark.parametrize("topology", ["vocaset", "biwi"])
    def test_they_equal_the_reference(self, topology: str) -> None:
        golden = np.load(GOLDEN / f"faceformer_{topology}.npz")
        samples, frames = golden["conv_len_table"].T
        assert [conv_frames(int(n)) for n in samples] == frames.tolist()
        for convolutional, output in golden["frame_table"].tolist():
            assert PRESETS[topology].natural_frames(400 + 320 * (convolutional - 1)) == output
            assert PRESETS[topology].natural_frames(400 + 320 * convolutional - 1) == output

    def test_they_follow_double_precision(self) -> None:
        """205, 410, 820 and 845 frames at 50 Hz make one frame less than exact arithmetic."""
        for frames, expected in ((205, 122), (410, 245), (820, 491), (845, 506)):
            assert PRESETS["vocaset"].natural_frames(400 + 320 * (frames - 1)) == expected

    def test_too_short_speech_has_none(self) -> None:
        assert [conv_frames(n) for n in (0, 1, 79, 399, 400, 719, 720)] == [0, 0, 0, 0, 1, 1, 2]
        assert PRESETS["vocaset"].natural_frames(100) == PRESETS["biwi"].natural_frames(100) == 0
