"""The guard of a run's updates: what it skips, what it counts, and when it ends the run."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from tensordict import TensorDict

from s2f_rl.errors import NotFinite, UserError
from s2f_rl.runs import PolicyAverage
from s2f_rl.training import AmplitudeReference, StepGuard, load_moments, make_optimizer


@pytest.fixture
def parts():
    torch.manual_seed(0)
    net = torch.nn.Linear(2, 1, bias=False)
    optimizer = make_optimizer([(net.named_parameters(), 1.0)], 0.1)
    return net, optimizer, PolicyAverage(net, 0.5)


def loss(net, factor=1.0):
    return factor * net(torch.ones(1, 2)).sum()


def state(parts):
    return copy.deepcopy([part.state_dict() for part in parts])


@pytest.mark.parametrize(
    "factor",
    [math.nan, math.inf, 1e25],  # the last loss is finite, and so is its gradient, but not that squared, as Adam has it
)
def test_an_update_that_is_not_finite_changes_nothing(parts, factor):
    net, optimizer, _ = parts
    guard = StepGuard(parts[2])
    assert float(guard.step(loss(net), optimizer, 1e9)) == pytest.approx(2**0.5)
    before = state(parts)
    guard.step(loss(net, factor), optimizer, 1e9)
    assert str(state(parts)) == str(before) and net.weight.grad is None
    assert guard.skipped() == 1 and guard.skipped() == 0 and guard.in_row == 1
    guard.step(loss(net), optimizer, 1e9)
    assert str(state(parts)) != str(before)
    assert guard.skipped() == 0 and guard.in_row == 0


def test_a_gradient_of_any_group_counts(parts):
    other = torch.nn.Linear(1, 1, bias=False)
    optimizer = make_optimizer([(parts[0].named_parameters(), 1.0), (other.named_parameters(), 1.0)], 0.1)
    other.weight.register_hook(lambda gradient: gradient * math.nan)
    before = parts[0].weight.detach().clone()
    guard = StepGuard()
    guard.step(loss(parts[0]) + other(torch.ones(1, 1)).sum(), optimizer, 1.0)
    assert guard.skipped() == 1 and torch.equal(parts[0].weight, before)


def test_so_many_in_a_row_end_the_run(parts):
    net, optimizer, _ = parts
    guard = StepGuard(limit=3)
    for factor in (math.nan, math.nan, 1.0, math.nan, math.nan):
        guard.step(loss(net, factor), optimizer, 1.0)
    resumed = StepGuard(limit=3)
    resumed.load_state_dict(guard.state_dict())
    for each in (guard, resumed):
        with pytest.raises(NotFinite, match="3 updates in a row were skipped, because the loss was not finite; use a"):
            each.step(loss(net, math.nan), optimizer, 1.0)
    assert StepGuard().limit == 10


def test_weights_that_are_lost_end_it_at_once(parts):
    net, optimizer, average = parts
    before = copy.deepcopy(average.state_dict())
    optimizer.param_groups[0]["lr"] = math.inf
    with pytest.raises(NotFinite, match="weights are no longer finite"):
        StepGuard(average).step(loss(net), optimizer, 1.0)
    assert str(average.state_dict()) == str(before)


def batch(**changed):
    mask = (torch.arange(4) < torch.tensor([4, 2])[:, None]).unsqueeze(-1)
    next_ = {"score_mask": mask & (torch.arange(4)[:, None] > 0)}
    entries = {"action": torch.zeros(2, 4, 6), "latent_log_prob": torch.zeros(2, 4), "reward": torch.zeros(2, 4, 1)}
    for name, (lane, frame) in changed.items():
        entries[name][lane, frame] = math.nan
    next_["reward"] = entries.pop("reward")
    return TensorDict({"frame_mask": mask, **entries, "next": next_}, [2, 4])


def test_no_update_from_rewards_that_are_not_finite(parts):
    net, optimizer, _ = parts
    guard, before = StepGuard(), net.weight.detach().clone()
    guard.checked(batch(reward=(1, 1)))
    for _ in range(2):
        guard.step(loss(net), optimizer, 1.0)
    assert guard.skipped() == 2 and torch.equal(net.weight, before)
    for harmless in (batch(), batch(reward=(1, 2), action=(1, 3)), batch(reward=(0, 0))):  # padding, not scored
        guard.checked(harmless)
        guard.step(loss(net), optimizer, 1.0)
        assert guard.skipped() == 0


@pytest.mark.parametrize("name", ["action", "latent_log_prob"])
def test_a_policy_that_is_not_finite_ends_it(name):
    with pytest.raises(NotFinite, match=f"the policy's {name} is not finite"):
        StepGuard().checked(batch(**{name: (0, 3)}))


def test_a_broken_batch_is_no_reference():
    reference = AmplitudeReference([], torch.tensor([0]))
    assert math.isnan(reference.ratio(math.nan)) and reference.state_dict() == {"reference_mm": None}
    assert reference.ratio(2.0) == 1.0


def test_moments_are_floats(parts):
    net, optimizer, _ = parts
    moments = {"weight": {"exp_avg": torch.zeros(1, 2), "exp_avg_sq": torch.zeros(1, 2, dtype=torch.int64)}}
    with pytest.raises(UserError, match="moments of weight"):
        load_moments(optimizer, net.named_parameters(), moments)
