"""Ways to spoil a motion, each a small pure function with a strength in [0, 1]; strength 1 is fixed in units.

A reward is only as good as its negatives, so every axis has both sides. A corruption maps a displacement [T, V*3] to a
displacement [T, V*3]; strength 0 returns it unchanged. Random ones draw from ``context.generator`` only, and
draw the same for every strength, so a weak and a strong version differ by strength alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from s2f_rl.errors import UserError
from s2f_rl.keys import LIP_SCORE, REAL_SCORE
from s2f_rl.rewards.motion import MotionStatistics, gap

LIP, REAL = LIP_SCORE, REAL_SCORE

SHIFT_S = 0.2
AMPLITUDE_UP = 2.0
AMPLITUDE_DOWN = 0.5
JITTER_MM = 1.0
SMOOTHING_S = 0.1
APART_MM = 3.0
POLICY_NOISE_MM = 1.0
FINE_POLICY_NOISE_MM = 0.3
POLICY_CORRELATION = 0.8


@dataclass
class CorruptionContext:
    """What a corruption may need to know.

    Attributes:
        motion: statistics of the training subjects.
        generator: source of all draws.
        fps: frames per second.
        template: [V*3] the speaker's face at rest, metres.
        other_utterance: [T', V*3] displacement of the same speaker in another sentence.
        other_speaker: [T', V*3] displacement of another speaker, in the same sentence where there is one.
        regression: [T, V*3] displacement that a least-squares regressor predicts from the speech.
    """

    motion: MotionStatistics
    generator: torch.Generator
    fps: float
    template: Tensor
    other_utterance: Tensor | None = None
    other_speaker: Tensor | None = None
    regression: Tensor | None = None


Function = Callable[[Tensor, float, CorruptionContext], Tensor]


@dataclass(frozen=True)
class Corruption:
    """A registered corruption.

    Attributes:
        name: its name. family: for leave-one-family-out. heads: scores that ought to notice it.
        strength_one: what strength 1 is. needs: context fields it cannot do without.
    """

    name: str
    function: Function
    family: str
    heads: tuple[str, ...]
    strength_one: str
    needs: tuple[str, ...] = ()

    def __call__(self, displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
        """Displacement [T, V*3] -> displacement [T, V*3]; strength in [0, 1]."""
        if not 0.0 <= strength <= 1.0:
            raise UserError(f"strength={strength} of {self.name}: must lie between 0 and 1")
        if not self.possible(context):
            raise UserError(f"corruption {self.name} needs {' and '.join(self.needs)}, which this corpus cannot give")
        return self.function(displacement, float(strength), context)

    def possible(self, context: CorruptionContext) -> bool:
        """The context has all it needs."""
        return all(getattr(context, need) is not None for need in self.needs)


CORRUPTIONS: dict[str, Corruption] = {}
"""All corruptions by name, in the order of this file."""


def register(
    family: str, heads: tuple[str, ...], strength_one: str, needs: tuple[str, ...] = ()
) -> Callable[[Function], Function]:
    """Add a function to :data:`CORRUPTIONS` under its own name."""

    def add(function: Function) -> Function:
        name = function.__name__
        CORRUPTIONS[name] = Corruption(name, function, family, heads, strength_one, needs)
        return function

    return add


def chosen_corruptions(names: list[str] | None = None) -> list[Corruption]:
    """Corruptions by name, all of them for None. Unknown names raise UserError."""
    if names is None:
        return list(CORRUPTIONS.values())
    unknown = [name for name in names if name not in CORRUPTIONS]
    if unknown:
        raise UserError(f"unknown corruption {unknown[0]!r}: use some of {', '.join(CORRUPTIONS)}")
    return [CORRUPTIONS[name] for name in names]


# ------------------------------------------------------------------------------------------------------------ time


@register("time", (LIP,), "200 ms")
def shift_early(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """The motion comes before its sound."""
    return delayed(displacement, -strength * SHIFT_S * context.fps)


@register("time", (LIP,), "200 ms")
def shift_late(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """The motion comes after its sound."""
    return delayed(displacement, strength * SHIFT_S * context.fps)


# ------------------------------------------------------------------------------------------------------- amplitude


@register("amplitude", (LIP, REAL), "x2")
def amplitude_up(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """Over-articulation."""
    return displacement * (1.0 + strength * (AMPLITUDE_UP - 1.0))


@register("amplitude", (LIP, REAL), "x0.5")
def amplitude_down(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """Mumbling."""
    return displacement * (1.0 + strength * (AMPLITUDE_DOWN - 1.0))


# ------------------------------------------------------------------------------------------------------ smoothness


@register("smoothness", (REAL,), "1 mm RMS per vertex, white in space and time")
def jitter(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """Every vertex shakes for itself."""
    noise = torch.randn(displacement.shape, generator=context.generator)
    return displacement + noise * (strength * JITTER_MM * context.motion.millimetre / math.sqrt(3.0))


@register("smoothness", (LIP, REAL), "Gaussian over time, sigma 100 ms")
def over_smoothing(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """Fast movements are blurred."""
    return smoothed(displacement, strength * SMOOTHING_S * context.fps)


@register("smoothness", (LIP, REAL), "all of what a least-squares regressor predicts", needs=("regression",))
def regression_to_mean(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """What training with vertex MSE leads to: the mean motion for this speech."""
    assert context.regression is not None
    return torch.lerp(displacement, context.regression, strength)


# ----------------------------------------------------------------------------------------------------------- mouth


@register("mouth", (LIP, REAL), "mouth does not move")
def frozen_mouth(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """The face holds one of its poses; only the upper face goes on."""
    frame = int(torch.randint(len(displacement), (1,), generator=context.generator))
    held = displacement[frame].expand_as(displacement).clone().unflatten(-1, (-1, 3))
    still = context.motion.still
    held[:, still] = displacement.unflatten(-1, (-1, 3))[:, still]
    return torch.lerp(displacement, held.flatten(-2), strength)


@register("mouth", (LIP,), "lips stay 3 mm further apart than at rest")
def missing_closure(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """Lips that never meet: opened along the corpus's own opening motion wherever they are closer than that."""
    motion = context.motion
    rest = gap(context.template, motion.upper_lip, motion.lower_lip)
    now = gap(context.template + displacement, motion.upper_lip, motion.lower_lip)
    lift = (rest + strength * APART_MM * motion.millimetre - torch.maximum(now, rest)).clamp_min(0)
    return displacement + lift[:, None] * motion.opening


# -------------------------------------------------------------------------------------------------------- identity


@register("identity", (LIP,), "all of another sentence's motion", needs=("other_utterance",))
def wrong_utterance(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """The same speaker says something else."""
    assert context.other_utterance is not None
    other = fitted(context.other_utterance, len(displacement), context.generator)
    return torch.lerp(displacement, other, strength)


@register("identity", (LIP,), "all of another speaker's motion, stretched to fit", needs=("other_speaker",))
def wrong_speaker(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """Another speaker's motion: roughly the same words, other timing and habits."""
    assert context.other_speaker is not None
    return torch.lerp(displacement, stretched(context.other_speaker, len(displacement)), strength)


# ----------------------------------------------------------------------------------------------------------- noise


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


@register("noise", (LIP, REAL), "1 mm RMS at the lips, correlation 0.8 from frame to frame, in the motion subspace")
def policy_noise_correlated(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """A policy's noise with memory: it wanders instead of shaking."""
    return displacement + strength * subspace_noise(len(displacement), POLICY_NOISE_MM, POLICY_CORRELATION, context)


# --------------------------------------------------------------------------------------------------------- helpers


def delayed(displacement: Tensor, frames: float) -> Tensor:
    """Displacement [T, V*3] later by ``frames`` (may be a fraction, or negative), ends held, linear in between."""
    n_frames = len(displacement)
    position = (torch.arange(n_frames, dtype=torch.float64) - frames).clamp(0, n_frames - 1)
    return _at(displacement, position)


def stretched(displacement: Tensor, n_frames: int, frames: slice | None = None) -> Tensor:
    """Displacement [T', V*3] resampled to ``n_frames`` (and only some ``frames`` of that), ends aligned, linear."""
    position = torch.linspace(0, len(displacement) - 1, n_frames, dtype=torch.float64)
    return _at(displacement, position if frames is None else position[frames])


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


def subspace_noise(n_frames: int, lip_rms_mm: float, correlation: float, context: CorruptionContext) -> Tensor:
    """Noise [T, V*3] as a policy in a low-dimensional motion space makes it, with a given expected RMS at the lips.

    Normal coefficients decoded by the motion basis; how much each direction gets is drawn anew (between equal
    shares and the shares of true motion, of a random number of directions), since a trained decoder may do either.
    First-order autoregressive over time with ``correlation``.
    """
    motion, generator = context.motion, context.generator
    n_directions = len(motion.std)
    tilt, kept = torch.rand(2, generator=generator).tolist()
    share = (motion.std / motion.std[0]) ** tilt
    share[max(1, math.ceil(n_directions * (0.2 + 0.8 * kept))) :] = 0
    lips = motion.basis.unflatten(-1, (-1, 3))[:, motion.lips].square().sum(-1).mean(-1)
    share = share * (lip_rms_mm * motion.millimetre) / (share.square() @ lips).sqrt().clamp_min(1e-12)
    noise = torch.randn(n_frames, n_directions, generator=generator)
    if correlation:  # z_t = rho z_{t-1} + sqrt(1 - rho^2) e_t, started at equilibrium, written as one product
        age = torch.arange(n_frames)[:, None] - torch.arange(n_frames)
        memory = torch.where(age >= 0, correlation ** age.clamp_min(0).float(), 0.0)
        memory[:, 1:] *= math.sqrt(1 - correlation**2)
        noise = memory @ noise
    return (noise * share) @ motion.basis


def _at(displacement: Tensor, position: Tensor) -> Tensor:
    """Linear interpolation of rows at fractional ``position`` [T]."""
    low = position.floor().long().clamp(0, len(displacement) - 1)
    high = (low + 1).clamp_max(len(displacement) - 1)
    weight = (position - low).to(displacement.dtype)[:, None]
    return torch.lerp(displacement[low], displacement[high], weight)
