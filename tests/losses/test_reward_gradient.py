"""The differentiable rollout against the sampled one, and its gradient against finite differences."""

from __future__ import annotations

import pytest
import torch
from losses_rollout import S, T, V, rollout

from s2f_rl.losses import RewardGradientLoss, differentiable_rollout, total_loss
from s2f_rl.models import FaceFormer, FaceFormerPolicy, MelAudioEncoder

LENGTHS = torch.tensor([T, 9, 7, 5])
KINDS = [("latent", 0.0), ("latent", 0.6), ("vertex", 0.0)]


def make_policy(exploration, correlation):
    torch.manual_seed(0)
    actor = FaceFormer(MelAudioEncoder(width=10), V, feature_dim=16, n_subjects=S)
    torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=1e-3)
    torch.nn.init.normal_(actor.decoder.vertice_map.weight, std=30.0)
    return FaceFormerPolicy(actor, exploration, 1.0, correlation, learn_noise=True)


def score(displacement, utterance, n_frames):
    """A smooth stand-in for a reward: nonlinear, couples neighbouring frames, scores from frame 1 on."""
    weight = torch.linspace(-1, 1, displacement.shape[-1], dtype=displacement.dtype)
    x = 300 * displacement @ weight + utterance[:, None]
    scored = (torch.arange(x.shape[1]) < n_frames[:, None]) & (torch.arange(x.shape[1]) >= 1)
    return torch.sin(x) + 0.3 * x * torch.roll(x, 1, 1), scored


@pytest.mark.parametrize(("exploration", "correlation"), KINDS)
def test_reproduces_the_sampled_rollout(exploration, correlation):
    policy = make_policy(exploration, correlation)
    batch = rollout(policy, LENGTHS).detach()
    noise = torch.where(batch["frame_mask"], (batch["latent"] - batch["loc"]) / batch["scale"], 0.0)
    motion = differentiable_rollout(policy.core, batch["audio"], batch["style"][:, 0], noise)
    mask = batch["frame_mask"].expand_as(motion)
    torch.testing.assert_close(motion[mask], batch["action"][mask], rtol=1e-4, atol=1e-6)


def test_mean_motion_is_the_deterministic_prediction():
    policy = make_policy("latent", 0.0)
    torch.manual_seed(1)
    audio, style = torch.randn(2, T, 1, 10), torch.eye(S)[:2]
    actor = FaceFormer.__new__(FaceFormer)
    torch.nn.Module.__init__(actor)
    actor.decoder = policy.core.decoder
    with torch.no_grad():
        expected = actor.decoder.decode(actor.generate(audio, style))
    torch.testing.assert_close(differentiable_rollout(policy.core, audio, style, None), expected)


@pytest.mark.parametrize(("exploration", "correlation"), KINDS)
@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("train_output_map", [True, False])
def test_against_finite_differences(exploration, correlation, sampled, train_output_map):
    policy = make_policy(exploration, correlation)
    batch = rollout(policy, LENGTHS).detach()
    policy.double()
    batch = batch.apply(lambda x: x.double() if x.is_floating_point() else x)
    loss = RewardGradientLoss(policy.actor_module, score, sampled, train_output_map)
    total_loss(loss(batch)).backward()
    torch.manual_seed(7)
    moved = {
        name: p for name, p in policy.named_parameters()
        if p.requires_grad and (train_output_map or "vertice_map_r" not in name)
    }  # fmt: skip
    directions = {name: torch.randn_like(p) * p.detach().abs().mean().clamp_min(1e-3) for name, p in moved.items()}
    analytic = sum(float((p.grad * directions[n]).sum()) for n, p in moved.items() if p.grad is not None)

    def value(step):
        with torch.no_grad():
            for n, p in moved.items():
                p.add_(step * directions[n])
            out = float(total_loss(loss(batch)))
            for n, p in moved.items():
                p.sub_(step * directions[n])
        return out

    h = 1e-6
    assert analytic == pytest.approx((value(h) - value(-h)) / (2 * h), rel=1e-4)
    assert abs(analytic) > 1e-6
    w = policy.core.decoder.vertice_map_r.weight
    assert (w.grad is not None) == train_output_map


def test_padding_and_value():
    policy = make_policy("latent", 0.0)
    batch = rollout(policy, LENGTHS).detach()
    loss = RewardGradientLoss(policy.actor_module, score)
    out = loss(batch)
    reward, scored = score(batch["action"], batch["utterance"][:, 0, 0], LENGTHS)
    assert float(out["loss_objective"]) == pytest.approx(-float(reward[scored].mean()), rel=1e-3)
    batch["latent"] = torch.where(batch["frame_mask"], batch["latent"], torch.nan)
    assert float(loss(batch)["loss_objective"]) == pytest.approx(float(out["loss_objective"]), rel=1e-6)
