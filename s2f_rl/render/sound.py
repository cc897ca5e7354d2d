"""The sound track of a film: any waveform, cut or padded to the picture, at a rate that AAC knows."""

from __future__ import annotations

import os
from fractions import Fraction
from typing import TypeAlias

import numpy as np

from s2f_rl.data.audio import read_wav, resample
from s2f_rl.data.sound_decoding import RATES_HZ
from s2f_rl.errors import UserError

Audio: TypeAlias = "str | os.PathLike[str] | tuple[np.ndarray, int]"
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_OTHERWISE = 48000


def load_sound(audio: Audio) -> tuple[np.ndarray, int]:
    """A sound file, or (waveform [N], rate in Hz), as float32 mono in -1..1 and its rate.

    Waveforms of integers are scaled by their type; float ones that exceed 1 (such as normalised ones) by their peak.

    Raises:
        UserError: unreadable, empty, not finite, not mono, or an impossible rate.
    """
    if isinstance(audio, (str, os.PathLike)):
        waveform, rate = read_wav(audio)
    else:
        try:
            waveform, rate = audio
            rate = int(rate)
        except (TypeError, ValueError):
            raise UserError("audio: pass a sound file, or (waveform [N], rate in Hz)") from None
        if hasattr(waveform, "detach"):
            waveform = waveform.detach().cpu()
        waveform = np.asarray(waveform)
        if waveform.dtype.kind == "i":
            waveform = waveform / -float(np.iinfo(waveform.dtype).min)
    if waveform.ndim != 1 or len(waveform) == 0 or waveform.dtype.kind != "f":
        raise UserError(f"audio: waveform of shape {list(waveform.shape)} and type {waveform.dtype}; expected mono [N]")
    if not RATES_HZ[0] <= rate <= RATES_HZ[1]:
        raise UserError(f"audio: a sample rate of {rate} Hz; expected {RATES_HZ[0]} to {RATES_HZ[1]}")
    if not np.isfinite(waveform).all():
        raise UserError("audio: the waveform holds values that are not finite")
    peak = max(float(waveform.max()), -float(waveform.min()))  # without a copy: it may last hours
    return (waveform / peak if peak > 1.0 else waveform).astype(np.float32, copy=False), rate


def fit_sound(waveform: np.ndarray, rate: int, n_frames: int, fps: Fraction) -> tuple[np.ndarray, int]:
    """Waveform at a rate of AAC, exactly as long as ``n_frames`` pictures: cut at the end, or padded with silence."""
    wanted = rate if rate in _AAC_RATES else _OTHERWISE
    waveform = resample(waveform, rate, wanted)
    length = round(n_frames / fps * wanted)
    missing = max(0, length - len(waveform))
    return (np.pad(waveform, (0, missing)) if missing else waveform[:length]), wanted
