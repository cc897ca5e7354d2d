"""Log-mel clips for the reward's audio encoder: 5 video frames of sound each, one clip per video frame.

The reward backbone (Chae-Yeon et al., CVPR 2025) was trained on Kaldi filter banks that were told 16 kHz whatever the
waveform's rate, so that 19.2 kHz speech looks slower than it is. That is kept: other features would be out of the
distribution the backbone knows.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch

CLIP_FRAMES = 5
"""Video frames in a clip."""
SAMPLES_PER_FRAME = 640
"""Samples per video frame: the waveform's rate is 640 * fps, 19200 Hz for 30 fps and 16000 Hz for 25 fps."""
CLIP_SAMPLES = CLIP_FRAMES * SAMPLES_PER_FRAME
CLIP_SHAPE = (20, 128)
_FRAME, _SHIFT, _BINS = 128, 160, 128
_PRE_EMPHASIS = 0.97
NATS_PER_UNIT = 2 * 4.5689974
"""One unit of a mel clip in nats of energy: AudioSet's standard deviation twice, as the backbone was trained."""
_MEAN = -4.2677393  # of AudioSet
_CHUNK = 512  # clips at a time; bounds the memory for long recordings


def n_mel_clips(n_samples: int) -> int:
    """Number of clips that ``n_samples`` at 640*fps Hz make: one every 640 samples while 3200 remain."""
    return max(0, (n_samples - CLIP_SAMPLES) // SAMPLES_PER_FRAME + 1)


def mel_clips(waveform: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Log-mel clips of a waveform.

    Args:
        waveform: [N] mono, -1..1, sampled at 640*fps Hz.

    Returns:
        float32 [n, 20, 128] with n = :func:`n_mel_clips`; clip i belongs to the video frames i..i+4. Speech of less
        than 5 frames gives [0, 20, 128]. The lowest value is -1.2775939, that of an empty filter.

    Raises:
        ValueError: the waveform has more than one dimension.
    """
    waveform = torch.as_tensor(waveform, dtype=torch.float32)
    if waveform.ndim != 1:
        raise ValueError(f"mel_clips: expected a mono waveform [N], got the shape {tuple(waveform.shape)}")
    n = n_mel_clips(len(waveform))
    if n == 0:
        return waveform.new_empty((0, *CLIP_SHAPE))
    windows = waveform.unfold(0, CLIP_SAMPLES, SAMPLES_PER_FRAME)
    return torch.cat([_log_mel(windows[start : start + _CHUNK]) for start in range(0, n, _CHUNK)])


def _log_mel(windows: torch.Tensor) -> torch.Tensor:
    """[n, 3200] -> [n, 20, 128]: Kaldi's fbank with 8 ms Hann frames every 10 ms of a nominal 16 kHz."""
    windows = windows - windows.mean(dim=-1, keepdim=True)
    frames = windows.unfold(-1, _FRAME, _SHIFT)
    frames = frames - frames.mean(dim=-1, keepdim=True)
    frames = frames - _PRE_EMPHASIS * torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
    hann = torch.hann_window(_FRAME, periodic=False, device=frames.device)
    power = torch.fft.rfft(frames * hann).abs() ** 2
    energy = power @ mel_filter_bank().to(frames.device).T
    log_energy = energy.clamp(min=torch.finfo(torch.float32).eps).log()
    return (log_energy - _MEAN) / NATS_PER_UNIT


@lru_cache(maxsize=1)
def mel_filter_bank() -> torch.Tensor:
    """Triangles on the HTK mel scale from 20 Hz to 8 kHz over the bins of a 128-point FFT at 16 kHz: [128, 65].

    With so few bins 38 of the triangles hold none and stay empty; the last bin (8 kHz) has weight 0 in all.
    """
    low, high = 1127 * math.log(1 + 20 / 700), 1127 * math.log(1 + 8000 / 700)
    step = (high - low) / (_BINS + 1)
    triangle = torch.arange(_BINS)[:, None]
    left, centre, right = (low + (triangle + shift) * step for shift in range(3))
    bin_mel = (1127 * torch.log(1 + 125.0 * torch.arange(64) / 700))[None]
    weights = torch.minimum((bin_mel - left) / (centre - left), (right - bin_mel) / (right - centre)).clamp(min=0)
    return torch.nn.functional.pad(weights, (0, 1))
