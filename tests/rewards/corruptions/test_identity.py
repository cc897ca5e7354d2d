"""Somebody else's motion: whose it is, where it goes, and how much of the time it takes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from s2f_rl.rewards import corruptions as module
from s2f_rl.rewards.corruptions import CORRUPTIONS, CorruptionContext
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.recordings import MotionBank


class TestSwaps:
    def test_each_leaves_the_other_region_alone(
        self, displacement: Tensor, context: CorruptionContext, motion: MotionSubspace
    ) -> None:
        upper = torch.zeros(45, dtype=torch.bool)
        upper[motion.still] = True
        results = {}
        for name in ("wrong_utterance", "lip_swap", "upper_face_swap"):
            context.generator.manual_seed(2)
            results[name] = CORRUPTIONS[name](displacement, 1.0, context).view(len(displacement), 45, 3)
        truth = displacement.view(len(displacement), 45, 3)
        for name, inside in (("lip_swap", ~upper), ("upper_face_swap", upper)):
            assert torch.equal(results[name][:, ~inside], truth[:, ~inside])
            assert torch.allclose(results[name][:, inside], results["wrong_utterance"][:, inside], atol=1e-8)
            assert not torch.allclose(results[name][:, inside], truth[:, inside], atol=1e-5)


class TestShareOfTheTime:
    """Strength of an identity corruption: how much of the time is foreign, in one stretch that may go round the end."""

    NAMES = ("wrong_utterance", "wrong_speaker", "lip_swap", "upper_face_swap")

    def foreign(self, name: str, strength: float, seed: int, truth: Tensor, context: CorruptionContext) -> list[float]:
        versions = []
        for each in (strength, 1.0):
            context.generator.manual_seed(seed)
            versions.append(CORRUPTIONS[name](truth, each, context))
        part, whole = versions
        weight = (part - truth).norm(dim=1) / (whole - truth).norm(dim=1).clamp_min(1e-12)
        assert torch.allclose(part, torch.lerp(truth, whole, weight[:, None]), atol=1e-6), "a blend, frame by frame"
        return [round(w, 3) for w in weight.tolist()]

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("strength", [0.25, 0.5, 0.75])
    def test_one_stretch_of_that_share(
        self, name: str, strength: float, displacement: Tensor, context: CorruptionContext
    ) -> None:
        for seed in range(4):
            weight = self.foreign(name, strength, seed, displacement, context)
            n = len(weight)
            assert abs(sum(weight) - strength * n) < 1.01
            assert sum(w not in (0.0, 1.0) for w in weight) <= 6, "faded over three frames at each end"
            rises = sum(weight[t] == 1.0 and weight[t - 1] < 1.0 for t in range(n))
            assert rises == 1, "one stretch, which may go round the end"

    def test_a_smaller_share_is_part_of_a_larger_one(self, displacement: Tensor, context: CorruptionContext) -> None:
        small, large = (self.foreign("wrong_utterance", s, 3, displacement, context) for s in (0.3, 0.6))
        assert all(a <= b + 1e-3 for a, b in zip(small, large, strict=True))

    def test_every_frame_is_foreign_equally_often(self, displacement: Tensor, context: CorruptionContext) -> None:
        runs = [self.foreign("wrong_utterance", 0.5, seed, displacement, context) for seed in range(200)]
        mean = torch.tensor(runs).mean(0)
        assert float((mean - 0.5).abs().max()) < 0.15  # 4 standard errors of a share of 200


class TestWrongUtterance:
    def test_is_the_same_speaker_saying_something_else(self, bank: MotionBank, motion: MotionSubspace) -> None:
        context = bank.context(0, motion, torch.Generator().manual_seed(1))
        mine = bank[0]
        spoiled = CORRUPTIONS["wrong_utterance"](mine.displacement, 1.0, context)
        others = [p for p in range(len(bank)) if bank.subjects[p] == mine.subject and p != 0]
        assert others
        found = [
            torch.allclose(spoiled, module.stretched(bank[p].displacement, len(spoiled)), atol=1e-6)
            or any(torch.allclose(spoiled[0], row, atol=1e-6) for row in bank[p].displacement)
            for p in others
        ]
        assert any(found)


class TestWrongSpeaker:
    def test_is_the_same_sentence_of_another(self, bank: MotionBank, motion: MotionSubspace) -> None:
        context = bank.context(0, motion, torch.Generator().manual_seed(1))
        mine = bank[0]
        spoiled = CORRUPTIONS["wrong_speaker"](mine.displacement, 1.0, context)
        same = [p for p in range(len(bank)) if bank.sentences[p] == mine.sentence and bank.subjects[p] != mine.subject]
        assert any(torch.allclose(spoiled, module.stretched(bank[p].displacement, len(spoiled))) for p in same)
