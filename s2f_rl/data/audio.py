"""Reading, resampling and normalising speech."""

from __future__ import annotations

import math
import os

import numpy as np

from s2f_rl.data.files import atomic_path, require_file
from s2f_rl.errors import UserError

SPEECH_RATE_HZ = 16000
"""Sample rate of the speech encoders."""


def wav_header(path: str | os.PathLike[str]) -> tuple[int, int]:
    """``(samples per channel, rate in Hz)`` of a sound file, without decoding it. Raises UserError as read_wav."""
    import soundfile

    path = require_file(path)
    try:
        info = soundfile.info(str(path))
    except (RuntimeError, OSError, ValueError, TypeError) as error:  # soundfile's own errors are RuntimeErrors
        raise UserError(f"{path}: cannot be read as sound ({_short(error)}); write it again as a WAV file") from error
    return int(info.frames), int(info.samplerate)


def read_wav(path: str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    """Read a sound file as mono.

    Returns:
        float32 waveform [N] in -1..1 (the mean over channels) and its sample rate in Hz.

    Raises:
        UserError: the file is missing, a folder, no readable sound, empty, or holds values that are not finite.
    """
    import soundfile

    path = require_file(path)
    n_samples, _ = wav_header(path)
    try:
        channels, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (RuntimeError, OSError, ValueError, TypeError, MemoryError) as error:
        raise UserError(f"{path}: cannot be read as sound ({_short(error)}); write it again as a WAV file") from error
    if len(channels) == 0:
        raise UserError(f"{path}: holds no sound; remove or record it again")
    if len(channels) != n_samples:
        raise UserError(
            f"{path}: truncated, {len(channels)} samples where its header states {n_samples}; copy it again"
        )
    waveform = channels.mean(axis=1) if channels.shape[1] > 1 else channels[:, 0]
    if not np.isfinite(waveform).all():
        raise UserError(f"{path}: holds values that are not finite (NaN or infinity); write it again")
    return np.ascontiguousarray(waveform), int(rate)


def resample(waveform: np.ndarray, rate_in: int, rate_out: int) -> np.ndarray:
    """Resample a waveform [N], as ``librosa.load`` does: soxr in high quality, :func:`resampled_length` samples."""
    if rate_in == rate_out:
        return waveform
    import soxr  # what librosa calls; librosa itself takes seconds and 100 MB to import

    length = resampled_length(len(waveform), rate_in, rate_out)
    out = soxr.resample(waveform, rate_in, rate_out, quality="soxr_hq")
    if len(out) < length:
        out = np.pad(out, (0, length - len(out)))
    return np.ascontiguousarray(out[:length], dtype=np.float32)


def resampled_length(n_samples: int, rate_in: int, rate_out: int) -> int:
    """Number of samples that :func:`resample` returns for ``n_samples``."""
    return n_samples if rate_in == rate_out else math.ceil(n_samples * (float(rate_out) / rate_in))


def normalise(waveform: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance, as transformers' ``Wav2Vec2FeatureExtractor`` makes them: float32 [N] -> [N]."""
    waveform = np.asarray(waveform, dtype=np.float32)
    return (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)


def write_wav(path: str | os.PathLike[str], waveform: np.ndarray, rate: int, subtype: str | None = None) -> None:
    """Write a waveform [N] as a WAV file, atomically; ``subtype`` as in soundfile, 16 bits by default."""
    import soundfile

    with atomic_path(path) as temporary:
        soundfile.write(str(temporary), waveform, int(rate), subtype=subtype or "PCM_16", format="WAV")


def conv_frames(n_samples: int) -> int:
    """Frames that wav2vec2's convolutions make of ``n_samples`` at 16 kHz: receptive field 400, hop 320 (50 Hz)."""
    return max(0, (n_samples - 400) // 320 + 1)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
