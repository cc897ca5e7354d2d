"""Channels that cancel each other are noticed, and no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from s2f_rl.data.audio import read_wav
from s2f_rl.data.check import check_corpus
from s2f_rl.data.mixing import Mixer
from tests.sounds import RATE_HZ, speech
from tests.tiny import make_tiny_corpus

N = 40000
VOICE = speech(N).astype(np.float64) / 32768
NOISE = np.random.default_rng(5).normal(size=(8, N)) * VOICE.std()


def mix(*channels: np.ndarray, block: int = 4096) -> tuple[np.ndarray, bool, int]:
    """Mean, whether it cancels, and the loudest channel."""
    samples = np.stack(channels, axis=1).astype(np.float32)
    mixer = Mixer(len(channels), RATE_HZ)
    mean = np.concatenate([mixer.add(samples[k : k + block]) for k in range(0, N, block)])
    np.testing.assert_allclose(mean, samples.mean(axis=1), atol=1e-7)
    return mean, mixer.cancels(), mixer.loudest


def delayed(x: np.ndarray, n: int) -> np.ndarray:
    return np.concatenate([np.zeros(n), x[:-n]])


@pytest.mark.parametrize(
    ("channels", "loudest"),
    [
        ((VOICE, -VOICE), 0),
        ((VOICE, -0.8 * VOICE), 0),
        ((0.7 * VOICE, -VOICE), 1),
        ((VOICE + 0.1 * NOISE[0], -VOICE + 0.1 * NOISE[1]), 1),
        ((VOICE + 0.5, -VOICE + 0.5), 0),
        ((VOICE, -VOICE, 0 * VOICE, 0 * VOICE), 0),
        ((VOICE, 0.99 * -VOICE, VOICE, -VOICE, VOICE, 1.01 * -VOICE), 5),
        ((VOICE, np.where(np.arange(N) < 10000, -VOICE, VOICE)), 0),
    ],
)
def test_these_cancel(channels: tuple[np.ndarray, ...], loudest: int) -> None:
    _, cancels, found = mix(*channels)
    assert cancels and np.square(channels[found]).sum() == pytest.approx(np.square(channels[loudest]).sum(), rel=0.01)


@pytest.mark.parametrize(
    "channels",
    [
        (VOICE,),
        (VOICE, VOICE),
        (VOICE, 0 * VOICE),
        (0 * VOICE, VOICE, 0 * VOICE, 0 * VOICE, 0 * VOICE, 0 * VOICE),
        (VOICE, -0.5 * VOICE),
        (VOICE, delayed(VOICE, 12)),
        (NOISE[0], NOISE[1]),
        tuple(NOISE),
        (VOICE, 0.01 * NOISE[0]),
        (VOICE + 0.5, VOICE - 0.5),
        (VOICE + 0.02 * NOISE[0], VOICE - 0.02 * NOISE[0]),
        (0 * VOICE, 0 * VOICE),
    ],
)
def test_these_do_not(channels: tuple[np.ndarray, ...]) -> None:
    assert not mix(*channels)[1]
    assert not mix(*channels, block=100)[1]


def test_the_loudest_channel_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.wav"
    stereo = np.stack([-0.9 * VOICE, VOICE], axis=1).astype(np.float32)
    soundfile.write(path, stereo, RATE_HZ, subtype="FLOAT")
    waveform, _ = read_wav(path)
    np.testing.assert_array_equal(waveform, stereo[:, 1])
    read_wav(path)
    (record,) = caplog.records  # once for each file
    assert record.message == (
        f"{path}: its channels cancel each other, so channel 2 stands for all; record or export it in mono"
    )


def test_check_warns(tmp_path: Path) -> None:
    root = make_tiny_corpus(tmp_path)
    path = root / "wav" / "S1_sentence02.wav"
    samples, rate = soundfile.read(path)
    soundfile.write(path, np.stack([samples, -samples], axis=1), rate)
    (fault,) = check_corpus(root)
    assert (fault.severity, fault.file) == ("warning", "wav/S1_sentence02.wav")
    assert "cancel each other" in fault.message and "mono" in fault.remedy
