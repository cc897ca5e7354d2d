"""Corruptions of the mouth: still, never closed, closed when it should be open, displaced."""

from __future__ import annotations

import torch
from torch import Tensor

from s2f_rl.data.units import MILLIMETRE
from s2f_rl.rewards.corruptions.base import LIP, CorruptionContext, register

APART_MM = 3.0
CLOSURE_S = 0.1
CLOSURE_EVERY_S = 0.5
OFFSET_MM = 2.0


@register("mouth", (LIP,), "mouth does not move")
def frozen_mouth(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """The face holds one of its poses; only the upper face goes on.

    Only the lip score ought to notice. The realism score sees 5 frames and no sound: a mouth that is still for that
    long is what pauses, held closures and long vowels look like, and the pose is one of the speaker's own. Taught to
    call it unreal, the score would pay for a mouth that never rests.
    """
    frame = int(torch.randint(len(displacement), (1,), generator=context.generator))
    held = displacement[frame].expand_as(displacement).clone().unflatten(-1, (-1, 3))
    still = context.motion.still
    held[:, still] = displacement.unflatten(-1, (-1, 3))[:, still]
    return torch.lerp(displacement, held.flatten(-2), strength)


@register("mouth", (LIP,), "lips stay 3 mm further apart than at rest")
def missing_closure(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """Lips that never meet: opened along the corpus's own opening motion wherever they are closer than that."""
    motion = context.motion
    rest, now = (motion.lip_to_lip(face).norm(dim=-1) for face in (context.template, context.template + displacement))
    lift = (rest + strength * APART_MM * MILLIMETRE - torch.maximum(now, rest)).clamp_min(0)
    return displacement + lift[:, None] * motion.opening


@register("mouth", (LIP,), "100 ms at the lips' rest distance, once in every half second")
def extra_closure(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """Lips that meet where they should be apart: pulled together by the corpus's own motion.

    One closure in every half second, at a moment drawn in proportion to how far the lips are open. It takes 100 ms
    at half height and one frame to close and to open again, as true closures do, which is why realism is not asked.
    Strength is the share of the opening beyond rest that is taken away.
    """
    motion, n_frames = context.motion, len(displacement)
    apart = motion.lip_to_lip(context.template + displacement)
    rest, now = motion.lip_to_lip(context.template).norm(dim=-1), apart.norm(dim=-1)
    excess = (now - rest).clamp_min(0)

    length = CLOSURE_S * context.fps
    frame, closed = torch.arange(n_frames), torch.zeros(n_frames)
    n_closures = max(1, round(n_frames / (CLOSURE_EVERY_S * context.fps)))
    draws = torch.rand(n_closures, generator=context.generator)
    for piece, draw in zip(frame.tensor_split(n_closures), draws, strict=True):
        piece = piece[: max(1, len(piece) - round(length) - 2)]  # so that no two closures run together
        share = (excess[piece] + 1e-12).cumsum(0)
        moment = int(piece[0]) + int((share < draw * share[-1]).sum())
        closed = torch.maximum(closed, (0.5 + length / 2 - (frame - moment).abs()).clamp(0, 1))

    # the lips' distance as a vector shrinks by this much, through the likeliest coefficients that do so (a Gaussian's)
    change = -(strength * closed * excess / now.clamp_min(1e-12))[:, None] * apart
    lead = motion.std[:, None] * motion.lip_to_lip(motion.basis)
    return displacement + (change @ torch.linalg.pinv(lead, rtol=1e-3) * motion.std) @ motion.basis


@register("mouth", (LIP,), "2 mm RMS at the lips, the same in every frame")
def constant_offset(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """A mouth that is a little open, pursed or to one side the whole time: every pose is moved by the same vector.

    The vector is drawn from the motion subspace, each direction by how much it moves the lips in true motion. Any 5
    frames of it are a plausible pose and movement, so only the lip score ought to notice.
    """
    motion = context.motion
    draws = torch.randn(len(motion.std), generator=context.generator)
    offset = (draws * motion.std * motion.lip_square.sqrt()) @ motion.basis
    length = OFFSET_MM * MILLIMETRE / motion.lip_rms(offset).clamp_min(1e-12)
    return displacement + strength * length * offset
