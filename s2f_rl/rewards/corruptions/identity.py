"""Corruptions of the identity: somebody else's motion, or the same speaker's in another sentence.

Strength is the share of the *time* that is foreign, not a blend: half of one motion and half of another is worse than
either of them, so that blends are not graded by their weight.
"""

from __future__ import annotations

import torch
from torch import Tensor

from s2f_rl.rewards.corruptions.base import LIP, CorruptionContext, register
from s2f_rl.rewards.corruptions.tools import fitted, stretched

_FADE_FRAMES = 3


@register("identity", (LIP,), "all of another sentence's motion", needs=("other_utterance",))
def wrong_utterance(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """The same speaker says something else."""
    assert context.other_utterance is not None
    other = fitted(context.other_utterance, len(displacement), context.generator)
    return torch.lerp(displacement, other, _foreign(len(displacement), strength, context.generator)[:, None])


@register("identity", (LIP,), "all of another speaker's motion, stretched to fit", needs=("other_speaker",))
def wrong_speaker(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """Another speaker's motion: roughly the same words, other timing and habits."""
    assert context.other_speaker is not None
    other = stretched(context.other_speaker, len(displacement))
    return torch.lerp(displacement, other, _foreign(len(displacement), strength, context.generator)[:, None])


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
    weight = _foreign(len(displacement), strength, context.generator)
    return torch.lerp(displacement, other, weight[:, None] * (inside == upper_face).float().repeat_interleave(3))


def _foreign(n_frames: int, share: float, generator: torch.Generator) -> Tensor:
    """Weight of the foreign motion in every frame [n_frames]: 1 in one stretch of this ``share`` of the time.

    It starts at a random frame and goes on at the beginning when it meets the end, so that all frames are foreign
    equally often; a smaller share is a part of a larger one. Both of its ends are faded over at most three frames.
    """
    start = int(torch.randint(n_frames, (1,), generator=generator))
    if share == 1:
        return torch.ones(n_frames)
    into = (torch.arange(n_frames) - start) % n_frames + 0.5
    length = share * n_frames
    fade = max(min(_FADE_FRAMES, length), 1e-6)
    return (torch.minimum(into, length - into) / fade + 0.5).clamp(0.0, 1.0)
