"""Log-mel features of 16 kHz speech in pairs at 50 Hz: those that wav2vec2-BERT was trained on, and our own."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from s2f_rl.data.audio import SPEECH_RATE_HZ, conv_frames

_WINDOW, _HOP, _FFT, _BANDS = 400, 160, 512, 80  # samples, samples, points
_PRE_EMPHASIS = 0.97
_FLOOR = torch.finfo(torch.float32).eps  # of an energy in units of 16 bits


def paired_log_mel(waveform: Tensor) -> Tensor:
    """Log-mel features [B, C, 160] of waveforms [B, N] at 16 kHz: two windows of 25 ms, 10 ms apart, in each of them.

    Each of the 80 bands has zero mean and unit variance over the row. The missing second window of the last pair is 0.
    So C is that of wav2vec2's convolutions, and pair k begins at sample 320 k as theirs do. The same numbers as
    transformers' ``SeamlessM4TFeatureExtractor``, which reads the model's published ``preprocessor_config.json``.
    """
    windows = (waveform * 2.0**15).unfold(-1, _WINDOW, _HOP)
    windows = windows - windows.mean(-1, keepdim=True)
    windows = windows - _PRE_EMPHASIS * torch.cat([windows[..., :1], windows[..., :-1]], -1)
    povey = torch.hann_window(_WINDOW, periodic=False, dtype=torch.float64) ** 0.85
    power = torch.fft.rfft(windows * povey.to(waveform), _FFT).abs().square()
    bands = (power @ _filters().to(waveform)).clamp_min(_FLOOR).log()
    bands = (bands - bands.mean(1, keepdim=True)) / (bands.var(1, keepdim=True) + 1e-7).sqrt()
    return F.pad(bands, (0, 0, 0, bands.shape[1] % 2)).unflatten(1, (-1, 2)).flatten(2)


def _filters() -> Tensor:
    """Triangles on the HTK mel scale from 20 Hz to 8 kHz over the bins of the FFT: float64 [257, 80]."""
    bins = torch.arange(_FFT // 2 + 1, dtype=torch.float64) * (SPEECH_RATE_HZ / _FFT)
    low, high = _mel(torch.tensor([20.0, SPEECH_RATE_HZ / 2], dtype=torch.float64))
    edges = torch.linspace(float(low), float(high), _BANDS + 2, dtype=torch.float64)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    mel = _mel(bins)[:, None]
    triangles = torch.minimum((mel - left) / (centre - left), (right - mel) / (right - centre))
    return triangles.clamp_min(0)


def _mel(hertz: Tensor) -> Tensor:
    return 1127 * torch.log1p(hertz / 700)


def slaney_filters(n_mels: int) -> np.ndarray:
    """Triangles on Slaney's mel scale from 40 Hz to 7.6 kHz over the bins of a 512-point FFT at 16 kHz: [257, n_mels].

    The scale is linear below 1 kHz (200/3 Hz a step), logarithmic above (27 steps for a factor of 6.4); each triangle
    has the same area (Slaney, Auditory Toolbox, 1998).
    """
    linear, turn = 3 / 200, 15.0  # steps per Hz; steps at 1 kHz
    growth = math.log(6.4) / 27
    mel = np.linspace(40.0 * linear, turn + math.log(7.6) / growth, n_mels + 2)
    edges = np.where(mel < turn, mel / linear, 1000.0 * np.exp(growth * (mel - turn)))
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bins = np.linspace(0, SPEECH_RATE_HZ / 2, 257)[:, None]
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (right - left))


def slaney_log_mel(waveform: Tensor, filters: Tensor, window: Tensor) -> Tensor:
    """Log-mel frames at 100 Hz, an even number: [B, N] -> [B, 2C, n_mels], C of :func:`conv_frames`.

    Args:
        filters: of :func:`slaney_filters`. window: of 400 samples.
    """
    n_conv = conv_frames(waveform.shape[1])
    padded = F.pad(waveform, (0, 160))  # the second 100 Hz window of the last pair
    spectrum = torch.stft(padded, 512, 160, 400, window, center=False, return_complex=True).abs().square()
    mel = (spectrum.transpose(1, 2) @ filters).clamp_min(1e-6).log()
    # torch.stft centres a 400-sample window in 512 samples, so the last window may be missing: repeat the last one.
    missing = 2 * n_conv - mel.shape[1]
    if missing > 0:
        mel = torch.cat([mel, mel[:, -1:].expand(-1, missing, -1)], dim=1)
    return mel[:, : 2 * n_conv]


def normed_pairs(mel: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
    """Frames at 100 Hz [B, 2C, n_mels], normed, in pairs: [B, C, 2 * n_mels]."""
    return norm(mel).reshape(mel.shape[0], mel.shape[1] // 2, 2 * mel.shape[2])
