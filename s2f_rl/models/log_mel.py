"""The log-mel features that wav2vec2-BERT was trained on: Kaldi's filter banks of 16 kHz speech, in pairs at 50 Hz."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from s2f_rl.data.audio import SPEECH_RATE_HZ

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
