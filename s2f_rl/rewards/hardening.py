"""Negatives that the reward itself would like: found by gradient ascent while it trains.

A policy climbs its reward, and so finds motions that no list of corruptions holds. Here the same climb is made on the
clips of a batch, within a trust region around true or spoiled motion, and what it finds is ranked below the truth
(adversarial training, Madry et al., 2018, with a ranking loss in place of labels).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from s2f_rl.rewards.clips import ClipBatch
from s2f_rl.rewards.head import ScoreHead
from s2f_rl.rewards.motion import MotionStatistics
from s2f_rl.rewards.projection import MeshProjection
from s2f_rl.rewards.speech_mesh import SpeechMeshTransformer
from s2f_rl.rewards.training import ranking_loss


@dataclass
class ChangeGeometry:
    """How much a face has to move for what the first layer sees to change.

    A change of the projection is ``white @ free`` or ``white @ motion``, and the root mean square of the rows of
    ``white`` is then the movement of the vertices that it takes, in the corpus's unit: the root of the mean of the
    squared movement over the lips and over the whole face.

    Attributes:
        free: [R, R] any vertex may move (the smallest movement with that projection).
        motion: [K, R] the face moves as faces of the corpus do.
    """

    free: Tensor
    motion: Tensor

    @classmethod
    def of(cls, projection: MeshProjection, motion: MotionStatistics) -> ChangeGeometry:
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

    def to(self, device: str | torch.device) -> ChangeGeometry:
        """The geometry on another device."""
        return ChangeGeometry(self.free.to(device), self.motion.to(device))


def climbed(
    backbone: SpeechMeshTransformer,
    head: ScoreHead,
    clips: Tensor,
    audio: Tensor,
    directions: Tensor,
    radius: Tensor,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Clips after ``steps`` of normalised gradient ascent on lip + real (log-odds), inside a trust region.

    Args:
        clips: [N, 5, R] projected frames. audio: [N, E]. directions: [D, R], of :class:`ChangeGeometry`.
        radius: [N] largest root mean square movement over a clip.
        generator: of the random start within half the radius.
    """
    was_training = head.training
    head.eval()  # the climb is on the reward as it will be used
    draws = torch.randn(len(clips), clips.shape[1], len(directions), generator=generator).to(clips.device)
    bound = radius[:, None, None]
    change = 0.5 * bound * draws / _rms(draws)
    for _ in range(steps):
        change.requires_grad_(True)
        mesh = backbone.encode_embedded(backbone.embed_frames(clips + change @ directions))
        objective = sum(each.sum() for each in head.log_odds(audio, mesh))
        gradient = torch.autograd.grad(torch.as_tensor(objective), change)[0]
        with torch.no_grad():
            change = change + bound * (1.5 / steps) * gradient / _rms(gradient)
            change = change * (bound / _rms(change)).clamp_max(1.0)
    head.train(was_training)
    return (clips + change.detach() @ directions).detach()


def hardening_loss(
    backbone: SpeechMeshTransformer,
    head: ScoreHead,
    batch: ClipBatch,
    audio: Tensor,
    geometry: ChangeGeometry,
    generator: torch.Generator,
    radii: tuple[float, float],
    steps: int = 4,
) -> Tensor:
    """Ranking loss of the true clips, and of where a climb set out, above what the climb finds.

    Climbs set out from the true clips or from a spoiled version of them; a short way does not turn spoiled into true.

    Args:
        batch: from the sampler. audio: [N, E] of its true pairs.
        radii: smallest and largest trust region, in the corpus's unit; drawn log-uniformly for each clip.
    """
    n_true, device = len(batch.mel), batch.clips.device
    start = torch.arange(n_true)
    spoiled = torch.randint(n_true, len(batch.clips), (n_true,), generator=generator)
    own = batch.audio.cpu()
    start = torch.where(torch.rand(n_true, generator=generator) < 0.5, start, spoiled)
    low, high = radii
    radius = low * (high / low) ** torch.rand(n_true, generator=generator)
    whole = torch.rand((), generator=generator) < 0.5
    rows, better = start.to(device), own[start].to(device)
    heard = audio.detach()[better]
    directions = geometry.free if whole else geometry.motion
    found = climbed(backbone, head, batch.clips[rows], heard, directions, radius.to(device), steps, generator)
    clips = torch.cat([batch.clips[better], batch.clips[rows], found])
    mesh = backbone.encode_embedded(backbone.embed_frames(clips))
    scores = torch.stack(head.log_odds(heard.repeat(3, 1), mesh), -1)
    true, before, after = scores.unflatten(0, (3, n_true)).unbind(0)
    even = torch.ones_like(true)
    return 0.5 * (ranking_loss(true, after, even) + ranking_loss(before, after, even))


def _rms(change: Tensor) -> Tensor:
    """[N, 5, D] -> [N, 1, 1]: root of the mean over the frames of the squared length."""
    return change.square().sum(-1, keepdim=True).mean(1, keepdim=True).sqrt().clamp_min(1e-12)


def _regular(matrix: Tensor) -> Tensor:
    return matrix + 1e-9 * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=matrix.dtype)
