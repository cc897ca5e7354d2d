"""Norms over the time axis of an audio encoder, with statistics that come from elsewhere than the piece at hand.

wav2vec2-base centres and scales each channel of its first convolution over the whole recording (``nn.GroupNorm`` with a
group per channel), the mel encoder each band. A piece of a recording would get statistics of its own, so they are
gathered beforehand (:func:`measure_sound`), or as the sound arrives.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class BandNorm(nn.Module):
    """Each channel of [B, T, C] with zero mean and unit deviation over T; .01 is added to the deviation."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True, correction=0) + 1e-2)


@dataclass
class RunningMoments:
    """Mean and variance (biased) per channel of all that was added, float64 [C]; ``n`` values of each."""

    n: int = 0
    mean: Tensor | float = 0.0
    variance: Tensor | float = 0.0

    def add(self, x: Tensor) -> None:
        """Take in x [C, n], of the pieces' own moments (Chan, Golub and LeVeque, 1983)."""
        n = x.shape[1]
        if not n:
            return
        variance, mean = (part.double() for part in torch.var_mean(x, 1, correction=0))
        share, shift = n / (self.n + n), mean - self.mean
        self.variance = self.variance + share * (variance - self.variance) + share * (1 - share) * shift.square()
        self.mean = self.mean + share * shift
        self.n += n


class SoundStatistics:
    """What normalises a piece of sound: moments of the waveform, and of what the encoder's norm over time is given.

    Args:
        raw: samples come as they were recorded; else they already have zero mean and unit variance and stay.

    Attributes:
        waveform: [1], of samples at 16 kHz.
        norm: [C]; empty where the encoder has no norm over time.
        fixed: they stay as they are; else every piece is added before it is normalised.
    """

    def __init__(self, raw: bool = False) -> None:
        self.raw, self.fixed = raw, False
        self.waveform, self.norm = RunningMoments(), RunningMoments()

    def normalise(self, samples: Tensor, n_own: int) -> Tensor:
        """Samples [n], the first ``n_own`` of them in no later piece, as :func:`s2f_rl.data.audio.normalise` does."""
        if not self.raw:
            return samples
        if not self.fixed:
            self.waveform.add(samples[None, :n_own])
        scale = (torch.as_tensor(self.waveform.variance) + 1e-7).sqrt()
        return ((samples - torch.as_tensor(self.waveform.mean).to(samples)) / scale.to(samples)).contiguous()


def norms_over_time(encoder: nn.Module) -> list[nn.Module]:
    """The modules of an encoder that normalise each channel over time."""
    return [
        module
        for module in encoder.modules()
        if isinstance(module, BandNorm)
        or (isinstance(module, nn.GroupNorm) and module.num_groups == module.num_channels)
    ]


@contextmanager
def normed_by(encoder: nn.Module, statistics: SoundStatistics, n_samples: int, n_own: int | None) -> Iterator[None]:
    """Inside, the encoder's norm over time takes its moments from ``statistics``.

    Args:
        encoder: with at most one such norm.
        statistics: takes the piece in first, unless fixed.
        n_samples: of the piece that is encoded.
        n_own: features of 50 Hz, from the first on, that are in no later piece; None: all that there is.
    """

    def replace(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        x = _channels_first(module, inputs)
        if not statistics.fixed:
            statistics.norm.add(x[0, :, : _own_positions(x.shape[2], n_samples, n_own)])
        moments = (torch.as_tensor(each)[:, None] for each in (statistics.norm.mean, statistics.norm.variance))
        mean, variance = moments
        if isinstance(module, nn.GroupNorm):
            scale = (variance + module.eps).rsqrt() * module.weight.double()[:, None]
            return torch.addcmul((module.bias.double()[:, None] - mean * scale).to(x), x, scale.to(x))
        return ((x - mean.to(x)) / (variance.sqrt() + 1e-2).to(x)).transpose(1, 2)

    handles = [module.register_forward_hook(replace) for module in norms_over_time(encoder)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Heard(Exception):
    """Ends a forward pass where there is nothing more to hear."""


@contextmanager
def listening(encoder: nn.Module, statistics: SoundStatistics, n_samples: int, n_own: int | None) -> Iterator[None]:
    """Inside, a forward pass of the encoder adds a piece to ``statistics`` and ends there; see :func:`normed_by`."""

    def hear(module: nn.Module, inputs: tuple[Tensor]) -> None:
        x = _channels_first(module, inputs)
        statistics.norm.add(x[0, :, : _own_positions(x.shape[2], n_samples, n_own)])
        raise _Heard

    handles = [module.register_forward_pre_hook(hear) for module in norms_over_time(encoder)]
    try:
        yield
    except _Heard:
        pass
    finally:
        for handle in handles:
            handle.remove()


def _channels_first(module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    return inputs[0] if isinstance(module, nn.GroupNorm) else inputs[0].transpose(1, 2)


def _own_positions(n_positions: int, n_samples: int, n_own: int | None) -> int:
    """How many of the norm's positions belong to the first ``n_own`` features: a whole number of them to each."""
    return n_positions if n_own is None else n_own * round(320 * n_positions / n_samples)
