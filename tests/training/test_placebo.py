"""The placebo: every sample is given every reward of its group equally often, which leaves advantages of mean 0."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from tensordict import TensorDict

from s2f_rl.losses import (
    credited_returns,
    group_decoupled_advantage,
    group_normalised_advantage,
    group_relative_advantage,
)
from s2f_rl.training import RewardSignal
from s2f_rl.training.placebo import Placebo

G, T = 3, 5


class Fixed:
    """One given exchange in place of a random one."""

    def __init__(self, lanes):
        self.order = torch.tensor(lanes)

    def lanes(self, n_lanes):
        assert n_lanes == len(self.order)
        return self.order


class Transform:
    scores, weights, scale = ("lip_score", "real_score"), {"lip_score": 2.0, "real_score": 0.5}, 3.0

    def caps(self, utterances):
        return torch.full((len(utterances), 2), torch.inf)


def batch():
    generator = torch.Generator().manual_seed(0)
    out = TensorDict({"utterance": torch.zeros(2 * G, T, 1, dtype=torch.int64)}, [2 * G, T])
    for name in ("reward", "lip_score", "real_score"):
        out["next", name] = torch.rand(2 * G, T, 1, generator=generator, dtype=torch.float64)
    out["next", "score_mask"] = torch.ones(2 * G, T, 1, dtype=torch.bool)
    return out


ADVANTAGES = {
    "leave one out": lambda signal, data, mask: group_relative_advantage(signal(data), mask, G),
    "normalised in its group": lambda signal, data, mask: group_normalised_advantage(
        credited_returns(signal(data), mask, "discounted", 0.7), mask, G
    ),
    "by score": lambda signal, data, mask: group_decoupled_advantage(
        signal.by_name(data), Transform.weights, mask, G, standardise=True
    ),
}


@pytest.mark.parametrize("kind", ADVANTAGES)
@pytest.mark.parametrize("normalise", ["none", "batch"])
def test_no_direction_is_left(kind, normalise):
    """Over all 36 pairs of permutations of two groups: advantages of mean 0 at every frame, of the size of the true."""
    data = batch()
    data["frame_mask"] = mask = torch.ones(2 * G, T, 1, dtype=torch.bool)
    mask[G:, 3:] = False  # groups have lengths of their own
    own = ADVANTAGES[kind](RewardSignal(Transform(), normalise), data, mask)
    total, squares = torch.zeros_like(own), 0.0
    orders = list(itertools.permutations(range(G)))
    for one, other in itertools.product(orders, orders):
        signal = RewardSignal(Transform(), normalise, Fixed([*one, *(G + k for k in other)]))
        given = ADVANTAGES[kind](signal, data, mask)
        torch.testing.assert_close(given[[0, G]], own[[one[0], G + other[0]]])
        total, squares = total + given, squares + float(given.square().sum())
    assert float(own.abs().max()) > 0.1
    torch.testing.assert_close(total / 36, torch.zeros_like(own), rtol=0, atol=1e-12)
    assert squares / 36 == pytest.approx(float(own.square().sum()))


def test_every_permutation_equally_often():
    placebo, n = Placebo(G, seed=3), 6000
    draws = [tuple(placebo.lanes(2 * G).tolist()) for _ in range(n)]
    pairs = Counter(draws)
    assert len(pairs) == 36 and all({*draw[:G]} == {0, 1, 2} and {*draw[G:]} == {3, 4, 5} for draw in pairs)
    expected = n / 36
    chi_squared = sum((count - expected) ** 2 / expected for count in pairs.values())
    assert chi_squared < 66.6  # 35 degrees of freedom, one in a thousand
    again, other = Placebo(G, seed=3), Placebo(G, seed=4)
    assert draws[:20] == [tuple(again.lanes(2 * G).tolist()) for _ in range(20)]
    assert draws[:20] != [tuple(other.lanes(2 * G).tolist()) for _ in range(20)]


def test_every_rank_goes_on_with_its_own_draws(monkeypatch):
    """A checkpoint is the first rank's; the second reads it, and draws what it would have drawn."""
    unbroken = {}
    for rank in (0, 1):
        monkeypatch.setattr("s2f_rl.ranks.rank", lambda rank=rank: rank)
        placebo = Placebo(G, seed=3)
        unbroken[rank] = [placebo.lanes(30 * G).tolist() for _ in range(5)]
        if rank == 0:
            first = Placebo(G, seed=3)
            assert [first.lanes(30 * G).tolist() for _ in range(3)] == unbroken[0][:3]
            state = first.state_dict()
    resumed = Placebo(G, seed=3)
    resumed.load_state_dict(state)
    assert [resumed.lanes(30 * G).tolist() for _ in range(2)] == unbroken[1][3:]
    assert all(one != other for one, other in zip(*unbroken.values(), strict=True))


def test_what_is_logged_stays_true_and_other_draws_too():
    data, state = batch(), torch.get_rng_state()
    plain = data["next", "reward"].clone()
    RewardSignal(Transform(), "none", Placebo(G, seed=0))(data)
    assert torch.equal(data["next", "reward"], plain) and torch.equal(torch.get_rng_state(), state)
