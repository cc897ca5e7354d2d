"""Corruptions by noise: motion without meaning, and what an exploring policy makes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from s2f_rl.rewards.corruptions.base import LIP, REAL, CorruptionContext, register
from s2f_rl.rewards.corruptions.tools import subspace_noise

POLICY_NOISE_MM = 1.0
FINE_POLICY_NOISE_MM = 0.3
COARSE_POLICY_NOISE_MM = 3.0
POLICY_CORRELATION = 0.8


@register("noise", (LIP, REAL), "all of a motion with the same spectrum and random phases")
def random_motion(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """Plausible movements that mean nothing: each motion coefficient keeps its spectrum and loses its phases.

    Phase-randomised surrogates (Theiler et al., 1992), independent for each coefficient.
    """
    motion = context.motion
    coefficients = motion.coefficients(displacement)
    mean = coefficients.mean(0)
    spectrum = torch.fft.rfft(coefficients - mean, dim=0)
    phase = 2 * math.pi * torch.rand(spectrum.shape, generator=context.generator)
    surrogate = torch.fft.irfft(torch.polar(spectrum.abs(), phase), n=len(displacement), dim=0) + mean
    return torch.lerp(displacement, motion.decode(surrogate), strength)


@register("noise", (LIP, REAL), "1 mm RMS at the lips, white in time, in a random part of the motion subspace")
def policy_noise(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """What an exploring policy adds to its motion. Reward heads have been seen to prefer it."""
    return displacement + strength * subspace_noise(len(displacement), POLICY_NOISE_MM, 0.0, context)


@register("noise", (LIP, REAL), "0.3 mm RMS at the lips, white in time, in a random part of the motion subspace")
def policy_noise_fine(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """The same at the size that reinforcement learning works with."""
    return displacement + strength * subspace_noise(len(displacement), FINE_POLICY_NOISE_MM, 0.0, context)


@register("noise", (LIP, REAL), "3 mm RMS at the lips, white in time, in a random part of the motion subspace")
def policy_noise_coarse(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """The same from a policy whose noise has grown: a reward must go on falling beyond what it met in training."""
    return displacement + strength * subspace_noise(len(displacement), COARSE_POLICY_NOISE_MM, 0.0, context)


@register("noise", (LIP, REAL), "1 mm RMS at the lips, correlation 0.8 from frame to frame, in the motion subspace")
def policy_noise_correlated(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """A policy's noise with memory: it wanders instead of shaking."""
    return displacement + strength * subspace_noise(len(displacement), POLICY_NOISE_MM, POLICY_CORRELATION, context)


@register("noise", (LIP, REAL), "all of a trained policy's motion for this speech", needs=("policy_sample",))
def policy_samples(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """What a policy really makes: too smooth where it regresses to the mean, and whatever else is wrong with it."""
    assert context.policy_sample is not None
    return torch.lerp(displacement, context.policy_sample, strength)
