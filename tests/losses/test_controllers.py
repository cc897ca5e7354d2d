"""Adaptive coefficients against steps computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from s2f_rl.errors import UserError
from s2f_rl.losses import AdaptiveKL, LagrangeMultiplier, PenaltyCoefficient, ReferenceKL, WeightedLoss


def test_adaptive_kl():
    kl = AdaptiveKL(0.2, target=0.1, gain=0.1)
    assert kl.update(0.1) == pytest.approx(0.2)  # on target
    assert kl.update(0.11) == pytest.approx(0.2 * 1.01)  # e = 0.1
    assert kl.update(5.0) == pytest.approx(0.2 * 1.01 * 1.02)  # clipped at 0.2
    assert kl.update(0.0) == pytest.approx(0.2 * 1.01 * 1.02 * 0.98)  # clipped at -0.2
    assert kl.update(math.nan) == kl() == pytest.approx(0.2 * 1.01 * 1.02 * 0.98)
    with pytest.raises(UserError, match="kl.weight=0"):
        AdaptiveKL(0.0, 0.1)
    for measured, end in ((9.0, 1e8), (0.0, 1e-8)):  # a KL that stays on one side, for ever
        for _ in range(4000):
            kl.update(measured)
        assert kl() == end


def test_adaptive_kl_arrives_within_a_default_run():
    """A toy whose KL is 2 / weight: from a weight of 0.05 (KL 40) to the target of 0.1 in 60 iterations."""
    kl = AdaptiveKL(0.05, target=0.1)
    for _ in range(60):
        kl.update(2.0 / kl())
    assert 2.0 / kl() == pytest.approx(0.1, rel=0.02)


def test_penalty():
    beta = PenaltyCoefficient(1.0, target=0.03, bounds=(0.3, 4.0))
    # within a factor of 1.5, above, below
    assert [beta.update(kl) for kl in (0.03, 0.044, 0.021, 0.046, 0.019)] == [1.0, 1.0, 1.0, 2.0, 1.0]
    assert [beta.update(1.0) for _ in range(3)] == [2.0, 4.0, 4.0]
    assert [beta.update(0.0) for _ in range(5)] == [2.0, 1.0, 0.5, 0.3, 0.3]
    assert beta.update(math.inf) == 0.3
    with pytest.raises(UserError, match="penalty.target=0"):
        PenaltyCoefficient(1.0, 0.0)


def test_lagrange_multiplier():
    multiplier = LagrangeMultiplier(limit=1.02, rate=0.5, value=1.0, max_value=1.2)
    assert multiplier.update(1.02) == 1.0
    assert multiplier.update(1.02 * 1.1) == pytest.approx(1.05)
    assert multiplier.update(1.02 * 0.8) == pytest.approx(0.95)
    assert multiplier.update(math.nan) == pytest.approx(0.95)
    assert multiplier.update(1.02 * 9) == 1.2  # bounded above
    for _ in range(4):
        multiplier.update(0.0)
    assert multiplier() == 0.0  # and below
    with pytest.raises(UserError, match="constraint: limit 0"):
        LagrangeMultiplier(0)


@pytest.mark.parametrize("make", [lambda: AdaptiveKL(0.2, 0.1), lambda: PenaltyCoefficient(1.0, 0.1),
                                  lambda: LagrangeMultiplier(1.0)])  # fmt: skip
def test_state(make):
    one, other = make(), make()
    one.update(5.0)
    assert one() != other()
    other.load_state_dict(one.state_dict())
    assert one() == other()


def test_a_weight_that_changes(policy, batch):
    """WeightedLoss asks a callable weight at every forward pass."""
    kl = AdaptiveKL(0.2, target=1e-9, gain=0.1)
    loss = WeightedLoss({"kl": (ReferenceKL(policy.actor_module), kl)})
    with torch.no_grad():
        for p in policy.core.decoder.layer.parameters():
            p.add_(0.01)
    out = loss(batch.detach())
    assert float(out["loss_kl"]) == pytest.approx(0.2 * float(out["value_kl"]), rel=1e-5)
    kl.update(1.0)
    again = loss(batch.detach())
    assert float(again["loss_kl"]) == pytest.approx(0.2 * 1.02 * float(out["value_kl"]), rel=1e-5)
