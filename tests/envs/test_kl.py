"""The KL term against torch.distributions, frame by frame."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence
from torchrl.envs import Compose
from torchrl.modules import set_recurrent_mode

from s2f_rl.envs import FrozenRewardTransform, ReferenceKLTransform
from s2f_rl.errors import UserError
from tests.envs.support import env_for, policy_for, reward_model_for


def collect(corpus, policy):
    env = env_for(corpus, 4)
    return env.rollout(env.horizon, policy, break_when_any_done=False)


@pytest.mark.parametrize("correlation", [0.0, 0.6])
class TestValues:
    def test_kl(self, corpus, correlation):
        policy, reference = (policy_for(corpus, seed, correlation=correlation) for seed in (2, 7))
        data = collect(corpus, policy)
        before = data.clone()
        data["next", "reward"] += 1.0
        ReferenceKLTransform(reference.actor_module, coef=0.25)(data)
        with torch.no_grad(), set_recurrent_mode(True):
            other = reference.actor_module[0](before.copy())
        for lane in range(4):
            for t in range(data.shape[1]):
                p = Independent(Normal(before["loc"][lane, t], before["scale"][lane, t]), 1)
                q = Independent(Normal(other["loc"][lane, t], other["scale"][lane, t]), 1)
                expected = kl_divergence(p, q).item() if before["frame_mask"][lane, t] else 0.0
                assert data["next", "reference_kl"][lane, t].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)
                assert data["next", "reward"][lane, t].item() == pytest.approx(1 - 0.25 * expected, rel=1e-4, abs=1e-5)
        assert (data["next", "reference_kl"].max() > 0.1) and (data["loc"] == before["loc"]).all()

    def test_log_ratio(self, corpus, correlation):
        policy, reference = (policy_for(corpus, seed, correlation=correlation) for seed in (2, 7))
        data = collect(corpus, policy)
        ReferenceKLTransform(reference.actor_module, estimator="log_ratio")(data)
        with torch.no_grad(), set_recurrent_mode(True):
            other = reference.actor_module[0](data.copy())
            p = Independent(Normal(data["loc"], data["scale"]), 1).log_prob(data["latent"])
            q = Independent(Normal(other["loc"], other["scale"]), 1).log_prob(data["latent"])
        expected = torch.where(data["frame_mask"].squeeze(-1), p - q, 0)
        torch.testing.assert_close(data["next", "reference_kl"].squeeze(-1), expected, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("estimator", ["kl", "log_ratio"])
    def test_none_to_oneself_whatever_the_padding(self, corpus, correlation, estimator):
        policy = policy_for(corpus, correlation=correlation)
        data = collect(corpus, policy)
        padding = ~data["frame_mask"].squeeze(-1)
        for name in ("latent", "loc", "latent_log_prob", "action"):
            data[name][padding] = float("nan")
        ReferenceKLTransform(policy.actor_module, estimator=estimator)(data)
        assert data["next", "reference_kl"].abs().max() < 1e-4
        data["latent_log_prob"][0, 1] = data["loc"][0, 1] = float("nan")  # a valid frame: not finite, it is not 0
        ReferenceKLTransform(policy.actor_module, estimator=estimator)(data)
        assert data["next", "reference_kl"][0, 1].isnan() and data["next", "reward"][0, 1].isnan()


class TestUse:
    def test_the_reference_is_a_frozen_copy(self, corpus):
        policy = policy_for(corpus)
        transform = ReferenceKLTransform(policy.actor_module)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.add_(0.05)
        data = collect(corpus, policy)
        transform(data)
        assert data["next", "reference_kl"].max() > 1e-3
        assert not any(p.requires_grad for p in transform.parameters())

    def test_after_the_frozen_reward(self, corpus):
        policy, reference = policy_for(corpus), policy_for(corpus, seed=7)
        reward = FrozenRewardTransform(reward_model_for(corpus), corpus)
        kl = ReferenceKLTransform(reference.actor_module, coef=0.1)
        data = collect(corpus, policy)
        alone = reward(data.clone())
        both = Compose(reward, kl)(data.clone())
        expected = alone["next", "reward"] - 0.1 * both["next", "reference_kl"]
        torch.testing.assert_close(both["next", "reward"], expected)

    def test_vertex_exploration_averages(self, corpus):
        policy, reference = (policy_for(corpus, seed, exploration="vertex") for seed in (2, 7))
        data = collect(corpus, policy)
        ReferenceKLTransform(reference.actor_module)(data)
        with torch.no_grad(), set_recurrent_mode(True):
            other = reference.actor_module[0](data.copy())
        per_coordinate = kl_divergence(Normal(data["loc"], data["scale"]), Normal(other["loc"], other["scale"]))
        expected = torch.where(data["frame_mask"], per_coordinate.mean(-1, keepdim=True), 0)
        torch.testing.assert_close(data["next", "reference_kl"], expected, atol=1e-6, rtol=1e-4)

    def test_mistakes(self, corpus):
        actor = policy_for(corpus).actor_module
        with pytest.raises(UserError, match="kl.estimator='abs'"):
            ReferenceKLTransform(actor, estimator="abs")
        with pytest.raises(UserError, match="kl.coef=-1"):
            ReferenceKLTransform(actor, coef=-1)
        with pytest.raises(ValueError, match="whole utterances"):
            ReferenceKLTransform(actor)(collect(corpus, policy_for(corpus))[:, 0])
