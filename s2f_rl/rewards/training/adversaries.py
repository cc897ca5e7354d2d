"""Negatives that the reward itself would like: found by gradient ascent while it trains.

A policy climbs its reward, and so finds motions that no list of corruptions holds. Here the same climb is made on the
clips of a batch, within a trust region around true or spoiled motion, and what it finds is ranked below the truth
(adversarial training, Madry et al., 2018, with a ranking loss in place of labels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from s2f_rl.data.units import MILLIMETRE
from s2f_rl.errors import UserError
from s2f_rl.rewards.model.head import ScoreHead
from s2f_rl.rewards.model.speech_mesh import SpeechMeshTransformer
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.clips import ClipBatch
from s2f_rl.rewards.training.encoding import Encoding
from s2f_rl.rewards.training.losses import encoded_mesh, ranking_loss
from s2f_rl.rewards.training.projection import MeshProjection


@dataclass
class ChangeGeometry:
    """How much a face has to move for what the first layer sees to change.

    A change of the projection is ``white @ free`` or ``white @ motion``, and the root mean square of the rows of
    ``white`` is then the movement of the vertices that it takes, in metres: the root of the mean of the
    squared movement over the lips and over the whole face.

    Attributes:
        free: [R, R] any vertex may move (the smallest movement with that projection).
        motion: [K, R] the face moves as faces of the corpus do.
    """

    free: Tensor
    motion: Tensor

    @classmethod
    def of(cls, projection: MeshProjection, motion: MotionSubspace) -> ChangeGeometry:
        """Derive it from the projection's matrix, the lips and the motion basis."""
        rows, basis = projection.matrix.double(), motion.basis.double()
        n_vertices = rows.shape[1] // 3
        weight = torch.full((n_vertices,), 0.5 / n_vertices, dtype=torch.float64)
        weight[motion.lips] += 0.5 / len(motion.lips)
        weight = weight.repeat_interleave(3)
        free = torch.linalg.cholesky(_regular((rows / weight) @ rows.T))  # rows D^-1 rows^T = L L^T
        inner = torch.linalg.cholesky(_regular((basis * weight) @ basis.T))
        seen = torch.linalg.solve_triangular(inner, basis @ rows.T, upper=False)
        return cls(free.T.float().contiguous(), seen.float().contiguous())


def climbed(
    backbone: SpeechMeshTransformer,
    head: ScoreHead,
    clips: Tensor,
    audio: Tensor,
    directions: Tensor,
    radius: Tensor,
    steps: int,
    generator: torch.Generator,
    encoding: Encoding | None = None,
) -> Tensor:
    """Clips after ``steps`` of normalised gradient ascent on lip + real (log-odds), inside a trust region.

    Args:
        clips: [N, 5, R] projected frames. audio: [N, E]. directions: [D, R], of :class:`ChangeGeometry`.
        radius: [N] largest root mean square movement over a clip.
        generator: of the random start within half the radius.
        encoding: how the mesh half is run; None: in float32, as a whole.
    """
    was_training = head.training
    head.eval()  # the climb is on the reward as it will be used
    draws = torch.randn(len(clips), clips.shape[1], len(directions), generator=generator).to(clips.device)
    bound = radius[:, None, None]
    change = 0.5 * bound * draws / _rms(draws)
    for _ in range(steps):
        change.requires_grad_(True)
        mesh = encoded_mesh(backbone, clips + change @ directions, encoding)
        objective = sum(each.sum() for each in head.log_odds(audio, mesh))
        gradient = torch.autograd.grad(torch.as_tensor(objective), change)[0]
        with torch.no_grad():
            change = change + bound * (1.5 / steps) * gradient / _rms(gradient)
            change = change * (bound / _rms(change)).clamp_max(1.0)
    head.train(was_training)
    return (clips + change.detach() @ directions).detach()


class Hardening:
    """The loss that ranks what a climb finds below the truth.

    Args:
        projection, motion: what the first layer sees, and how faces move.
        radii_mm: smallest and largest trust region, millimetres; drawn log-uniformly for each clip.
        steps: of the climb.
        hold: weight of a second ranking: where a climb set out, above what it finds. It makes the reward flat around
            what it meets, so that less can be bought; with few voices it costs some of what the reward notices.
    """

    def __init__(
        self,
        projection: MeshProjection,
        motion: MotionSubspace,
        radii_mm: Sequence[float],
        steps: int,
        hold: float,
    ) -> None:
        self.geometry = ChangeGeometry.of(projection, motion)
        self.low, self.high = (MILLIMETRE * radius for radius in radii_mm)
        if not 0 < self.low <= self.high:
            raise UserError(f"radii_mm={list(radii_mm)}: give the smallest and the largest trust region, above 0")
        self.steps, self.hold = steps, hold

    def __call__(
        self,
        backbone: SpeechMeshTransformer,
        head: ScoreHead,
        batch: ClipBatch,
        audio: Tensor,
        generator: torch.Generator,
        encoding: Encoding | None = None,
    ) -> Tensor:
        """Ranking loss of the true clips above what a climb finds, near them or near a spoiled version of them.

        Args:
            batch: from the sampler. audio: [N, E] of its true pairs. generator: of all draws.
            encoding: how the mesh half is run; None: in float32, as a whole.
        """
        n_true, device = len(batch.mel), batch.clips.device
        spoiled = torch.randint(n_true, len(batch.clips), (n_true,), generator=generator)
        start = torch.where(torch.rand(n_true, generator=generator) < 0.5, torch.arange(n_true), spoiled).to(device)
        radius = self.low * (self.high / self.low) ** torch.rand(n_true, generator=generator)
        free = bool(torch.rand((), generator=generator) < 0.5)
        better = batch.audio[start]  # the true clips come first, so a clip's row of speech is its true version too
        heard = audio.detach()[better]
        directions = (self.geometry.free if free else self.geometry.motion).to(device)
        clips = batch.clips[start]
        found = climbed(backbone, head, clips, heard, directions, radius.to(device), self.steps, generator, encoding)
        versions = torch.cat([batch.clips[better], found] + ([clips] if self.hold else []))
        mesh = encoded_mesh(backbone, versions, encoding)
        scores = torch.stack(head.log_odds(heard.repeat(len(versions) // n_true, 1), mesh), -1)
        true, after, *before = scores.unflatten(0, (-1, n_true)).unbind(0)
        even = torch.ones_like(true)
        loss = ranking_loss(true, after, even)
        return loss + self.hold * ranking_loss(before[0], after, even) if before else loss


def _rms(change: Tensor) -> Tensor:
    """[N, 5, D] -> [N, 1, 1]: root of the mean over the frames of the squared length."""
    return change.square().sum(-1, keepdim=True).mean(1, keepdim=True).sqrt().clamp_min(1e-12)


def _regular(matrix: Tensor) -> Tensor:
    return matrix + 1e-9 * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=matrix.dtype)
