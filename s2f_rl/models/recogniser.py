"""A small phone recogniser: residual convolutions on log-mel at 50 Hz."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2f_rl.models.log_mel import normed_pairs, slaney_filters, slaney_log_mel
from s2f_rl.models.time_norms import BandNorm


class PhoneRecogniser(nn.Module):
    """``recogniser(recogniser.bands(waveform [B, N])) -> logits [B, C, n_phones]``, C frames at 50 Hz.

    ``waveform`` is mono at 16 kHz with zero mean and unit variance. Frame k is about sample 320 k + 280, the middle of
    its two windows, and hears ``look_around`` frames on either side.

    Args:
        n_phones: classes.
        width: channels.
        n_layers: residual convolutions of 5 frames, with dilations 1, 2, 1, 2, ...
        n_mels: mel bands from 40 Hz to 7.6 kHz, each centred and scaled over the utterance.
    """

    mel_filters: Tensor
    window: Tensor

    def __init__(self, n_phones: int, width: int = 128, n_layers: int = 6, n_mels: int = 40) -> None:
        super().__init__()
        self.n_phones, self.width, self.n_layers, self.n_mels = n_phones, width, n_layers, n_mels
        self.register_buffer("mel_filters", torch.from_numpy(slaney_filters(n_mels)).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(400), persistent=False)
        self.band_norm = BandNorm()
        self.input = nn.Linear(2 * n_mels, width)
        self.convolutions = residual_convolutions(width, n_layers)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(n_layers + 1))
        self.phones = nn.Linear(width, n_phones)

    @property
    def look_around(self) -> int:
        """Frames at 50 Hz that a frame hears before and after itself."""
        return sum(2 * (1 + i % 2) for i in range(self.n_layers))

    def bands(self, waveform: Tensor) -> Tensor:
        """Normed log-mel [B, C, 2 * n_mels] at 50 Hz."""
        return normed_pairs(slaney_log_mel(waveform, self.mel_filters, self.window), self.band_norm)

    def hidden(self, bands: Tensor) -> Tensor:
        """What the phones are told from: [B, C, 2 * n_mels] -> [B, C, width]."""
        return convolved(self.input(bands), self.convolutions, self.norms)

    def forward(self, bands: Tensor) -> Tensor:
        return self.phones(self.hidden(bands))


def residual_convolutions(width: int, n_layers: int) -> nn.ModuleList:
    """Convolutions of 5 frames with dilations 1, 2, 1, 2, ..., as :func:`convolved` takes them."""
    return nn.ModuleList(
        nn.Conv1d(width, width, 5, dilation=1 + i % 2, padding=2 * (1 + i % 2)) for i in range(n_layers)
    )


def convolved(x: Tensor, convolutions: nn.ModuleList, norms: nn.ModuleList) -> Tensor:
    """[B, T, width] through residual convolutions, each after its norm, and through the last norm."""
    for norm, convolution in zip(norms, convolutions, strict=False):
        x = x + F.gelu(convolution(norm(x).transpose(1, 2))).transpose(1, 2)
    return norms[-1](x)
