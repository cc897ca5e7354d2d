"""Attacks: the trust region holds, a confined attack stays confined, and nothing is ever lost."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from s2f_rl.errors import UserError
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from s2f_rl.rewards.calibration.attack import (
    MotionSpace,
    ascend,
    change_rms,
    into_region,
    random_changes,
    score_objective,
)

V, T = 12, 14
LIPS = torch.tensor([0, 3, 4, 9])


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model() -> RewardModel:
    torch.manual_seed(3)
    return RewardModel(SpeechMeshTransformer(V * 3, 16, depth=1, n_heads=2), ScoreHead(16, 16, 8))


@pytest.fixture(scope="module")
def confined() -> MotionSpace:
    return MotionSpace.spanned("motion", draws(5, V * 3, seed=1))


def slow_rms(change: Tensor, vertices: list[int]) -> float:
    """Root mean square length over frames and the given vertices, by a loop."""
    total = 0.0
    for frame in change.double():
        for vertex in vertices:
            total += float(frame[3 * vertex : 3 * vertex + 3].square().sum())
    return (total / (len(change) * len(vertices))) ** 0.5


class TestSpace:
    def test_spans_the_rows(self) -> None:
        rows = draws(4, V * 3)
        rows = torch.cat([rows, rows[:1] * 2])  # one direction twice
        space = MotionSpace.spanned("motion", rows)
        assert space.basis is not None and space.basis.shape == (4, V * 3)
        assert torch.allclose(space.basis @ space.basis.T, torch.eye(4), atol=1e-5)
        assert torch.allclose(space.decode(space.encode(rows)), rows, atol=1e-5)

    def test_no_direction(self) -> None:
        with pytest.raises(UserError, match="no direction"):
            MotionSpace.spanned("actor", torch.zeros(4, V * 3))

    def test_free_space_leaves_all(self) -> None:
        change = draws(2, T, V * 3)
        assert torch.equal(MotionSpace("free").decode(MotionSpace("free").encode(change)), change)


class TestRegion:
    def test_rms_by_hand(self) -> None:
        change = draws(2, T, V * 3)
        lip, face = change_rms(change, LIPS)
        assert lip[1].item() == pytest.approx(slow_rms(change[1], LIPS.tolist()), rel=1e-6)
        assert face[1].item() == pytest.approx(slow_rms(change[1], list(range(V))), rel=1e-6)

    @pytest.mark.parametrize("scale_lips", [0.01, 1.0, 20.0])
    @pytest.mark.parametrize("free", [True, False])
    def test_holds(self, scale_lips: float, free: bool, confined: MotionSpace) -> None:
        space = MotionSpace("free") if free else confined
        change = draws(3, T, V * 3).unflatten(-1, (V, 3))
        change[:, :, LIPS] *= scale_lips
        change = space.decode(space.encode(change.flatten(-2)))
        radius = torch.tensor([1e-4, 0.7, 1e3])
        held = into_region(change, radius, LIPS, space)
        for sequence, wanted in zip(held, radius.tolist(), strict=True):
            assert slow_rms(sequence, LIPS.tolist()) <= wanted
            assert slow_rms(sequence, list(range(V))) <= wanted
        assert torch.equal(held[2], change[2])  # inside from the first: untouched
        larger = max(slow_rms(held[0], LIPS.tolist()), slow_rms(held[0], list(range(V))))
        assert larger == pytest.approx(1e-4, rel=1e-3)  # and not smaller than it must be

    def test_nearest_point(self) -> None:
        """Against the best of many points of the region, scaled lips and others apart."""
        change = draws(1, T, V * 3).unflatten(-1, (V, 3))
        change[:, :, LIPS] *= 3
        change = change.flatten(-2)
        radius = torch.tensor([1.2])
        held = into_region(change, radius, LIPS, MotionSpace("free"))
        found = float((held - change).norm())
        best = float("inf")
        lips = torch.zeros(V, dtype=torch.bool)
        lips[LIPS] = True
        for on_lips in torch.linspace(0, 1, 101):
            for beside in torch.linspace(0, 1, 101):
                scale = torch.where(lips, on_lips, beside).repeat_interleave(3)
                if max(float(size) for size in change_rms(change * scale, LIPS)) <= 1.2:
                    best = min(best, float((change * scale - change).norm()))
        assert found <= best + 1e-4
        assert found == pytest.approx(best, rel=0.02)

    def test_random_changes_are_as_large_as_allowed(self, confined: MotionSpace) -> None:
        start, radius = torch.zeros(2, T, V * 3), torch.tensor([0.5, 0.0])
        for space in (MotionSpace("free"), confined):
            noise = random_changes(start, radius, LIPS, space, torch.Generator().manual_seed(0))
            lip, face = change_rms(noise, LIPS)
            assert float(torch.maximum(lip, face)[0]) == pytest.approx(0.5, rel=1e-4)
            assert not noise[1].any()
            assert torch.allclose(space.decode(space.encode(noise)), noise, atol=1e-5)


class TestAscend:
    def attacked(self, model: RewardModel, space: MotionSpace, radius: Tensor, weights: Tensor):
        template, start = draws(V * 3, seed=5), 0.3 * draws(T, V * 3, seed=6)
        audio = model.encode_audio(draws(T - 4, 20, 128, seed=7))
        objective = score_objective(model, template, audio, weights)
        starts = start.expand(len(radius), -1, -1)
        return objective, starts, ascend(objective, starts, radius, LIPS, space, 25, first_step=0.02)

    @pytest.mark.parametrize("free", [True, False])
    def test_climbs_within_the_region(self, model: RewardModel, confined: MotionSpace, free: bool) -> None:
        space = MotionSpace("free") if free else confined
        radius, weights = torch.tensor([0.05, 0.5, 0.5]), torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
        objective, start, found = self.attacked(model, space, radius, weights)
        assert (found.after > found.before + 1e-4).all()
        assert found.after[1] > found.after[0]  # a wider region gives more
        for sequence, wanted in zip(found.change, radius.tolist(), strict=True):
            assert slow_rms(sequence, LIPS.tolist()) <= wanted
            assert slow_rms(sequence, list(range(V))) <= wanted
        assert torch.allclose(space.decode(space.encode(found.change)), found.change, atol=1e-6)
        # what is reported is what the reward says of the motion that is returned
        assert torch.allclose(objective(start + found.change), found.after, atol=1e-6)
        assert torch.allclose(objective(start), found.before, atol=1e-6)
        assert torch.equal(found.after, found.course.amax(0))

    def test_objective_is_the_mean_over_clips(self, model: RewardModel) -> None:
        template, mel = draws(V * 3, seed=5), draws(T - 6, 20, 128, seed=7)
        displacement = draws(2, T, V * 3, seed=8)
        audio = model.encode_audio(mel)
        weights = torch.tensor([[1.0, 1.0], [0.0, 2.0]])
        found = score_objective(model, template, audio, weights)(displacement)
        for lane in range(2):
            scores = model.score(template + displacement[lane], mel)
            means = [float(scores[key][scores["score_mask"]].mean()) for key in ("lip_score", "real_score")]
            wanted = float(weights[lane] @ torch.tensor(means))
            assert found[lane].item() == pytest.approx(wanted, rel=1e-5)

    def test_never_below_the_start(self) -> None:
        """From the top of a hill nothing can be gained, and nothing is lost."""
        start = draws(2, T, V * 3)

        def hill(displacement: Tensor) -> Tensor:
            return -(displacement - start - torch.tensor([0.0, 0.1])[:, None, None]).abs().sum((1, 2))

        found = ascend(hill, start, torch.tensor([0.5, 0.5]), LIPS, MotionSpace("free"), 20, first_step=0.1)
        assert found.after[0] == found.before[0] == 0
        assert not found.change[0].any()
        assert found.after[1] > found.before[1]

    def test_reaches_the_edge_of_a_slope(self) -> None:
        """On a plane Adam goes along the signs of the gradient, whose cosine to it is sqrt(2 / pi) for normal draws."""
        slope = draws(T, V * 3, seed=2)
        start, radius = torch.zeros(1, T, V * 3), torch.tensor([0.8])
        found = ascend(lambda d: (d * slope).sum((1, 2)), start, radius, LIPS, MotionSpace("free"), 30, first_step=0.1)
        steepest = into_region(1e3 * slope[None], radius, LIPS, MotionSpace("free"))
        assert found.after[0].item() > 0.97 * (2 / torch.pi) ** 0.5 * float((steepest * slope).sum())
        assert max(float(size) for size in change_rms(found.change, LIPS)) == pytest.approx(0.8, rel=1e-3)
