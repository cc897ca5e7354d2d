"""Reading, resampling and normalising speech."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np

from s2f_rl.data.files import atomic_path
from s2f_rl.data.mixing import Mixer
from s2f_rl.data.sound_decoding import open_sound
from s2f_rl.errors import UserError
from s2f_rl.signs import Watch

logger = logging.getLogger(__name__)

SPEECH_RATE_HZ = 16000
"""Sample rate of the speech encoders."""
LARGEST_SAMPLE = 1e6
"""That is taken for sound. Above what 16 bits count to; the variance of such values still fits float32."""


def wav_header(path: str | os.PathLike[str]) -> tuple[int, int]:
    """``(samples per channel, rate in Hz)`` of a sound file, from its headers where those can tell.

    Raises UserError as :func:`~s2f_rl.data.sound_decoding.open_sound`, so for half a file as well.
    """
    sound = open_sound(path)
    return sound.count(), sound.rate


SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".ogg", ".aac", ".mp4", ".mov", ".webm")
"""Recordings that are looked for in a folder."""


def read_wav(path: str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    """Read a sound file as mono, whole.

    What is odd about it (see :func:`read_sound`) is logged, once for each file.

    Returns:
        float32 waveform [N] in -1..1 (the mean over channels) and its sample rate in Hz.

    Raises:
        UserError: as :func:`~s2f_rl.data.sound_decoding.open_sound`; the file is empty, or holds values that are not
            finite or beyond a million.
    """
    waveform, rate, notes = read_sound(path)
    for note in notes:
        _warn(f"{path}: {note}")
    return waveform, rate


def read_sound(path: str | os.PathLike[str]) -> tuple[np.ndarray, int, tuple[str, ...]]:
    """Waveform and rate as of :func:`read_wav`, and what is worth a warning, each "what; what to do".

    Channels that cancel (see :class:`~s2f_rl.data.mixing.Mixer`) are not averaged: the loudest stands for all. A bar
    shows on a terminal when it takes long.
    """
    sound = open_sound(path)
    notes = sound.notes
    mixer = Mixer(sound.channels, sound.rate)
    with Watch(sound.path.name, sound.samples, "sample", leave=False, delay=2, scale=True) as bar:

        def mixed() -> Iterator[np.ndarray]:
            for block in sound.blocks():
                yield mixer.add(block)
                bar.update(len(block))

        waveform = _gather(mixed(), sound.samples)
    if not len(waveform):
        raise UserError(f"{sound.path}: holds no sound; remove or record it again")
    if mixer.cancels():
        k = mixer.loudest
        notes += (f"its channels cancel each other, so channel {k + 1} stands for all; record or export it in mono",)
        waveform = _gather((block[:, k] for block in sound.blocks()), sound.samples)
    if not np.isfinite(waveform).all():
        raise UserError(f"{sound.path}: holds values that are not finite (NaN or infinity); write it again")
    if (peak := max(waveform.max(), -waveform.min())) > LARGEST_SAMPLE:
        raise UserError(f"{sound.path}: holds a value of {peak:.0e}, where sound is within -1 to 1; write it again")
    return waveform, sound.rate, notes


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
    normalised = waveform - waveform.mean()
    normalised /= np.sqrt(waveform.var() + 1e-7)  # in place: an hour is 230 MB
    return normalised


def write_wav(path: str | os.PathLike[str], waveform: np.ndarray, rate: int, subtype: str | None = None) -> None:
    """Write a waveform [N] as a WAV file, atomically; ``subtype`` as in soundfile, 16 bits by default."""
    import soundfile

    with atomic_path(path) as temporary:
        soundfile.write(str(temporary), waveform, int(rate), subtype=subtype or "PCM_16", format="WAV")


def conv_frames(n_samples: int) -> int:
    """Frames that wav2vec2's convolutions make of ``n_samples`` at 16 kHz: receptive field 400, hop 320 (50 Hz)."""
    return max(0, (n_samples - 400) // 320 + 1)


def _gather(pieces: Iterable[np.ndarray], n: int | None) -> np.ndarray:
    """Pieces one after another, float32 [n]; in place where n is known, so that an hour is held once."""
    if n is None:
        return np.concatenate([np.empty(0, np.float32), *pieces])
    whole, at = np.empty(n, np.float32), 0
    for piece in pieces:
        whole[at : at + len(piece)] = piece
        at += len(piece)
    return whole


@lru_cache(maxsize=4096)
def _warn(line: str) -> None:
    logger.warning("%s", line)
