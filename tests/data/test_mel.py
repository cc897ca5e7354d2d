"""Mel clips against the golden values and a slow reference, and their cache beside a corpus."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from s2f_rl.data import FaceCorpus, mel_clips
from s2f_rl.data.audio import read_wav, resample
from s2f_rl.data.mel import SAMPLES_PER_FRAME, mel_filter_bank, n_mel_clips
from tests.tiny import make_tiny_corpus

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "mel.npz")


def _slow_mel(waveform: np.ndarray) -> np.ndarray:
    """The definition, frame by frame in double precision."""
    mel = lambda hz: 1127 * np.log(1 + hz / 700)  # noqa: E731
    edges = np.linspace(mel(20), mel(8000), 130)
    bank = np.zeros((128, 65))
    for b in range(128):
        for k in range(64):
            m = mel(125 * k)
            rising = (m - edges[b]) / (edges[b + 1] - edges[b])
            falling = (edges[b + 2] - m) / (edges[b + 2] - edges[b + 1])
            bank[b, k] = max(0, min(rising, falling))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(128) / 127)
    clips = []
    for start in range(0, len(waveform) - 3200 + 1, 640):
        clip = waveform[start : start + 3200].astype(np.float64)
        clip = clip - clip.mean()
        rows = []
        for j in range(20):
            frame = clip[160 * j : 160 * j + 128]
            frame = frame - frame.mean()
            frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
            power = np.abs(np.fft.rfft(frame * window)) ** 2
            rows.append(np.log(np.maximum(bank @ power, np.finfo(np.float32).eps)))
        clips.append((np.array(rows) + 4.2677393) / 9.1379948)
    return np.array(clips)


@pytest.mark.parametrize("rate", ["sr19200", "sr16000"])
def test_golden(rate: str) -> None:
    clips = mel_clips(torch.from_numpy(GOLDEN[f"{rate}/waveform"]))
    assert clips.dtype == torch.float32 and clips.shape == GOLDEN[f"{rate}/mel"].shape
    # The golden data state a deviation of 5.4e-5 from exact arithmetic; ours is as large, on another processor another.
    np.testing.assert_allclose(clips.numpy(), GOLDEN[f"{rate}/mel"], atol=2e-4, rtol=0)


def test_golden_filter_bank() -> None:
    bank = mel_filter_bank().numpy()
    # A weight is a difference of two mels near 2840, where float32 has steps of 2^-12, over a spacing of 21.9: a step
    # is 1.1e-5 of a weight, and each of the two mels, ours and the golden one, may be a step off.
    np.testing.assert_allclose(bank[:, :64], GOLDEN["mel_filterbank"], atol=4 * 2**-12 / 21.9, rtol=0)
    assert (bank[:, 64] == 0).all() and (bank.sum(axis=1) == 0).sum() == 38


def test_slow_reference() -> None:
    waveform = (0.1 * np.random.default_rng(0).normal(size=7000)).astype(np.float32)
    np.testing.assert_allclose(mel_clips(waveform).numpy(), _slow_mel(waveform), atol=2e-4, rtol=0)


def test_the_number_of_clips() -> None:
    for n, expected in ((0, 0), (3199, 0), (3200, 1), (3839, 1), (3840, 2)):
        assert n_mel_clips(n) == expected
        assert mel_clips(torch.zeros(n)).shape == (expected, 20, 128)


def test_silence_gives_the_floor() -> None:
    assert mel_clips(torch.zeros(3200)).unique().tolist() == pytest.approx([-1.2775939], abs=1e-6)


def test_long_recordings_are_cut_into_pieces_without_a_seam() -> None:
    waveform = torch.randn(640 * 1100, generator=torch.Generator().manual_seed(0))
    clips = mel_clips(waveform)
    for i in (0, 511, 512, 1023, 1024, len(clips) - 1):
        torch.testing.assert_close(clips[i], mel_clips(waveform[640 * i : 640 * i + 3200])[0], rtol=0, atol=1e-6)


def test_only_mono() -> None:
    with pytest.raises(ValueError, match="mono waveform"):
        mel_clips(torch.zeros(2, 3200))


class TestCache:
    NAME = "S0_sentence01"

    def _expected(self, root: Path, fps: int = 30) -> torch.Tensor:
        waveform, rate = read_wav(root / "wav" / f"{self.NAME}.wav")
        return mel_clips(resample(waveform, rate, SAMPLES_PER_FRAME * fps))

    def _clips(self, root: Path) -> torch.Tensor:
        return FaceCorpus(root)[self.NAME].mel_clips

    def test_clips_come_from_the_files_own_rate_and_are_kept(self, tmp_path: Path) -> None:
        for topology, fps in (("vocaset", 30), ("biwi", 25)):
            root = make_tiny_corpus(tmp_path / topology, topology=topology)
            expected = self._expected(root, fps)
            assert torch.equal(self._clips(root), expected)
            kept = np.load(root / "wav_npy" / f"{self.NAME}.npy")
            np.testing.assert_array_equal(kept, expected.numpy())
            assert torch.equal(self._clips(root), expected)

    def test_kept_clips_are_really_read(self, tmp_path: Path) -> None:
        root = make_tiny_corpus(tmp_path)
        self._clips(root)
        path = root / "wav_npy" / f"{self.NAME}.npy"
        np.save(path, np.load(path) + 1)
        assert torch.equal(self._clips(root), self._expected(root) + 1)

    def test_clips_of_a_replaced_recording_are_not_used(self, tmp_path: Path) -> None:
        root = make_tiny_corpus(tmp_path)
        self._clips(root)
        wav = root / "wav" / f"{self.NAME}.wav"
        before = os.stat(wav)
        samples, rate = soundfile.read(wav)
        soundfile.write(wav, samples[::-1], rate, subtype="PCM_16")
        os.utime(wav, ns=(before.st_atime_ns, before.st_mtime_ns))  # neither length nor time tells
        assert torch.equal(self._clips(root), self._expected(root))
        np.testing.assert_array_equal(np.load(root / "wav_npy" / f"{self.NAME}.npy"), self._expected(root).numpy())

    @pytest.mark.parametrize("content", [b"", b"garbage", "shape", "nan", "object", "folder"])
    def test_broken_files_are_not_used(self, tmp_path: Path, content: bytes | str) -> None:
        root = make_tiny_corpus(tmp_path)
        expected = self._expected(root)
        path = root / "wav_npy" / f"{self.NAME}.npy"
        if content != "folder":
            self._clips(root)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content == "shape":
            np.save(path, expected[:-1].numpy())
        elif content == "nan":
            np.save(path, np.full_like(expected.numpy(), np.nan))
        elif content == "object":
            np.save(path, np.array([{}], dtype=object), allow_pickle=True)
        else:
            path.mkdir(parents=True)
        assert torch.equal(self._clips(root), expected)

    def test_a_key_of_a_terabyte_is_not_read(self, tmp_path: Path) -> None:
        root = make_tiny_corpus(tmp_path)
        self._clips(root)
        os.truncate(root / "wav_npy" / f"{self.NAME}.key", 2**40)
        assert torch.equal(self._clips(root), self._expected(root))
        assert (root / "wav_npy" / f"{self.NAME}.key").stat().st_size < 1000

    def test_another_programs_clips_are_used_if_they_agree_and_never_overwritten(self, tmp_path: Path) -> None:
        root = make_tiny_corpus(tmp_path)
        (root / "wav_npy").mkdir()
        path = root / "wav_npy" / f"{self.NAME}.npy"
        foreign = self._expected(root).numpy() + 1e-3
        np.save(path, foreign)
        np.testing.assert_array_equal(self._clips(root).numpy(), foreign)
        wrong = foreign + 0.5
        np.save(path, wrong)
        assert torch.equal(self._clips(root), self._expected(root))
        np.testing.assert_array_equal(np.load(path), wrong)

    def test_nothing_is_written_when_that_is_not_wanted_or_not_possible(self, tmp_path: Path) -> None:
        root = make_tiny_corpus(tmp_path)
        FaceCorpus(root, keep_mel_clips=False)[0].mel_clips  # noqa: B018
        assert not (root / "wav_npy").exists()
        (root / "wav_npy").write_text("in the way")
        assert torch.equal(self._clips(root), self._expected(root))
