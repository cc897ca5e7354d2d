"""Every corruption: strength 1 in units, strength 0 is nothing, and draws do not depend on strength."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from s2f_rl.errors import UserError
from s2f_rl.rewards import corruptions as module
from s2f_rl.rewards.corruptions import CORRUPTIONS, CorruptionContext, chosen_corruptions
from s2f_rl.rewards.motion.subspace import MotionSubspace

ALL = sorted(CORRUPTIONS)


def sine(n_frames: int, n_coordinates: int, period_frames: float) -> Tensor:
    """A wave of 1 cm with a phase of its own in every coordinate."""
    phase = torch.linspace(0, 3, n_coordinates)
    return 0.01 * torch.sin(2 * math.pi * torch.arange(n_frames)[:, None] / period_frames + phase)


class TestFamily:
    @pytest.mark.parametrize("name", ALL)
    def test_strength_zero_changes_nothing(self, name: str, displacement: Tensor, context: CorruptionContext) -> None:
        kept = displacement.clone()
        spoiled = CORRUPTIONS[name](displacement, 0.0, context)
        assert torch.allclose(spoiled, displacement, atol=1e-7)
        assert torch.equal(displacement, kept), "the input was changed"

    @pytest.mark.parametrize("name", ALL)
    def test_more_strength_more_change(self, name: str, displacement: Tensor, context: CorruptionContext) -> None:
        changes = []
        # the tiny faces move so fast that 200 ms is a whole period: shifts grow up to half of one
        for strength in (0.05, 0.15, 0.3) if name.startswith("shift") else (0.1, 0.4, 1.0):
            context.generator.manual_seed(3)
            spoiled = CORRUPTIONS[name](displacement, strength, context)
            assert spoiled.shape == displacement.shape and torch.isfinite(spoiled).all()
            changes.append(float((spoiled - displacement).square().mean()))
        assert 0 < changes[0] < changes[1] < changes[2]

    @pytest.mark.parametrize("name", ALL)
    def test_same_seed_same_motion(self, name: str, displacement: Tensor, context: CorruptionContext) -> None:
        results = []
        for _ in range(2):
            context.generator.manual_seed(3)
            results.append(CORRUPTIONS[name](displacement, 0.7, context))
        assert torch.equal(*results)

    @pytest.mark.parametrize("name", ALL)
    def test_draws_do_not_depend_on_strength(self, name: str, displacement: Tensor, context: CorruptionContext) -> None:
        states = []
        for strength in (0.0, 0.2, 1.0):
            context.generator.manual_seed(3)
            CORRUPTIONS[name](displacement, strength, context)
            states.append(context.generator.get_state())
        assert torch.equal(states[0], states[1]) and torch.equal(states[0], states[2])

    @pytest.mark.parametrize("fps", [25.0, 30.0, 60.0])
    @pytest.mark.parametrize("n_frames", [5, 28])
    @pytest.mark.parametrize("name", ALL)
    def test_short_stretches(
        self, name: str, n_frames: int, fps: float, displacement: Tensor, context: CorruptionContext
    ) -> None:
        short = dataclasses.replace(
            context,
            fps=fps,
            regression=context.regression[:n_frames],  # type: ignore[index]
            policy_sample=context.policy_sample[:n_frames],  # type: ignore[index]
        )
        spoiled = CORRUPTIONS[name](displacement[:n_frames], 1.0, short)
        assert spoiled.shape == displacement[:n_frames].shape and torch.isfinite(spoiled).all()

    @pytest.mark.parametrize("name", ALL)
    def test_description(self, name: str) -> None:
        corruption = CORRUPTIONS[name]
        assert corruption.name == name and corruption.strength_one and corruption.function.__doc__
        assert set(corruption.heads) <= {"lip_score", "real_score"}
        assert bool(corruption.heads) == (name != "upper_face_swap"), "only the control is nobody's"
        assert module.FAMILIES[corruption.family].__name__ == corruption.function.__module__

    def test_both_sides_of_the_axes_are_there(self) -> None:
        assert {"shift_early", "shift_late", "amplitude_up", "amplitude_down", "jitter", "over_smoothing"} <= set(ALL)

    def test_mistakes(self, displacement: Tensor, context: CorruptionContext) -> None:
        with pytest.raises(UserError, match="strength=1.5"):
            CORRUPTIONS["jitter"](displacement, 1.5, context)
        with pytest.raises(UserError, match="unknown corruption 'nonsense'"):
            chosen_corruptions(["jitter", "nonsense"])
        with pytest.raises(UserError, match="regression"):
            CORRUPTIONS["regression_to_mean"](displacement, 1.0, dataclasses.replace(context, regression=None))
        assert chosen_corruptions(["jitter"]) == [CORRUPTIONS["jitter"]]

    def test_all_for_training_is_what_a_score_ought_to_notice(self) -> None:
        assert {c.name for c in chosen_corruptions()} == set(ALL) - {"upper_face_swap"}
        assert chosen_corruptions(["upper_face_swap"])[0].heads == ()

    def test_the_documentation_lists_them_as_they_are(self) -> None:
        text = (Path(__file__).parents[3] / "docs" / "corruptions.md").read_text()
        rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in text.splitlines() if line.startswith("| `")]
        heads = {(): "none", ("lip_score",): "lip", ("real_score",): "real", ("lip_score", "real_score"): "lip, real"}
        assert sorted(rows) == sorted([f"`{c.name}`", c.family, heads[c.heads]] for c in CORRUPTIONS.values())


class TestShift:
    @pytest.mark.parametrize(("name", "sign"), [("shift_late", 1), ("shift_early", -1)])
    def test_is_200_ms(self, name: str, sign: int, displacement: Tensor, context: CorruptionContext) -> None:
        shifted = CORRUPTIONS[name](displacement, 1.0, context)
        frames = 6  # 200 ms at 30 frames per second
        inside = displacement[:-frames], shifted[frames:]
        if sign < 0:
            inside = displacement[frames:], shifted[:-frames]
        assert torch.allclose(*inside, atol=1e-7)
        held = shifted[:frames] - displacement[0] if sign > 0 else shifted[-frames:] - displacement[-1]
        assert held.abs().max() < 1e-7

    def test_fractions_of_a_frame(self, context: CorruptionContext) -> None:
        ramp = torch.arange(20.0)[:, None].expand(20, 3)
        late = CORRUPTIONS["shift_late"](ramp, 0.25, context)
        assert torch.allclose(late[5:15], ramp[5:15] - 1.5)


class TestFrameHold:
    @pytest.mark.parametrize(("strength", "frames"), [(1.0, 6), (0.5, 3)])
    def test_holds_of_200_ms_and_truth_in_between(
        self, strength: float, frames: int, context: CorruptionContext
    ) -> None:
        truth = torch.arange(60.0)[:, None].expand(60, 135)
        spoiled = CORRUPTIONS["frame_hold"](truth, strength, context)[:, 0].tolist()
        held = [t for t in range(60) if spoiled[t] != t]
        assert len(held) == 4 * frames, "one hold in each half second"
        for first in held[::frames]:
            assert held[held.index(first) :][:frames] == list(range(first, first + frames))
            assert spoiled[first : first + frames] == [first - 1] * frames

    def test_a_part_of_a_frame_is_blended(self, context: CorruptionContext) -> None:
        truth = torch.arange(15.0)[:, None].expand(15, 3)
        late = truth - CORRUPTIONS["frame_hold"](truth, 0.25, context)  # 1.5 frames: 1 late by 1, the next by 2 / 2
        assert sorted(late[:, 0].tolist())[-3:] == [0, 1, 1]


class TestFrameDrop:
    def test_cuts_of_100_ms_and_the_length_kept(self, context: CorruptionContext) -> None:
        truth = torch.arange(60.0, dtype=torch.float64)[:, None].expand(60, 3)
        for seed in range(20):
            context.generator.manual_seed(seed)
            shown = CORRUPTIONS["frame_drop"](truth, 1.0, context)[:, 0]
            step = shown.diff()
            cuts = (step > 1.01).nonzero().flatten().tolist()
            assert len(cuts) == 4, "one in each half second"
            assert torch.allclose(step[cuts], torch.full((4,), 3.5, dtype=torch.float64))  # 3 left out, 0.5 as around
            assert float(step.min()) == pytest.approx(0.5), "slowed, never still or backwards"
            assert float((shown - truth[:, 0]).abs().max()) <= 1.5, "50 ms"
            near = {t for cut in cuts for t in range(cut - 2, cut + 4)}
            far = [t for t in range(60) if t not in near]
            assert len(far) == 60 - 4 * 6 and torch.equal(shown[far], truth[far, 0])


class TestAmplitude:
    def test_up_doubles_and_down_halves(self, displacement: Tensor, context: CorruptionContext) -> None:
        assert torch.allclose(CORRUPTIONS["amplitude_up"](displacement, 1.0, context), 2 * displacement)
        assert torch.allclose(CORRUPTIONS["amplitude_down"](displacement, 1.0, context), 0.5 * displacement)
        assert torch.allclose(CORRUPTIONS["amplitude_up"](displacement, 0.5, context), 1.5 * displacement)


class TestJitter:
    def test_is_one_millimetre_rms(self, context: CorruptionContext) -> None:
        still = torch.zeros(200, 135)
        noise = CORRUPTIONS["jitter"](still, 1.0, context).view(200, 45, 3)
        assert float(noise.square().sum(-1).mean().sqrt()) == pytest.approx(1e-3, rel=0.02)
        flat = noise.flatten(1)
        correlation = (flat[1:] * flat[:-1]).mean() / flat.square().mean()
        assert abs(float(correlation)) < 0.03


class TestOverSmoothing:
    def test_is_a_gaussian_of_100_ms(self, context: CorruptionContext) -> None:
        wave = sine(240, 6, period_frames=20.0)
        smooth = CORRUPTIONS["over_smoothing"](wave, 1.0, context)
        gain = math.exp(-0.5 * (2 * math.pi * 3.0 / 20.0) ** 2)  # sigma of 3 frames at 30 frames per second
        assert torch.allclose(smooth[30:-30], gain * wave[30:-30], atol=2e-5)

    def test_a_held_pose_stays(self, context: CorruptionContext) -> None:
        pose = torch.randn(1, 6).expand(30, 6)
        assert torch.allclose(CORRUPTIONS["over_smoothing"](pose, 1.0, context), pose, atol=1e-6)


class TestRegressionToMean:
    def test_strength_one_is_the_regression(self, displacement: Tensor, context: CorruptionContext) -> None:
        spoiled = CORRUPTIONS["regression_to_mean"](displacement, 1.0, context)
        assert context.regression is not None and torch.allclose(spoiled, context.regression)


class TestFrozenMouth:
    def test_mouth_holds_and_upper_face_goes_on(
        self, displacement: Tensor, context: CorruptionContext, motion: MotionSubspace
    ) -> None:
        frozen = CORRUPTIONS["frozen_mouth"](displacement, 1.0, context).view(len(displacement), -1, 3)
        assert len(motion.still) > 0
        assert torch.allclose(frozen[:, motion.still], displacement.view(len(displacement), -1, 3)[:, motion.still])
        assert float(frozen[:, motion.lips].std(0).max()) < 1e-8
        assert any(torch.allclose(frozen[0, motion.lips], d.view(-1, 3)[motion.lips]) for d in displacement)


class TestMissingClosure:
    def test_lips_stay_three_millimetres_apart(
        self, displacement: Tensor, context: CorruptionContext, motion: MotionSubspace
    ) -> None:
        def opening(d: Tensor) -> Tensor:
            return motion.lip_to_lip(context.template + d).norm(dim=-1)

        rest = opening(torch.zeros_like(displacement[:1]))
        before, after = opening(displacement), opening(CORRUPTIONS["missing_closure"](displacement, 1.0, context))
        assert float(before.min() - rest) < 0.5e-3
        assert float(after.min() - rest) == pytest.approx(3e-3, abs=0.4e-3)
        wide = before > rest + 3e-3
        assert wide.any() and torch.equal(before[wide], after[wide])


class TestExtraClosure:
    def openings(
        self, strength: float, displacement: Tensor, context: CorruptionContext
    ) -> tuple[Tensor, Tensor, Tensor]:
        def opening(d: Tensor) -> Tensor:
            return context.motion.lip_to_lip(context.template + d).norm(dim=-1)

        context.generator.manual_seed(5)
        spoiled = CORRUPTIONS["extra_closure"](displacement, strength, context)
        return opening(torch.zeros_like(displacement[:1])), opening(displacement), opening(spoiled)

    def test_lips_meet_for_100_ms_twice_a_second(self, displacement: Tensor, context: CorruptionContext) -> None:
        wide = displacement[:1] + 0.004 * context.motion.opening
        rest, before, after = self.openings(1.0, wide.expand(60, -1), context)
        assert float((before - rest).min()) > 2e-3
        closed = ((before - after) / (before - rest)).tolist()
        assert sorted(closed) == pytest.approx([0.0] * 48 + [1.0] * 12, abs=5e-3)  # 2 s: 4 closures of 3 frames
        starts = [t for t in range(60) if closed[t] > 0.5 and (t == 0 or closed[t - 1] < 0.5)]
        assert [start // 15 for start in starts] == [0, 1, 2, 3]

    def test_strength_is_the_share_of_the_opening(self, displacement: Tensor, context: CorruptionContext) -> None:
        rest, before, after = self.openings(1.0, displacement, context)
        _, _, half = self.openings(0.5, displacement, context)
        assert torch.allclose(half, (before + after) / 2, atol=1e-5)
        assert (after <= before + 1e-6).all() and (after >= torch.minimum(rest, before) - 1e-5).all()


class TestConstantOffset:
    def test_is_two_millimetres_at_the_lips_in_every_frame(
        self, displacement: Tensor, context: CorruptionContext, motion: MotionSubspace
    ) -> None:
        offset = CORRUPTIONS["constant_offset"](torch.zeros_like(displacement), 1.0, context)
        assert torch.allclose(motion.lip_rms(offset), torch.tensor(2e-3), rtol=1e-4)
        assert torch.equal(offset, offset[:1].expand_as(offset))
        assert (offset - offset @ motion.basis.T @ motion.basis).norm() < 1e-4 * offset.norm()
        other = CORRUPTIONS["constant_offset"](torch.zeros_like(displacement), 1.0, context)
        assert not torch.allclose(other, offset, rtol=0.1), "another direction each time"


class TestRandomMotion:
    def test_keeps_the_spectrum_and_loses_the_phases(
        self, displacement: Tensor, context: CorruptionContext, motion: MotionSubspace
    ) -> None:
        spoiled = CORRUPTIONS["random_motion"](displacement, 1.0, context)
        before, after = motion.coefficients(displacement), motion.coefficients(spoiled)
        power = [torch.fft.rfft(c - c.mean(0), dim=0).abs()[1:-1] for c in (before, after)]
        assert torch.allclose(power[1], power[0], rtol=1e-2, atol=1e-2 * float(power[0].max()))
        first = torch.corrcoef(torch.stack([before[:, 0], after[:, 0]]))[0, 1]
        assert abs(float(first)) < 0.9


class TestPolicyNoise:
    @pytest.mark.parametrize(("name", "millimetres", "correlation"), [
        ("policy_noise", 1.0, 0.0), ("policy_noise_fine", 0.3, 0.0), ("policy_noise_coarse", 3.0, 0.0),
        ("policy_noise_correlated", 1.0, 0.8),
    ])  # fmt: skip
    def test_lip_rms_and_memory(
        self, name: str, millimetres: float, correlation: float, context: CorruptionContext, motion: MotionSubspace
    ) -> None:
        power, product = 0.0, 0.0
        for seed in range(8):
            context.generator.manual_seed(seed)
            noise = CORRUPTIONS[name](torch.zeros(300, 135), 1.0, context)
            power += float(motion.lip_rms(noise).square().mean()) / 8
            product += float((noise[1:] * noise[:-1]).sum() / noise.square().sum()) / 8
            residual = noise - noise @ motion.basis.T @ motion.basis
            assert residual.norm() < 1e-4 * noise.norm(), "outside of the motion subspace"
        assert power**0.5 == pytest.approx(millimetres * 1e-3, rel=0.1)
        assert product == pytest.approx(correlation, abs=0.08)


class TestPolicySamples:
    def test_strength_leads_to_the_sample(self, displacement: Tensor, context: CorruptionContext) -> None:
        assert context.policy_sample is not None
        corruption = CORRUPTIONS["policy_samples"]
        assert torch.allclose(corruption(displacement, 1.0, context), context.policy_sample)
        halfway = (displacement + context.policy_sample) / 2
        assert torch.allclose(corruption(displacement, 0.5, context), halfway, atol=1e-7)
        assert not corruption.possible(dataclasses.replace(context, policy_sample=None))


class TestHelpers:
    def test_stretched_keeps_the_ends(self) -> None:
        ramp = torch.arange(10.0)[:, None]
        assert torch.allclose(module.stretched(ramp, 19)[:, 0], torch.arange(19.0) / 2)

    def test_fitted_takes_a_stretch_or_resamples(self) -> None:
        generator = torch.Generator().manual_seed(0)
        long = torch.arange(10.0)[:, None]
        piece = module.fitted(long, 4, generator)
        assert torch.equal(piece[:, 0] - piece[0, 0], torch.arange(4.0))
        assert module.fitted(long, 30, generator).shape == (30, 1)
