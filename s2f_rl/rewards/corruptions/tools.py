"""What corruptions share: motion at other times, blurred motion, and noise as a policy makes it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from s2f_rl.data.units import MILLIMETRE
from s2f_rl.rewards.corruptions.base import CorruptionContext


def delayed(displacement: Tensor, frames: float) -> Tensor:
    """Displacement [T, V*3] later by ``frames`` (may be a fraction, or negative), ends held, linear in between."""
    n_frames = len(displacement)
    position = (torch.arange(n_frames, dtype=torch.float64) - frames).clamp(0, n_frames - 1)
    return at_positions(displacement, position)


def stretched(displacement: Tensor, n_frames: int, frames: slice | None = None) -> Tensor:
    """Displacement [T', V*3] resampled to ``n_frames`` (and only some ``frames`` of that), ends aligned, linear."""
    position = torch.linspace(0, len(displacement) - 1, n_frames, dtype=torch.float64)
    return at_positions(displacement, position if frames is None else position[frames])


def fitted(displacement: Tensor, n_frames: int, generator: torch.Generator) -> Tensor:
    """A random stretch of ``n_frames`` of displacement [T', V*3], resampled when it is too short."""
    start = int(torch.randint(max(1, len(displacement) - n_frames + 1), (1,), generator=generator))
    if len(displacement) < n_frames:
        return stretched(displacement, n_frames)
    return displacement[start : start + n_frames]


def smoothed(displacement: Tensor, sigma_frames: float) -> Tensor:
    """Gaussian average over time of displacement [T, V*3], ends held; ``sigma_frames`` 0 changes nothing."""
    if sigma_frames < 1e-3:
        return displacement.clone()
    radius = max(1, math.ceil(4 * sigma_frames))
    at = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (at / sigma_frames) ** 2)
    n_frames = len(displacement)
    place = (torch.arange(n_frames)[:, None] + at.long()).clamp(0, n_frames - 1)
    weights = torch.zeros(n_frames, n_frames).scatter_add_(1, place, (kernel / kernel.sum()).expand(n_frames, -1))
    return weights @ displacement


def at_positions(displacement: Tensor, position: Tensor) -> Tensor:
    """Rows of displacement [T', V*3] at fractional ``position`` [T] in frames, linear in between -> [T, V*3]."""
    low = position.floor().long().clamp(0, len(displacement) - 1)
    high = (low + 1).clamp_max(len(displacement) - 1)
    weight = (position - low).to(displacement.dtype)[:, None]
    return torch.lerp(displacement[low], displacement[high], weight)


def subspace_noise(n_frames: int, lip_rms_mm: float, correlation: float, context: CorruptionContext) -> Tensor:
    """Noise [T, V*3] as a policy in a low-dimensional motion space makes it: :func:`noise_coefficients`, decoded."""
    return noise_coefficients(n_frames, lip_rms_mm, correlation, context) @ context.motion.basis


def noise_coefficients(n_frames: int, lip_rms_mm: float, correlation: float, context: CorruptionContext) -> Tensor:
    """Coefficients [T, K], metres, of noise with a given expected RMS at the lips.

    Normal, in the directions of the motion basis; how much each direction gets is drawn anew (between equal
    shares and the shares of true motion, of a random number of directions), since a trained decoder may do either.
    First-order autoregressive over time with ``correlation``.
    """
    motion, generator = context.motion, context.generator
    n_directions = len(motion.std)
    tilt, kept = torch.rand(2, generator=generator).tolist()
    share = (motion.std / motion.std[0]) ** tilt
    share[max(1, math.ceil(n_directions * (0.2 + 0.8 * kept))) :] = 0
    share = share * (lip_rms_mm * MILLIMETRE) / (share.square() @ motion.lip_square).sqrt().clamp_min(1e-12)
    noise = torch.randn(n_frames, n_directions, generator=generator)
    if correlation:  # z_t = rho z_{t-1} + sqrt(1 - rho^2) e_t, started at equilibrium, written as one product
        age = torch.arange(n_frames)[:, None] - torch.arange(n_frames)
        memory = torch.where(age >= 0, correlation ** age.clamp_min(0).float(), 0.0)
        memory[:, 1:] *= math.sqrt(1 - correlation**2)
        noise = memory @ noise
    return noise * share
