"""A2C and PPO on padded rows: padding changes no loss, no gradient, no statistic; ratio 1 before the first update."""

from __future__ import annotations

import math

import pytest
import torch
from closeness import assert_close_to_largest
from losses_rollout import T, rollout
from torchrl.modules import set_recurrent_mode

from s2f_rl.errors import NotFinite
from s2f_rl.losses import A2CLoss, ClipPPOLoss, ReferenceKL, check_ratio_is_one, total_loss
from s2f_rl.models.critics import DecoderCritic

LENGTHS = torch.tensor([T, 9, 7, 5])


def disturbed(policy, size=0.02):
    """Move the policy a little, so that ratios differ from 1."""
    torch.manual_seed(3)
    with torch.no_grad():
        for p in policy.core.decoder.layer.parameters():
            p.add_(size * torch.randn_like(p))


def results(loss, batch, policy):
    policy.zero_grad()
    loss.zero_grad()
    out = loss(batch)
    total_loss(out).backward()
    grads = {n: p.grad.clone() for n, p in loss.named_parameters() if p.grad is not None}
    return {k: out[k].detach().clone() for k in out.keys()}, grads


def make(kind, policy):
    critic = DecoderCritic(16, 10, 3, hidden=8)
    if kind == "ppo":
        return ClipPPOLoss(policy.actor_module, critic, critic_coeff=0.5, entropy_bonus=True)
    if kind == "ppo_no_critic":
        return ClipPPOLoss(policy.actor_module, None)
    if kind == "a2c":
        return A2CLoss(policy.actor_module, critic, critic_coeff=0.5, entropy_bonus=True)
    return ReferenceKL(policy.actor_module)


@pytest.mark.parametrize("kind", ["ppo", "ppo_no_critic", "a2c", "kl"])
class TestPadding:
    def test_content_and_amount_change_nothing(self, policy, kind):
        torch.manual_seed(1)
        loss = make(kind, policy)
        short = rollout(policy, LENGTHS).detach()
        padded = rollout(policy, LENGTHS, n_frames=T + 6).detach()
        mask = padded["frame_mask"]
        padded[:, :T].update(short)
        for key in ("latent", "latent_log_prob", "advantage", "value_target", "loc"):
            value = padded[key]
            m = mask if value.ndim == mask.ndim else mask.squeeze(-1)
            padded[key] = torch.where(m, value, torch.full_like(value, 1e3))
        disturbed(policy)
        a, grads_a = results(loss, short, policy)
        b, grads_b = results(loss, padded, policy)
        assert a.keys() == b.keys()
        for key in a:
            torch.testing.assert_close(a[key], b[key], rtol=2e-5, atol=1e-6, msg=key)
        assert grads_a.keys() == grads_b.keys()
        for key in grads_a:
            assert_close_to_largest(grads_a[key], grads_b[key], rel=2e-5, msg=key)


def test_statistics_against_a_loop(policy):
    batch = rollout(policy, LENGTHS).detach()
    disturbed(policy, 0.001)
    loss = ClipPPOLoss(policy.actor_module, None, clip_epsilon=0.05)
    out = loss(batch)
    with set_recurrent_mode(True):
        new = policy.actor_module.get_dist(batch.clone()).log_prob(batch["latent"])
    objective, clipped, kl, ratios = [], [], [], []
    for b, n in enumerate(LENGTHS.tolist()):
        for t in range(n):
            log_ratio = float(new[b, t] - batch["latent_log_prob"][b, t])
            ratio = float(torch.tensor(log_ratio).exp())
            advantage = float(batch["advantage"][b, t, 0])
            objective.append(min(ratio * advantage, min(max(ratio, 0.95), 1.05) * advantage))
            clipped.append(not 0.95 <= ratio <= 1.05)
            kl.append(-log_ratio)
            ratios.append(ratio)
    n = len(ratios)
    assert float(out["loss_objective"]) == pytest.approx(-sum(objective) / n, rel=1e-4)
    assert float(out["clip_fraction"]) == pytest.approx(sum(clipped) / n)
    assert 0 < sum(clipped) < n
    assert float(out["kl_approx"]) == pytest.approx(sum(kl) / n, rel=1e-3)
    assert float(out["ESS"]) == pytest.approx(sum(ratios) ** 2 / sum(r * r for r in ratios) / n, rel=1e-4)
    assert float(out["mean_ratio"]) == pytest.approx(sum(ratios) / n, rel=1e-4)
    assert float(out["max_ratio"]) == pytest.approx(max(ratios), rel=1e-4)


def test_a2c_is_minus_advantage_times_log_prob(policy):
    batch = rollout(policy, LENGTHS).detach()
    critic = DecoderCritic(16, 10, 3, hidden=8)
    out = A2CLoss(policy.actor_module, critic, critic_coeff=0.5, loss_critic_type="l2")(batch)
    value = critic(batch.clone())["state_value"]
    mask = batch["frame_mask"]
    objective = -(batch["advantage"].squeeze(-1) * batch["latent_log_prob"])[mask.squeeze(-1)].mean()
    critic_loss = 0.5 * (value - batch["value_target"])[mask].square().mean()
    torch.testing.assert_close(out["loss_objective"], objective, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(out["loss_critic"], critic_loss, rtol=1e-4, atol=1e-5)


def test_ratio_is_one_whatever_train_says(policy, batch):
    policy.train()
    assert check_ratio_is_one(policy.actor_module, batch) < 1e-4
    out = ClipPPOLoss(policy.actor_module, None).train()(batch.detach())
    assert float(out["clip_fraction"]) == 0.0
    assert float(out["ESS"]) == pytest.approx(1.0, abs=1e-5)
    disturbed(policy)
    with pytest.raises(RuntimeError, match="ratio is not 1"):
        check_ratio_is_one(policy.actor_module, batch)
    batch = batch.clone()
    batch["latent_log_prob"][0, 0] = torch.nan
    with pytest.raises(NotFinite, match="log-probabilities are not finite"):
        check_ratio_is_one(policy.actor_module, batch)


def test_reference_kl_is_of_the_current_policy_to_the_reference(policy, batch):
    """With unequal scales the two directions differ."""
    batch = batch.detach()
    term = ReferenceKL(policy.actor_module)
    with set_recurrent_mode(True):
        reference = policy.actor_module.get_dist(batch.clone()).loc.clone()
    before = policy.core.log_scale.exp().clone()
    disturbed(policy, 0.002)
    with torch.no_grad():
        policy.core.log_scale.add_(0.4)
    with set_recurrent_mode(True):
        current = policy.actor_module.get_dist(batch.clone()).loc.detach()
    after, expected, n = before * math.exp(0.4), 0.0, 0
    for b, frames in enumerate(LENGTHS.tolist()):
        for t in range(frames):
            ratio = (after / before).square()
            shift = ((current[b, t] - reference[b, t]) / before).square()
            expected += float(0.5 * (ratio + shift - 1 - ratio.log()).sum())
            n += 1
    assert float(term(batch)["kl_reference"]) == pytest.approx(expected / n, rel=1e-4)


def test_reference_kl(policy, batch):
    batch = batch.detach()
    term = ReferenceKL(policy.actor_module, coef=2.0)
    assert float(term(batch)["loss_kl"]) == 0.0
    with set_recurrent_mode(True):
        before = policy.actor_module.get_dist(batch.clone()).loc.clone()
    disturbed(policy)
    with set_recurrent_mode(True):
        after = policy.actor_module.get_dist(batch.clone()).loc
    sigma = policy.core.log_scale.exp()
    m = batch["frame_mask"].squeeze(-1)
    expected = (0.5 * ((after - before) / sigma).square().sum(-1))[m].mean()
    torch.testing.assert_close(term(batch)["kl_reference"], expected.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(term(batch)["loss_kl"], 2 * expected, rtol=1e-4, atol=1e-6)
