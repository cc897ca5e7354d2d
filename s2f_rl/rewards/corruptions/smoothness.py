"""Corruptions of the smoothness: shaking, blurred and averaged motion."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from s2f_rl.data.units import MILLIMETRE
from s2f_rl.rewards.corruptions.base import LIP, REAL, CorruptionContext, register
from s2f_rl.rewards.corruptions.tools import smoothed

JITTER_MM = 1.0
SMOOTHING_S = 0.1


@register("smoothness", (REAL,), "1 mm RMS per vertex, white in space and time")
def jitter(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """Every vertex shakes for itself."""
    noise = torch.randn(displacement.shape, generator=context.generator)
    return displacement + noise * (strength * JITTER_MM * MILLIMETRE / math.sqrt(3.0))


@register("smoothness", (LIP, REAL), "Gaussian over time, sigma 100 ms")
def over_smoothing(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """Fast movements are blurred."""
    return smoothed(displacement, strength * SMOOTHING_S * context.fps)


@register("smoothness", (LIP, REAL), "all of what a least-squares regressor predicts", needs=("regression",))
def regression_to_mean(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """What training with vertex MSE leads to: the mean motion for this speech."""
    assert context.regression is not None
    return torch.lerp(displacement, context.regression, strength)
