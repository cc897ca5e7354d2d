"""REINFORCE, PPO with a KL penalty, GRPO's advantage and AWR against loops over single frames."""

from __future__ import annotations

import math

import pytest
import torch
from losses_rollout import T, rollout
from torchrl.modules import set_recurrent_mode

from s2f_rl.errors import UserError
from s2f_rl.losses import (
    A2CLoss,
    AdvantageWeightedLoss,
    BaselineAdvantage,
    ClipPPOLoss,
    KLPenaltyPPOLoss,
    PenaltyCoefficient,
    ReinforceLoss,
    SupervisedLoss,
    WeightedLoss,
    advantage_weights,
    credit_of,
    credited_returns,
    discounted_returns,
    gae_advantage,
    group_decoupled_advantage,
    group_normalised_advantage,
    group_relative_advantage,
    masked_standardise,
    total_loss,
    window_returns,
)
from s2f_rl.models.critics import DecoderCritic

LENGTHS = torch.tensor([T, 9, 7, 5])


@pytest.fixture
def batch(policy):
    """A rollout whose padding is poisoned, seen by a policy that has moved a little since."""
    batch = rollout(policy, LENGTHS).detach()
    mask = batch["frame_mask"]
    for key in ("latent", "advantage", "value_target"):
        batch[key] = torch.where(mask, batch[key], torch.full_like(batch[key], 1e3))
    torch.manual_seed(3)
    with torch.no_grad():
        for p in policy.core.decoder.layer.parameters():
            p.add_(0.002 * torch.randn_like(p))
    return batch


@pytest.fixture
def critic():
    torch.manual_seed(4)
    return DecoderCritic(16, 10, 3, hidden=8)


def frames():
    return [(b, t) for b, n in enumerate(LENGTHS.tolist()) for t in range(n)]


def means(policy, batch):
    """h of every frame, utterance by utterance without padding, with a gradient."""
    core = policy.core
    return [
        core.means(batch["audio"][b : b + 1, :n], batch["style"][b : b + 1, 0], batch["latent"][b : b + 1, :n])[0]
        for b, n in enumerate(LENGTHS.tolist())
    ]


def log_density(policy, batch, h, b, t):
    sigma = policy.core.log_scale.exp()
    z = (batch["latent"][b, t] - h[b][t]) / sigma
    return (-0.5 * z.square() - sigma.log() - 0.5 * math.log(2 * math.pi)).sum()


def gradient(policy, value):
    parameters = [p for p in policy.core.decoder.parameters() if p.requires_grad]
    return [g for g in torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True) if g is not None]


def assert_same_gradient(policy, loss, expected):
    for ours, theirs in zip(gradient(policy, loss), gradient(policy, expected), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=1e-5)


class TestReinforce:
    def test_against_a_loop(self, policy, batch):
        h = means(policy, batch)
        terms = [-batch["advantage"][b, t, 0] * log_density(policy, batch, h, b, t) for b, t in frames()]
        expected = torch.stack(terms).mean()
        out = ReinforceLoss(policy.actor_module)(batch)
        assert set(out.keys()) == {"loss_objective"}
        torch.testing.assert_close(out["loss_objective"], expected, rtol=1e-4, atol=1e-4)
        assert_same_gradient(policy, total_loss(out), expected)

    def test_critic(self, policy, batch, critic):
        out = ReinforceLoss(policy.actor_module, critic, critic_coeff=0.5)(batch)
        value = critic(batch.clone())["state_value"]
        errors = [float(value[b, t] - batch["value_target"][b, t]) ** 2 for b, t in frames()]
        assert float(out["loss_critic"]) == pytest.approx(0.5 * sum(errors) / len(errors), rel=1e-4)
        total_loss(out).backward()
        assert critic.mlp[0].weight.grad.abs().sum() > 0

    def test_leaves_the_batch_alone(self, policy, batch):
        before = batch["loc"].clone()
        ReinforceLoss(policy.actor_module)(batch)
        assert torch.equal(batch["loc"], before)

    def test_a2c_without_a_critic_is_reinforce(self, policy, batch):
        a, b = A2CLoss(policy.actor_module)(batch), ReinforceLoss(policy.actor_module)(batch)
        torch.testing.assert_close(a["loss_objective"], b["loss_objective"])
        assert "loss_critic" not in a.keys()


class TestKLPenalty:
    def test_against_a_loop(self, policy, batch):
        h, sigma = means(policy, batch), policy.core.log_scale.exp()
        terms, penalties, ratios = [], [], []
        for b, t in frames():
            ratio = (log_density(policy, batch, h, b, t) - batch["latent_log_prob"][b, t]).exp()
            kl = (0.5 * ((batch["loc"][b, t] - h[b][t]) / sigma).square()).sum()  # old || new, equal scales
            terms.append(-ratio * batch["advantage"][b, t, 0])
            penalties.append(kl)
            ratios.append(float(ratio.detach()))
        out = KLPenaltyPPOLoss(policy.actor_module, beta=0.7)(batch)
        for key, expected in (
            ("objective", torch.stack(terms).mean()),
            ("penalty", 0.7 * torch.stack(penalties).mean()),
        ):
            torch.testing.assert_close(out[f"loss_{key}"], expected, rtol=1e-4, atol=1e-5)
            assert_same_gradient(policy, out[f"loss_{key}"], expected)
        kls = [float(kl.detach()) for kl in penalties]
        n = len(kls)
        assert float(out["kl"]) == pytest.approx(sum(kls) / n, rel=1e-4) and sum(kls) > 0
        assert float(out["mean_ratio"]) == pytest.approx(sum(ratios) / n, rel=1e-4)
        assert float(out["kl_approx"]) == pytest.approx(-sum(map(math.log, ratios)) / n, rel=1e-2)
        assert float(out["ESS"]) == pytest.approx(sum(ratios) ** 2 / sum(r * r for r in ratios) / n, rel=1e-4)

    def test_divergence_is_of_the_old_policy_to_the_new(self, policy, batch):
        """With unequal scales the two directions differ."""
        old = policy.core.log_scale.exp().clone()
        with torch.no_grad():
            policy.core.log_scale.add_(0.4)
        h, new = means(policy, batch), old * math.exp(0.4)
        kls = []
        for b, t in frames():
            ratio, shift = (old / new).square(), ((batch["loc"][b, t] - h[b][t].detach()) / new).square()
            kls.append(float(0.5 * (ratio + shift - 1 - ratio.log()).sum()))
        out = KLPenaltyPPOLoss(policy.actor_module, beta=0.7)(batch)
        assert float(out["kl"]) == pytest.approx(sum(kls) / len(kls), rel=1e-4)
        assert float(out["loss_penalty"]) == pytest.approx(0.7 * sum(kls) / len(kls), rel=1e-4)

    def test_beta_is_its_owners(self, policy, batch):
        """TorchRL would change it at every forward pass."""
        penalty = PenaltyCoefficient(0.7, target=1e-9)
        loss = KLPenaltyPPOLoss(policy.actor_module, beta=penalty)
        assert [float(loss(batch)["beta"]) for _ in range(3)] == pytest.approx([0.7] * 3)
        penalty.update(1.0)
        assert float(loss(batch)["beta"]) == pytest.approx(1.4)

    def test_a_balanced_sum_keeps_beta(self, policy, batch, corpus):
        """The penalty gets the surrogate's factor: a hundred times the beta pulls a hundred times as hard."""
        gradients, supervised = {}, SupervisedLoss(policy.actor_module, corpus)
        for weight, beta in ((4.0, 0.01), (4.0, 1.0), (0.0, 1.0)):
            ppo = KLPenaltyPPOLoss(policy.actor_module, beta=beta)
            out = WeightedLoss({"policy": (ppo, weight), "supervised": (supervised, 1.0)}, balance="grad_norm")(batch)
            factor = float(out["loss_policy"] / out["value_policy"])
            penalty = float(out["value_policy_penalty"])
            assert float(out["loss_policy_penalty"]) == pytest.approx(factor * penalty, rel=1e-4)
            assert float(out["grad_norm_policy_penalty"]) > 0
            gradients[weight, beta] = gradient(policy, out["loss_policy_penalty"]) if weight else []
            assert (factor == 0) == (weight == 0)
            if not weight:
                assert not any(bool(g.any()) for g in gradient(policy, total_loss(out) - out["loss_supervised"]))
        for weak, strong in zip(gradients[4.0, 0.01], gradients[4.0, 1.0], strict=True):
            torch.testing.assert_close(100 * weak, strong, rtol=1e-3, atol=1e-6)

    def test_padding(self, policy, batch):
        loss = KLPenaltyPPOLoss(policy.actor_module, beta=0.7)
        a = loss(batch)
        batch["loc"] = torch.where(batch["frame_mask"], batch["loc"], torch.full_like(batch["loc"], 50.0))
        b = loss(batch)
        for key in a.keys():
            torch.testing.assert_close(a[key], b[key], msg=key)


class TestAdvantageWeighted:
    def test_against_a_loop(self, policy, batch, critic):
        h, value = means(policy, batch), critic(batch.clone())["state_value"]
        terms, weights, errors = [], [], []
        for b, t in frames():
            weight = min(math.exp(float(batch["advantage"][b, t]) / 0.5), 3.0)
            terms.append(-weight * log_density(policy, batch, h, b, t))
            weights.append(weight)
            errors.append(float(value[b, t] - batch["value_target"][b, t]) ** 2)
        n, expected = len(terms), torch.stack(terms).mean()
        loss = AdvantageWeightedLoss(policy.actor_module, critic, temperature=0.5, max_weight=3.0, critic_coeff=0.25)
        out = loss(batch)
        torch.testing.assert_close(out["loss_objective"], expected, rtol=1e-4, atol=1e-4)
        assert_same_gradient(policy, out["loss_objective"], expected)
        assert float(out["mean_weight"]) == pytest.approx(sum(weights) / n, rel=1e-4)
        share = sum(w == 3.0 for w in weights) / n
        assert float(out["clip_fraction"]) == pytest.approx(share) and 0 < share < 1
        assert float(out["loss_critic"]) == pytest.approx(0.25 * sum(errors) / n, rel=1e-4)

    def test_weights(self):
        out = advantage_weights(torch.tensor([-2.0, 0.0, 1.0, 100.0]), temperature=2.0, max_weight=20.0)
        assert out.tolist() == pytest.approx([math.exp(-1), 1.0, math.exp(0.5), 20.0])

    def test_mistakes(self, policy):
        with pytest.raises(UserError, match="temperature=0"):
            AdvantageWeightedLoss(policy.actor_module, temperature=0)


class TestGroupNormalised:
    def test_against_a_loop(self):
        generator = torch.Generator().manual_seed(0)
        lengths = [6, 6, 6, 3, 3, 3]
        mask = (torch.arange(6) < torch.tensor(lengths)[:, None]).unsqueeze(-1)
        returns = torch.randn(6, 6, 1, generator=generator) + torch.where(mask, 0.0, 1e5)
        out = group_normalised_advantage(returns, mask, 3)
        unscaled = group_normalised_advantage(returns, mask, 3, scale=False)
        for first, n in ((0, 6), (3, 3)):
            group = [[float(returns[first + g, t]) for t in range(n)] for g in range(3)]
            centred = [[x - sum(group[k][t] for k in range(3)) / 3 for t, x in enumerate(row)] for row in group]
            std = math.sqrt(sum(x * x for row in centred for x in row) / (3 * n))
            for g in range(3):
                assert out[first + g, :n, 0].tolist() == pytest.approx([x / std for x in centred[g]], abs=1e-4)
                assert unscaled[first + g, :n, 0].tolist() == pytest.approx(centred[g], abs=1e-5)
        assert (out[~mask] == 0).all()

    def test_grpo_against_a_loop(self, policy, batch):
        """Clipped ratio times the group-normalised return, lanes 0-1 and 2-3 being groups of equal length."""
        pair = batch[[0, 0, 2, 2]].clone()
        pair["latent"] = pair["latent"] + 0.01 * torch.randn(pair["latent"].shape)
        lengths = [T, T, 7, 7]
        mask = pair["frame_mask"]
        returns = discounted_returns(torch.where(mask, pair["next", "reward"] + torch.randn(4, T, 1), 0.0), mask, 0.7)
        pair["advantage"] = group_normalised_advantage(returns, mask, 2)
        with set_recurrent_mode(True):
            new = policy.actor_module.get_dist(pair.clone()).log_prob(pair["latent"])
        terms = []
        for b, n in enumerate(lengths):
            other = b ^ 1
            squares = [
                ((float(returns[k, t]) - float(returns[k ^ 1, t])) / 2) ** 2 for k in (b, other) for t in range(n)
            ]
            std = math.sqrt(sum(squares) / len(squares))
            for t in range(n):
                ratio = math.exp(float(new[b, t].detach() - pair["latent_log_prob"][b, t]))
                advantage = (float(returns[b, t]) - float(returns[other, t])) / 2 / std
                terms.append(min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage))
        out = ClipPPOLoss(policy.actor_module, clip_epsilon=0.2)(pair)
        assert float(out["loss_objective"]) == pytest.approx(-sum(terms) / len(terms), rel=1e-3, abs=1e-5)


class TestGroupDecoupled:
    def test_against_a_loop(self):
        generator = torch.Generator().manual_seed(1)
        lengths = [5, 5, 3, 3]
        mask = (torch.arange(5) < torch.tensor(lengths)[:, None]).unsqueeze(-1)
        poison = torch.where(mask, 0.0, 1e5)
        terms = {
            name: torch.randn(4, 5, 1, generator=generator) * size + poison for name, size in (("a", 1), ("b", 50))
        }
        weights = {"a": 2.0, "b": 0.5}
        summed = [[0.0] * n for n in lengths]
        for name, term in terms.items():
            for first, n in ((0, 5), (2, 3)):
                rows = [[float(term[first + g, t]) for t in range(n)] for g in range(2)]
                centred = [[row[t] - (rows[0][t] + rows[1][t]) / 2 for t in range(n)] for row in rows]
                std = math.sqrt(sum(x * x for row in centred for x in row) / (2 * n))
                for g in range(2):
                    for t in range(n):
                        summed[first + g][t] += weights[name] * centred[g][t] / std
        every = [x for row in summed for x in row]
        mean = sum(every) / len(every)
        std = math.sqrt(sum((x - mean) ** 2 for x in every) / len(every))
        out = group_decoupled_advantage(terms, weights, mask, 2)
        for b, row in enumerate(summed):
            assert out[b, : len(row), 0].tolist() == pytest.approx([(x - mean) / std for x in row], abs=1e-4)
        assert (out[~mask] == 0).all()

    def test_a_term_of_another_scale_counts_the_same(self):
        generator = torch.Generator().manual_seed(2)
        a, b = torch.randn(2, 4, 6, 1, generator=generator)
        mask = torch.ones(4, 6, 1, dtype=torch.bool)
        weights = {"a": 1.0, "b": 1.0}
        small = group_decoupled_advantage({"a": a, "b": b}, weights, mask, 2)
        large = group_decoupled_advantage({"a": a, "b": 1e3 * b}, weights, mask, 2)
        torch.testing.assert_close(small, large, rtol=1e-4, atol=1e-4)


class TestBaselineAdvantage:
    def test_group(self, batch):
        mask, reward = batch["frame_mask"], batch["next", "reward"]
        expected = group_relative_advantage(discounted_returns(reward, mask, 0.5), mask, 2)
        out = BaselineAdvantage(None, 2, gamma=0.5, normalise=False)(batch, reward)
        assert torch.equal(out["advantage"], expected)
        out = BaselineAdvantage(None, 2, gamma=0.5)(batch, reward)
        assert torch.equal(out["advantage"], masked_standardise(expected, mask))

    def test_critic(self, batch, critic):
        mask, reward = batch["frame_mask"], batch["next", "reward"]
        value = critic(batch.clone())["state_value"].detach()
        out = BaselineAdvantage(critic, 1, gamma=0.5, gae_lambda=0.3, normalise=False)(batch, reward)
        advantage, target = gae_advantage(reward, value, mask, 0.5, 0.3)
        assert torch.equal(out["advantage"], advantage) and torch.equal(out["value_target"], target)
        out = BaselineAdvantage(critic, 1, credit="window", normalise=False)(batch, reward)
        for b, t in frames():
            end = min(t + 5, int(LENGTHS[b]))
            window = float(reward[b, t:end].sum())
            assert float(out["value_target"][b, t]) == pytest.approx(window, abs=1e-5)
            assert float(out["advantage"][b, t]) == pytest.approx(window - float(value[b, t]), abs=1e-5)
        assert (out["advantage"][~mask] == 0).all()

    def test_frames_without_a_score(self, batch, critic):
        """gamma=0: reward minus value where there is a reward, nothing elsewhere; longer credit reaches all frames."""
        mask, reward = batch["frame_mask"], batch["next", "reward"]
        scored = mask.clone()
        scored[:, :4] = False
        batch["next", "score_mask"] = scored
        value = critic(batch.clone())["state_value"].detach()
        out = BaselineAdvantage(critic, 1, gamma=0.0, gae_lambda=0.0, normalise=False)(batch, reward)
        torch.testing.assert_close(out["advantage"], torch.where(scored, reward - value, 0.0))
        out = BaselineAdvantage(critic, 1, gamma=0.0, gae_lambda=0.0)(batch, reward)
        assert float(out["advantage"][scored].mean()) == pytest.approx(0, abs=1e-5)
        out = BaselineAdvantage(critic, 1, gamma=0.5, gae_lambda=0.5, normalise=False)(batch, reward)
        assert (out["advantage"][mask] != 0).all()

    def test_credit(self, batch):
        mask, reward = batch["frame_mask"], batch["next", "reward"]
        assert torch.equal(credited_returns(reward, mask, "discounted", 0.3), discounted_returns(reward, mask, 0.3))
        assert torch.equal(credited_returns(reward, mask, "window", 0.3), window_returns(reward, mask, 5))
        assert torch.equal(credited_returns(reward, mask, None, 0.3), discounted_returns(reward, mask, 0.3))
        with pytest.raises(UserError, match="credit=all: use discounted, window, around, utterance"):
            credited_returns(reward, mask, "all")

    def test_credit_of_frames_that_move_their_neighbours(self, batch):
        mask, reward = batch["frame_mask"], batch["next", "reward"]
        around, whole = (credited_returns(reward, mask, credit) for credit in ("around", "utterance"))
        for lane, n in enumerate(mask.sum((1, 2)).tolist()):
            row = reward[lane, :n, 0]
            for t in range(n):
                expected = sum(float(row[s]) for s in range(n) if t - 2 <= s <= t + 6)
                assert float(around[lane, t, 0]) == pytest.approx(expected, abs=1e-5)
                assert float(whole[lane, t, 0]) == pytest.approx(float(row.sum()), abs=1e-5)
            assert not around[lane, n:].any() and not whole[lane, n:].any()
        assert credit_of(None, True) == "discounted" and credit_of(None, False) == "utterance"
        assert credit_of("window", True) == "window" and credit_of("around", False) == "around"
        for credit in ("window", "discounted"):
            with pytest.raises(UserError, match=f"credit={credit}: .*use null, utterance or around"):
                credit_of(credit, False)
