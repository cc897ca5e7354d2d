"""Corruptions of the timing: motion too early or too late, frames held, frames cut out."""

from __future__ import annotations

import torch
from torch import Tensor

from s2f_rl.rewards.corruptions.base import LIP, REAL, CorruptionContext, register
from s2f_rl.rewards.corruptions.tools import at_positions, delayed

SHIFT_S = 0.2
HOLD_S = 0.2
CUT_S = 0.1
CUT_SIDE_S = 0.1
EVERY_S = 0.5


@register("time", (LIP,), "200 ms")
def shift_early(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """The motion comes before its sound."""
    return delayed(displacement, -strength * SHIFT_S * context.fps)


@register("time", (LIP,), "200 ms")
def shift_late(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """The motion comes after its sound."""
    return delayed(displacement, strength * SHIFT_S * context.fps)


@register("time", (LIP, REAL), "one hold of 200 ms in every half second")
def frame_hold(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """The whole face freezes at random moments and then jumps to where it should be, as dropped video frames do.

    Strength is the length of the holds. The last frame of a hold is blended where that is no whole number of frames.
    """
    n_frames, length = len(displacement), HOLD_S * context.fps
    frame = torch.arange(n_frames, dtype=torch.float32)
    source, held = torch.arange(n_frames), torch.zeros(n_frames)
    for first, last, draw in _pieces(n_frames, context):
        start = first + int(draw * max(1.0, last - first - length))  # the hold ends before the piece does
        inside = (frame > start) & (frame < last)
        source[inside] = start
        held[inside] = (strength * length + 1 - (frame[inside] - start)).clamp(0, 1)
    return torch.lerp(displacement, displacement[source], held[:, None])


@register("time", (REAL,), "one cut of 100 ms in every half second")
def frame_drop(displacement: Tensor, strength: float, context: CorruptionContext) -> Tensor:
    """Jump cuts: a short piece is left out at random moments, and the 100 ms on both sides slowed to fill the time.

    Strength is the length of the cuts. The motion is never more than half of that (50 ms) away from its sound, which
    viewers hardly notice (ITU-R BT.1359), so only realism is asked to.
    """
    n_frames = len(displacement)
    frame = torch.arange(n_frames, dtype=torch.float64)
    position = frame.clone()
    for first, last, draw in _pieces(n_frames, context):
        cut = first + int((last - first) * (0.25 + 0.5 * draw)) + 0.5  # between two frames, away from the next cut
        away = 1 - (frame - cut).abs() / (CUT_SIDE_S * context.fps)
        position += away.clamp_min(0) * (frame - cut).sign() * (strength * CUT_S * context.fps / 2)
    return at_positions(displacement, position.clamp(0, n_frames - 1))


def _pieces(n_frames: int, context: CorruptionContext) -> list[tuple[int, int, float]]:
    """Pieces of half a second that cover the motion: first frame, frame after the last, and a draw in [0, 1)."""
    size = max(2, round(EVERY_S * context.fps))
    edges = [round(n_frames * i / max(1, round(n_frames / size))) for i in range(max(1, round(n_frames / size)) + 1)]
    draws = torch.rand(len(edges) - 1, generator=context.generator).tolist()
    return list(zip(edges[:-1], edges[1:], draws, strict=True))
