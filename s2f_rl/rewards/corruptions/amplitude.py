"""Corruptions of the amplitude: movements too large or too small."""

from __future__ import annotations

from torch import Tensor

from s2f_rl.rewards.corruptions.base import LIP, REAL, CorruptionContext, register

AMPLITUDE_UP = 2.0
AMPLITUDE_DOWN = 0.5


@register("amplitude", (LIP, REAL), "x2")
def amplitude_up(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """Over-articulation."""
    return displacement * (1.0 + strength * (AMPLITUDE_UP - 1.0))


@register("amplitude", (LIP, REAL), "x0.5")
def amplitude_down(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """Mumbling."""
    return displacement * (1.0 + strength * (AMPLITUDE_DOWN - 1.0))
