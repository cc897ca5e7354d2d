"""Corruptions of the identity: somebody else's motion, or the same speaker's in another sentence."""

from __future__ import annotations

import torch
from torch import Tensor

from s2f_rl.rewards.corruption_base import LIP, CorruptionContext, register
from s2f_rl.rewards.corruption_tools import fitted, stretched


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


@register("identity", (LIP,), "all of another sentence's motion below the eyes", needs=("other_utterance",))
def lip_swap(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """The mouth says something else, under the speaker's own eyes and brows."""
    return _swapped(displacement, strength, context, upper_face=False)


@register("identity", (), "all of another sentence's motion of the upper face", needs=("other_utterance",))
def upper_face_swap(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """Eyes and brows of another sentence over the speaker's own mouth: a control, which no score ought to mind.

    Blinks and brows tell little about the phones, so a reward that punishes this has learned what it should not.
    """
    return _swapped(displacement, strength, context, upper_face=True)


def _swapped(displacement: Tensor, strength: float, context: CorruptionContext, upper_face: bool) -> Tensor:
    """Another sentence's motion in the upper face (which a frozen mouth leaves alone), or everywhere else."""
    assert context.other_utterance is not None
    other = fitted(context.other_utterance, len(displacement), context.generator)
    inside = torch.zeros(displacement.shape[-1] // 3, dtype=torch.bool)
    inside[context.motion.still] = True
    weight = strength * (inside == upper_face).float().repeat_interleave(3)
    return torch.lerp(displacement, other, weight)
