"""How much reward can be had for nothing: gradient ascent on a motion, within a few tenths of a millimetre.

A policy that is trained long enough finds what the reward overlooks. The attack finds it at once: it moves a motion by
at most a radius, uphill. What it gains where nothing about the motion became better is a weakness of the reward; a
random change of the same size says how much of it is the size alone.

The trust region bounds the root mean square length of the change over the whole sequence, over the lip vertices
*and* over the whole face: with the lips alone bounded, the attack would push the forehead anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from s2f_rl.errors import UserError
from s2f_rl.keys import SCORE_MASK
from s2f_rl.rewards.contract import Reward, asks_for_style
from s2f_rl.rewards.judge.judge import AnyReward

_MEAN_DECAY, _SQUARE_DECAY = 0.8, 0.95  # of Adam's averages, for a few dozen steps
_GROW, _SHRINK = 1.15, 0.6
_TINY = 1e-20
_SAFETY = 1 - 1e-5  # rounding must not carry a change over the radius

Objective = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class MotionSpace:
    """Where an attack may move: everywhere, or within the span of some directions.

    Attributes:
        name: for tables. basis: [K, V*3] orthonormal rows, None for every vertex coordinate.
    """

    name: str
    basis: Tensor | None = None

    @classmethod
    def spanned(cls, name: str, rows: Tensor) -> MotionSpace:
        """The span of rows [N, V*3], orthonormalised. Raises UserError when they are all zero."""
        _, sizes, directions = torch.linalg.svd(rows.double(), full_matrices=False)
        kept = sizes > 1e-5 * sizes[0]
        if not float(sizes[0]) > 0:
            raise UserError(f"the motion space {name!r} has no direction: use an actor that was trained")
        return cls(name, directions[kept].float())

    def encode(self, change: Tensor) -> Tensor:
        """Changes [..., V*3] -> coordinates in the space [..., K], of the part that lies in it."""
        return change if self.basis is None else change @ self.basis.T

    def decode(self, coordinates: Tensor) -> Tensor:
        """Coordinates [..., K] -> changes [..., V*3]."""
        return coordinates if self.basis is None else coordinates @ self.basis

    def noise(self, n_lanes: int, n_frames: int, n_coordinates: int, generator: torch.Generator) -> Tensor:
        """White noise [B, T, V*3] in the space, of no particular size."""
        if self.basis is None:
            return torch.randn(n_lanes, n_frames, n_coordinates, generator=generator)
        return torch.randn(n_lanes, n_frames, len(self.basis), generator=generator) @ self.basis


def change_rms(change: Tensor, lips: Tensor) -> tuple[Tensor, Tensor]:
    """Root mean square length of changes [B, T, V*3] over frames and vertices: ([B] lips, [B] face), metres."""
    squares = change.unflatten(-1, (-1, 3)).double().square().sum(-1)
    return squares[..., lips].mean((-1, -2)).sqrt(), squares.mean((-1, -2)).sqrt()


def into_region(change: Tensor, radius: Tensor, lips: Tensor, space: MotionSpace) -> Tensor:
    """Bring changes [B, T, V*3] into the trust region of ``radius`` [B] over the lips and over the face.

    Free changes go to the nearest point: lips and the other vertices are scaled apart. Confined ones are scaled as a
    whole, which keeps them in their space.
    """
    radius = radius.double() * _SAFETY
    lip, face = change_rms(change, lips)
    if space.basis is not None:
        scale = (radius / torch.maximum(lip, face).clamp_min(1e-300)).clamp_max(1.0)
        return change * scale[:, None, None].to(change.dtype)
    n_lips, n_vertices = len(lips), change.shape[-1] // 3
    whole = (radius / face.clamp_min(1e-300)).clamp_max(1.0)
    on_lips = (radius / lip.clamp_min(1e-300)).clamp_max(1.0)
    # with both bounds met exactly, this is what is left to the other vertices (sums of squares, over the frames' mean)
    left = radius.square() * (n_vertices - n_lips)
    others = (n_vertices * face.square() - n_lips * lip.square()).clamp_min(1e-300)
    beside = (left / others).sqrt().clamp_max(1.0)
    lips_bind = whole * lip > radius
    scale = torch.where(lips_bind, beside, whole)[:, None].expand(-1, n_vertices).clone()
    scale[:, lips] = torch.where(lips_bind, on_lips, whole)[:, None]
    return change * scale.repeat_interleave(3, dim=1)[:, None].to(change.dtype)


def score_objective(scorer: AnyReward, template: Tensor, audio: Tensor, weights: Tensor) -> Objective:
    """Mean over clips of weighted scores, differentiable in the displacement.

    Args:
        scorer: reward model or judge. template: [V*3]. audio: [n, E] of the utterance.
        weights: [B, K] of its scores (lip, real), for each lane; or [1, K], the same for all.

    Returns:
        displacements [B, T, V*3] -> [B].
    """

    def objective(displacement: Tensor) -> Tensor:
        found = scorer.score_batch(template + displacement, audio.expand(len(displacement), *audio.shape))
        mask = found[SCORE_MASK].float()
        total = torch.zeros(len(displacement), device=mask.device)
        for column, key in enumerate(scorer.score_names):
            mean = (found[key] * mask).sum(1) / mask.sum(1).clamp_min(1)
            total = total + weights[:, column].to(mask.device) * mean
        return total

    return objective


def reward_objective(reward: Reward, prepared: object, template: Tensor, style: Tensor) -> Objective:
    """Sum of a reward's scores, each its mean over the frames that have it, differentiable in the displacement.

    Args:
        reward: frozen. prepared: of the utterance whose speech is scored. template: [V*3], metres.
        style: [S] of the motion, zeros if it is not known.

    Returns:
        displacements [B, T, V*3] -> [B].
    """

    def objective(displacement: Tensor) -> Tensor:
        n_lanes = len(displacement)
        there = torch.ones(displacement.shape[:2], dtype=torch.bool, device=displacement.device)
        given = template + displacement, [prepared] * n_lanes, there
        if asks_for_style(reward):
            found = reward.score_motion(*given, style=style.expand(n_lanes, -1))
        else:
            found = reward.score_motion(*given)
        total = torch.zeros(n_lanes, device=displacement.device)
        for value, mask in found.values():
            total = total + (value * mask).sum(1) / mask.sum(1).clamp_min(1)
        return total

    return objective


@dataclass
class Attacked:
    """What an attack found. ``change`` [B, T, V*3] of the best iterate; ``before``, ``after`` [B] the objective there;
    ``course`` [steps + 1, B] the objective of every iterate."""

    change: Tensor
    before: Tensor
    after: Tensor
    course: Tensor


def ascend(
    objective: Objective,
    start: Tensor,
    radius: Tensor,
    lips: Tensor,
    space: MotionSpace,
    steps: int = 60,
    first_step: float = 1e-5,
) -> Attacked:
    """Climb an objective from a motion, inside a trust region and a space.

    Projected ascent along Adam's direction (Kingma and Ba, 2015), in the coordinates of the space, each lane with a
    step size of its own: it grows while the objective does; after a step that lost, the lane goes back to its best
    point and steps shorter. A reward may be far steeper than its radius is wide: on one, steps of a tenth of the
    radius found nothing where small ones doubled the score.

    Args:
        objective: displacements [B, T, V*3] -> [B].
        start: [B, T, V*3], metres.
        radius: [B], metres, of the trust region.
        lips: indices of the lip vertices.
        space: where the change may lie; the start may lie anywhere.
        steps: gradients taken.
        first_step: root mean square length per vertex of the first step, metres; at most half the radius.

    Returns:
        the best iterate of each lane, the start among them: ``after`` is never below ``before``.
    """
    change = best_change = torch.zeros_like(start)
    rate = (0.5 * radius).clamp_max(first_step)
    best = torch.full_like(radius, -torch.inf)
    mean: Tensor | float = 0.0
    square: Tensor | float = 0.0
    course = []
    for step in range(steps + 1):
        moving = change.detach().requires_grad_(True)
        with torch.enable_grad():
            value = objective(start + moving)
            gradient = torch.autograd.grad(value.sum(), moving)[0] if step < steps else None
        value = value.detach().to(best)
        course.append(value)
        won = value > best
        best = torch.where(won, value, best)
        best_change = torch.where(won[:, None, None], change, best_change)
        if gradient is not None:
            inside = space.encode(torch.nan_to_num(gradient))
            mean = _MEAN_DECAY * mean + (1 - _MEAN_DECAY) * inside
            square = _SQUARE_DECAY * square + (1 - _SQUARE_DECAY) * inside.square()
            bias = 1 - _SQUARE_DECAY ** (step + 1)  # that of the mean falls out of a direction
            direction = space.decode(mean / ((square / bias).sqrt() + _TINY))
            if step:
                rate = torch.where(won, rate * _GROW, rate * _SHRINK)
            change = into_region(best_change + rate[:, None, None] * _unit(direction), radius, lips, space)
    return Attacked(best_change, course[0], best, torch.stack(course))


def random_changes(
    start: Tensor, radius: Tensor, lips: Tensor, space: MotionSpace, generator: torch.Generator
) -> Tensor:
    """White noise [B, T, V*3] in the space, as large as the trust region of ``radius`` [B] allows."""
    n_lanes, n_frames, n_coordinates = start.shape
    noise = space.noise(n_lanes, n_frames, n_coordinates, generator)
    lip, face = change_rms(noise, lips)
    scale = radius.double() * _SAFETY / torch.maximum(lip, face)
    return noise * scale[:, None, None].to(noise.dtype)


def _unit(change: Tensor) -> Tensor:
    """Each lane of [B, T, V*3] brought to a root mean square length per vertex of 1; zero stays zero."""
    size = change.unflatten(-1, (-1, 3)).square().sum(-1).mean((-1, -2)).sqrt()
    return change / size.clamp_min(1e-30)[:, None, None]
