"""Returns and advantages against loops over valid frames."""

from __future__ import annotations

import pytest
import torch

from s2f_rl.errors import UserError
from s2f_rl.losses import (
    discounted_returns,
    gae_advantage,
    group_relative_advantage,
    masked_standardise,
    window_returns,
)

LENGTHS = [7, 7, 4, 4, 1, 1]


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(7) < torch.tensor(LENGTHS)[:, None]).unsqueeze(-1)
    reward = torch.randn(6, 7, 1, generator=generator)
    value = torch.randn(6, 7, 1, generator=generator)
    poison = torch.where(mask, 0.0, 1e6)
    return reward + poison, value + poison, mask


def test_discounted_returns(data):
    reward, _, mask = data
    out = discounted_returns(reward, mask, 0.7)
    for b, n in enumerate(LENGTHS):
        for t in range(7):
            expected = sum(0.7 ** (k - t) * float(reward[b, k]) for k in range(t, n)) if t < n else 0.0
            assert float(out[b, t]) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_window_returns(data):
    reward, _, mask = data
    out = window_returns(reward, mask, 3)
    for b, n in enumerate(LENGTHS):
        for t in range(7):
            expected = sum(float(reward[b, k]) for k in range(t, min(n, t + 3))) if t < n else 0.0
            assert float(out[b, t]) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_masked_standardise(data):
    reward, _, mask = data
    out = masked_standardise(reward, mask)
    assert float(out[mask].mean()) == pytest.approx(0, abs=1e-6)
    assert float(out[mask].std(correction=0)) == pytest.approx(1, rel=1e-4)
    assert (out[~mask] == 0).all()


@pytest.mark.parametrize("leave_one_out", [True, False])
def test_group_relative(data, leave_one_out):
    returns, _, mask = data
    out = group_relative_advantage(returns, mask, 2, leave_one_out)
    for b in range(6):
        other = b ^ 1
        for t in range(7):
            own, theirs = float(returns[b, t]), float(returns[other, t])
            baseline = theirs if leave_one_out else (own + theirs) / 2
            expected = own - baseline if t < LENGTHS[b] else 0.0
            assert float(out[b, t]) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    with pytest.raises(UserError, match="group_size=4"):
        group_relative_advantage(returns, mask, 4)


@pytest.mark.parametrize(("gamma", "lmbda"), [(0.9, 0.8), (0.0, 0.0), (1.0, 1.0)])
def test_gae(data, gamma, lmbda):
    reward, value, mask = data
    advantage, target = gae_advantage(reward, value, mask, gamma, lmbda)
    for b, n in enumerate(LENGTHS):
        running = 0.0
        for t in range(n - 1, -1, -1):
            after = float(value[b, t + 1]) if t + 1 < n else 0.0
            running = float(reward[b, t]) + gamma * after - float(value[b, t]) + gamma * lmbda * running
            assert float(advantage[b, t]) == pytest.approx(running, rel=1e-4, abs=1e-5)
            assert float(target[b, t]) == pytest.approx(running + float(value[b, t]), rel=1e-4, abs=1e-5)
    assert (advantage[~mask] == 0).all() and (target[~mask] == 0).all()
