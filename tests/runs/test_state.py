"""A run that is saved, thrown away and restored goes on with the very same numbers."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from s2f_rl.errors import UserError
from s2f_rl.runs.checkpoints import load_checkpoint, save_checkpoint
from s2f_rl.runs.ema import PolicyAverage
from s2f_rl.runs.state import TrainingState, rng_state, seed_everything, set_rng_state


def draw() -> list[float]:
    """One of each global generator; a Gaussian, because numpy and Python keep half a pair."""
    return [torch.randn(()).item(), np.random.standard_normal(), random.gauss(0, 1), np.random.rand(), random.random()]


class TestRandomness:
    def test_the_draws_go_on_through_a_file(self, tmp_path: Path) -> None:
        seed_everything(5)
        draw()
        save_checkpoint(tmp_path / "rng.pt", rng_state())
        expected = [draw() for _ in range(3)]
        seed_everything(99)
        set_rng_state(load_checkpoint(tmp_path / "rng.pt"))
        assert [draw() for _ in range(3)] == expected

    def test_seeding_makes_runs_equal_and_seeds_different(self) -> None:
        draws = []
        for seed in (1, 1, 2):
            seed_everything(seed)
            draws.append(draw())
        assert draws[0] == draws[1]
        assert all(a != b for a, b in zip(draws[0], draws[2], strict=True))


class Toy:
    """A small run with every kind of part."""

    def __init__(self, seed: int = 0) -> None:
        seed_everything(seed)
        self.policy = torch.nn.Linear(3, 1)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=0.1)
        self.average = PolicyAverage(self.policy, decay=0.9)
        self.env_draws = np.random.default_rng(seed)
        self.noise = torch.Generator().manual_seed(seed)
        self.state = TrainingState(
            policy=self.policy,
            optimizer=self.optimizer,
            average=self.average,
            env=self.env_draws,
            noise=self.noise,
            scheduler=None,
        )

    def step(self) -> float:
        x = torch.randn(4, 3) + torch.randn(4, 3, generator=self.noise) + float(self.env_draws.normal())
        loss = (self.policy(x) - np.random.rand()).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.average.update()
        self.state.iteration += 1
        self.state.frames += 4
        with self.average.swapped_in():
            return loss.item() + self.policy.weight.sum().item()


class TestTrainingState:
    def test_a_resumed_run_equals_the_unbroken_one(self, tmp_path: Path) -> None:
        toy = Toy()
        for _ in range(3):
            toy.step()
        toy.state.best = 0.25
        save_checkpoint(tmp_path / "last.pt", toy.state.state_dict())
        expected = [toy.step() for _ in range(4)]

        fresh = Toy(seed=123)
        fresh.state.load_state_dict(load_checkpoint(tmp_path / "last.pt"))
        assert (fresh.state.iteration, fresh.state.frames, fresh.state.best) == (3, 12, 0.25)
        assert [fresh.step() for _ in range(4)] == expected

    def test_parts_must_match(self) -> None:
        state = Toy().state.state_dict()
        with pytest.raises(UserError, match="holds the parts"):
            TrainingState(policy=torch.nn.Linear(3, 1)).load_state_dict(state)

    def test_a_part_of_another_shape_is_named(self) -> None:
        state = TrainingState(policy=torch.nn.Linear(3, 1)).state_dict()
        with pytest.raises(UserError, match="part 'policy' does not fit"):
            TrainingState(policy=torch.nn.Linear(4, 1)).load_state_dict(state)

    def test_another_kind_of_checkpoint(self) -> None:
        with pytest.raises(UserError, match="no training state"):
            TrainingState().load_state_dict({"model": {}})


class TestPolicyAverage:
    def test_formula_and_swap(self) -> None:
        module = torch.nn.Linear(2, 1)
        frozen = module.bias.requires_grad_(False)
        average = PolicyAverage(module, decay=0.75)
        expected = module.weight.detach().clone()
        for step in range(4):
            with torch.no_grad():
                module.weight.add_(step + 1.0)
                frozen.add_(1.0)
            average.update()
            expected = 0.75 * expected + 0.25 * module.weight.detach()
        own, own_bias = module.weight.detach().clone(), frozen.clone()
        with average.swapped_in():
            torch.testing.assert_close(module.weight.detach(), expected)
            assert torch.equal(frozen, own_bias)
        assert torch.equal(module.weight, own)

    def test_the_own_weights_return_after_an_error(self) -> None:
        module = torch.nn.Linear(2, 1)
        average = PolicyAverage(module)
        with torch.no_grad():
            module.weight.add_(1.0)
        own = module.weight.detach().clone()
        with pytest.raises(RuntimeError, match="boom"), average.swapped_in():
            raise RuntimeError("boom")
        assert torch.equal(module.weight, own)

    def test_decay_is_a_fraction(self) -> None:
        with pytest.raises(ValueError, match="decay"):
            PolicyAverage(torch.nn.Linear(1, 1), decay=1.5)
