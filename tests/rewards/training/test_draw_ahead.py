"""Batches that are made ahead in threads are those that would have been made in turn, also after a resume."""

from __future__ import annotations

import threading

import pytest
import torch

from s2f_rl.errors import UserError
from s2f_rl.rewards.corruptions import chosen_corruptions
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.clips import ClipSampler
from s2f_rl.rewards.training.draw_ahead import DrawAhead, Planned
from s2f_rl.rewards.training.listening import plan_pairs
from s2f_rl.rewards.training.projection import MeshProjection
from s2f_rl.rewards.training.recordings import MotionBank
from s2f_rl.rewards.training.speech_augmentation import SpeechAugmentation
from tests.rewards.settings import CLIPS

FIRST, LAST = 2, 5  # iterations that listen, and all


def draws(bank: MotionBank, motion: MotionSubspace, threads: int) -> DrawAhead:
    projection = MeshProjection.fit(motion, 4, torch.Generator().manual_seed(0))
    options = {**CLIPS, "capture_noise_mm": 0.2}
    sampler = ClipSampler(bank, motion, projection, bank.fit_regressor(motion), chosen_corruptions(), 3, **options)
    channel = SpeechAugmentation(6.0, 4.0, 30.0)

    def plan(iteration: int) -> Planned:
        return plan_pairs(sampler, motion, channel, 3, 2) if iteration <= FIRST else sampler.plan()

    return DrawAhead(sampler, plan, LAST, threads)


def same(one: object, other: object) -> bool:
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in pairs)


def test_any_number_of_threads_draws_the_same(bank: MotionBank, motion: MotionSubspace) -> None:
    with draws(bank, motion, 0) as alone, draws(bank, motion, 3) as ahead:
        for iteration in range(1, LAST + 1):
            first, second = alone(iteration), ahead(iteration)
            assert same(first, second)
            kept = alone.state_dict(), ahead.state_dict()
            assert all(torch.equal(kept[0][key], kept[1][key]) for key in kept[0]), "the state is of the batch in use"
    assert not threading.active_count() > 1 or not any(t.name.startswith("draw") for t in threading.enumerate())


@pytest.mark.parametrize("stop", [1, FIRST, FIRST + 1])
def test_a_resume_makes_the_next_batch_again(bank: MotionBank, motion: MotionSubspace, stop: int) -> None:
    with draws(bank, motion, 2) as whole, draws(bank, motion, 2) as broken, draws(bank, motion, 0) as resumed:
        batches = {iteration: whole(iteration) for iteration in range(1, LAST + 1)}
        for iteration in range(1, stop + 1):
            broken(iteration)
        resumed.load_state_dict(dict(broken.state_dict()))
        for iteration in range(stop + 1, LAST + 1):
            assert same(resumed(iteration), batches[iteration])


def test_a_mistake_in_a_thread_is_told() -> None:
    def broken() -> int:
        raise UserError("mend it")

    class Sampler:
        def state_dict(self) -> dict[str, int]:
            return {}

        def load_state_dict(self, state: dict[str, int]) -> None: ...

    with DrawAhead(Sampler(), lambda _: Planned([broken], sum), 3, 2) as ahead, pytest.raises(UserError, match="mend"):
        ahead(1)
