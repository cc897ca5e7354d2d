"""Adversarial negatives: the geometry of changes against vertices, and what a climb may and does do."""

from __future__ import annotations

import pytest
import torch

from s2f_rl.errors import UserError
from s2f_rl.rewards import ScoreHead, SpeechMeshTransformer
from s2f_rl.rewards.corruptions import chosen_corruptions
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.adversaries import ChangeGeometry, Hardening, climbed
from s2f_rl.rewards.training.clips import ClipSampler
from s2f_rl.rewards.training.losses import ranking_loss
from s2f_rl.rewards.training.projection import MeshProjection
from s2f_rl.rewards.training.recordings import MotionBank
from tests.rewards.settings import CLIPS


@pytest.fixture(scope="module")
def projection(motion: MotionSubspace) -> MeshProjection:
    return MeshProjection.fit(motion, 4, torch.Generator().manual_seed(0))


def size(change: torch.Tensor, motion: MotionSubspace) -> torch.Tensor:
    """Root of the mean of the squared vertex movement over the lips and over the face, of changes [N, V*3]."""
    squares = change.view(len(change), -1, 3).square().sum(-1)
    return (0.5 * squares[:, motion.lips].mean(1) + 0.5 * squares.mean(1)).sqrt()


class TestGeometry:
    def test_motion_rows_are_vertex_changes(self, motion: MotionSubspace, projection: MeshProjection) -> None:
        geometry = ChangeGeometry.of(projection, motion)
        white = torch.randn(7, len(motion.basis), generator=torch.Generator().manual_seed(1)) * 1e-3
        # the vertices behind a row of `white`: solve for the coefficients whose size is the row's length
        seen = motion.basis @ projection.matrix.T
        coefficients = torch.linalg.lstsq(seen.T.double(), (white @ geometry.motion).T.double()).solution.T.float()
        change = coefficients @ motion.basis
        assert torch.allclose(change @ projection.matrix.T, white @ geometry.motion, atol=1e-4)
        assert torch.allclose(size(change, motion), white.norm(dim=1), rtol=1e-2)

    def test_free_is_the_cheapest_change(self, motion: MotionSubspace, projection: MeshProjection) -> None:
        geometry = ChangeGeometry.of(projection, motion)
        white = torch.randn(5, projection.width, generator=torch.Generator().manual_seed(2)) * 1e-3
        wanted = (white @ geometry.free).double()
        n_vertices = projection.matrix.shape[1] // 3
        weight = torch.full((n_vertices,), 0.5 / n_vertices, dtype=torch.float64)
        weight[motion.lips] += 0.5 / len(motion.lips)
        scaled = projection.matrix.double() / weight.repeat_interleave(3).sqrt()
        cheapest = torch.linalg.lstsq(scaled, wanted.T).solution.T  # least norm, in weighted vertices
        assert torch.allclose(cheapest.norm(dim=1).float(), white.norm(dim=1), rtol=1e-3)


class TestClimb:
    def test_stays_inside_and_gains(self, motion: MotionSubspace, projection: MeshProjection) -> None:
        torch.manual_seed(0)
        backbone, head = SpeechMeshTransformer(projection.width, 16, 1, 2), ScoreHead(16, 16, 16)
        geometry = ChangeGeometry.of(projection, motion)
        draws = torch.Generator().manual_seed(3)
        clips = torch.randn(6, 5, projection.width, generator=draws)
        audio = torch.nn.functional.normalize(torch.randn(6, 16, generator=draws), dim=-1)
        radius = torch.linspace(1e-4, 2e-3, 6)
        head.train()
        after = climbed(backbone, head, clips, audio, geometry.motion, radius, 4, draws)
        assert head.training, "the head is left as it was"
        white = torch.linalg.lstsq(geometry.motion.T.double(), (after - clips).flatten(0, 1).T.double()).solution.T
        rms = white.view(6, 5, -1).square().sum(-1).mean(1).sqrt().float()
        assert (rms <= radius * 1.01).all() and (rms > 0.3 * radius).all()
        head.eval()

        def score(x: torch.Tensor) -> torch.Tensor:
            return sum(head.log_odds(audio, backbone.encode_embedded(backbone.embed_frames(x))))

        assert (score(after) > score(clips)).all()


class TestLoss:
    def test_against_its_parts(self, bank: MotionBank, motion: MotionSubspace, projection: MeshProjection) -> None:
        torch.manual_seed(1)
        backbone, head = SpeechMeshTransformer(projection.width, 16, 1, 2), ScoreHead(16, 16, 16, dropout=0.0)
        sampler = ClipSampler(
            bank, motion, projection, None, chosen_corruptions(["jitter"]), **{**CLIPS, "n_stretches": 3}
        )
        batch = sampler.draw()
        audio = backbone.encode_audio(batch.mel).detach()
        plain, holding = (Hardening(projection, motion, (0.1, 1.0), 2, hold) for hold in (0.0, 0.5))
        losses = [each(backbone, head, batch, audio, torch.Generator().manual_seed(5)) for each in (plain, holding)]
        n = len(batch.mel)
        draws = torch.Generator().manual_seed(5)
        spoiled = torch.randint(n, len(batch.clips), (n,), generator=draws)
        start = torch.where(torch.rand(n, generator=draws) < 0.5, torch.arange(n), spoiled)
        radius = 1e-4 * 10 ** torch.rand(n, generator=draws)
        space = "free" if torch.rand((), generator=draws) < 0.5 else "motion"
        own = batch.audio[start]
        directions = getattr(ChangeGeometry.of(projection, motion), space)
        found = climbed(backbone, head, batch.clips[start], audio[own], directions, radius, 2, draws)

        def odds(clips: torch.Tensor) -> torch.Tensor:
            return torch.stack(head.log_odds(audio[own], backbone.encode_embedded(backbone.embed_frames(clips))), -1)

        even = torch.ones(n, 2)
        expected = ranking_loss(odds(batch.clips[own]), odds(found), even)
        held = ranking_loss(odds(batch.clips[start]), odds(found), even)
        assert losses[0].item() == pytest.approx(expected.item(), rel=1e-4)
        assert losses[1].item() == pytest.approx((expected + 0.5 * held).item(), rel=1e-4)

    def test_mistakes(self, motion: MotionSubspace, projection: MeshProjection) -> None:
        with pytest.raises(UserError, match="radii_mm"):
            Hardening(projection, motion, (1.0, 0.1), steps=2, hold=0.0)
