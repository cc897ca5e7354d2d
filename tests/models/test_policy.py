"""The stochastic policy: step mode against sequence mode, densities, calibration, masks."""

from __future__ import annotations

import contextlib
import copy
import math
import pickle

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictSequential
from torch.distributions import Independent, Normal
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import set_recurrent_mode

from s2f_rl.errors import UserError
from s2f_rl.models import FaceFormer, FaceFormerPolicy, MelAudioEncoder
from s2f_rl.models.policy import noise_scale
from tests.operations import CountOperations

B, T, V, S = 3, 70, 9, 4  # more than two periods, so that the temporal bias matters


@pytest.fixture(params=["vocaset", "biwi"])
def actor(request) -> FaceFormer:
    torch.manual_seed(0)
    model = FaceFormer(MelAudioEncoder(width=12, topology=request.param), V, feature_dim=16, n_subjects=S)
    torch.nn.init.normal_(model.decoder.vertice_map_r.weight, std=1e-3)
    torch.nn.init.normal_(model.decoder.vertice_map_r.bias, std=1e-3)
    torch.nn.init.normal_(model.decoder.vertice_map.weight, std=30.0)
    return model


def step_through(policy, audio, style, lengths) -> TensorDict:
    rows = []
    for t in range(audio.shape[1]):
        td = TensorDict(
            {
                "audio": audio[:, t],
                "style": style,
                "frame_index": torch.minimum(torch.tensor(t), lengths).unsqueeze(-1),
                "frame_mask": (t < lengths).unsqueeze(-1),
            },
            [len(audio)],
        )
        rows.append(policy(td))
    return torch.stack(rows, dim=1)


def inputs(actor):
    a = actor.audio_encoder.features_per_frame
    generator = torch.Generator().manual_seed(1)
    audio = torch.randn(B, T, a, 12, generator=generator)
    style = torch.eye(S)[:B]
    return audio, style, torch.tensor([T, T - 13, 40])


def policy_of(actor, exploration="latent", correlation=0.0, **kwargs) -> FaceFormerPolicy:
    return FaceFormerPolicy(actor, exploration, noise_mm=2.0, correlation=correlation, **kwargs)


@pytest.mark.parametrize(("exploration", "correlation"), [("latent", 0.0), ("latent", 0.7), ("vertex", 0.0)])
class TestStepAgainstSequence:
    def test_log_prob_and_mean(self, actor, exploration, correlation):
        policy = policy_of(actor, exploration, correlation)
        data = step_through(policy, *inputs(actor))
        policy.train()  # must change nothing: no dropout in RL
        with set_recurrent_mode(True):
            dist = policy.actor_module.get_dist(data)
        mask = data["frame_mask"]
        assert (torch.where(mask, dist.loc - data["loc"], 0.0)).abs().max() < 1e-5
        log_prob = dist.log_prob(data["latent"])
        assert (log_prob - data["latent_log_prob"]).abs().max() < 1e-5 * max(1.0, float(log_prob.abs().max()))
        assert (data["latent_log_prob"][~mask.squeeze(-1)] == 0).all()

    def test_log_prob_is_the_density(self, actor, exploration, correlation):
        """Against torch.distributions and a frame-by-frame evaluation of the recursion on vertices."""
        policy = policy_of(actor, exploration, correlation)
        audio, style, lengths = inputs(actor)
        data = step_through(policy, audio, style, lengths)
        sigma = policy.core.log_scale.exp()
        decoder = actor.decoder
        action, z = data["action"], data["latent"]
        h = decoder.sequence_from_displacements(action, audio, style, "style")  # the V*3 way round
        mu = h if exploration == "latent" else decoder.decode(h)
        for b in range(B):
            for t in (0, 1, 33, 39):
                loc, scale = mu[b, t], sigma.expand_as(mu[b, t])
                if t and correlation:
                    loc = loc + correlation * (z[b, t - 1] - mu[b, t - 1])
                    scale = scale * (1 - correlation**2) ** 0.5
                per_dimension = Normal(loc, scale).log_prob(z[b, t])
                expected = per_dimension.mean() if exploration == "vertex" else per_dimension.sum()
                assert abs(float(expected - data["latent_log_prob"][b, t])) < 2e-4
        if exploration == "latent":
            torch.testing.assert_close(action, decoder.decode(z))
        else:
            assert torch.equal(action, z)

    def test_deterministic(self, actor, exploration, correlation):
        """The mean policy equals FaceFormer's own autoregression."""
        policy = policy_of(actor, exploration, correlation)
        audio, style, lengths = inputs(actor)
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            data = step_through(policy, audio, style, lengths)
        expected = actor.decoder.decode(actor.generate(audio, style))
        for b, n in enumerate(lengths):
            torch.testing.assert_close(data["action"][b, :n], expected[b, :n], atol=1e-5, rtol=1e-5)


def test_lanes_reset_one_by_one(actor):
    """A lane that starts over in mid-rollout gives what a fresh rollout gives; the others go on undisturbed."""
    audio, style, _ = inputs(actor)
    policy = policy_of(actor)
    restart, n = 25, 90  # also crosses the growth of the cache
    audio = audio.repeat(1, 2, 1, 1)[:, :n]
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        rows = []
        for t in range(n):
            index = torch.tensor([t, t - restart if t >= restart else t, t]).unsqueeze(-1)
            td = TensorDict({"audio": audio[:, t], "style": style, "frame_index": index}, [B])
            rows.append(policy(td)["action"])
    seen = torch.stack(rows, 1)
    whole = actor.decoder.decode(actor.generate(audio, style))
    fresh = actor.decoder.decode(actor.generate(audio[1:2, restart:], style[1:2]))
    torch.testing.assert_close(seen[0], whole[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(seen[1, restart:], fresh[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(seen[2], whole[2], atol=1e-5, rtol=1e-5)


def test_a_lane_that_starts_over_feeds_back_with_the_weights_of_now(actor):
    """After an update in mid-rollout: W, b and ``vertice_map`` are folded anew when a lane starts."""
    audio, style, _ = inputs(actor)
    policy = policy_of(actor)
    restart, n = 20, 50
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        rows = []
        for t in range(n):
            if t == restart:
                with torch.no_grad():
                    actor.decoder.vertice_map.weight.mul_(-1.5)
                    actor.decoder.vertice_map.bias.add_(0.3)
                    actor.decoder.vertice_map_r.bias.add_(0.002)
            index = torch.tensor([t, t - restart if t >= restart else t, t]).unsqueeze(-1)
            rows.append(policy(TensorDict({"audio": audio[:, t], "style": style, "frame_index": index}, [B]))["loc"])
    fresh = actor.generate(audio[1:2, restart:n], style[1:2])
    torch.testing.assert_close(torch.stack(rows, 1)[1, restart:], fresh[0].detach(), atol=1e-5, rtol=1e-5)


def test_a_lane_that_starts_over_takes_up_style_and_noise(actor):
    audio, style, _ = inputs(actor)
    policy = policy_of(actor, learn_noise=True)
    other, restart, n = style.clone(), 20, 40
    other[1] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        rows = []
        for t in range(n):
            if t == restart:
                policy.core.log_scale.data.add_(1.0)
            index = torch.tensor([t, t - restart if t >= restart else t, t]).unsqueeze(-1)
            now = style if t < restart else other
            rows.append(policy(TensorDict({"audio": audio[:, t], "style": now, "frame_index": index}, [B])))
    seen = torch.stack(rows, 1)
    fresh = actor.generate(audio[1:2, restart:n], other[1:2])
    torch.testing.assert_close(seen["loc"][1, restart:], fresh[0].detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(seen["scale"][:, restart], seen["scale"][:, 0] * math.e)


@pytest.mark.parametrize("how", [ExplorationType.RANDOM, ExplorationType.DETERMINISTIC])
@pytest.mark.parametrize(("exploration", "correlation"), [("latent", 0.0), ("latent", 0.7), ("vertex", 0.0)])
class TestFrames:
    """A frame is written in one go: the same numbers as from the modules one after the other."""

    def test_against_the_modules(self, actor, exploration, correlation, how):
        policy = policy_of(actor, exploration, correlation)
        found = []
        for forward in (policy, lambda td: TensorDictSequential.forward(policy, td)):
            torch.manual_seed(5)
            with set_exploration_type(how):
                found.append(step_through(forward, *inputs(actor)))
        assert set(found[0].keys()) == set(found[1].keys()) >= set(policy.out_keys)
        assert all(torch.equal(found[0][key], found[1][key]) for key in found[0].keys())

    def test_completed_afterwards(self, actor, exploration, correlation, how):
        if exploration == "vertex":
            return
        policy = policy_of(actor, exploration, correlation)
        found = []
        for only in (contextlib.nullcontext(), policy.latents_only()):
            torch.manual_seed(5)
            with only, set_exploration_type(how):
                found.append(step_through(policy, *inputs(actor)))
        whole, bare = found
        assert not {"action", "latent_log_prob"} & set(bare.keys())
        room = torch.empty(B * T + 7, 3 * V)
        policy.complete(bare, room)
        assert bare["action"].data_ptr() == room.data_ptr()
        for key in whole.keys():
            torch.testing.assert_close(bare[key], whole[key], atol=1e-6, rtol=1e-6)
        assert (bare["latent_log_prob"][~bare["frame_mask"].squeeze(-1)] == 0).all()

    def test_its_threads(self, actor, exploration, correlation, how, monkeypatch):
        policy, before, seen = policy_of(actor, exploration, correlation), torch.get_num_threads(), []
        run_step = actor.decoder.run_step
        monkeypatch.setattr(
            actor.decoder, "run_step", lambda *args: seen.append(torch.get_num_threads()) or run_step(*args)
        )
        torch.set_num_threads(3)
        try:
            audio, style, lengths = inputs(actor)
            step_through(policy, audio[:, :4], style, lengths)
            assert seen == [1] * 4 and torch.get_num_threads() == 3
            with pytest.raises(KeyError):
                policy(TensorDict({"audio": audio[:, 0], "style": style}, [B]))
            assert torch.get_num_threads() == 3
        finally:
            torch.set_num_threads(before)


def test_entries_by_name(actor):
    """TorchRL's other way to call a module: tensors instead of a TensorDict."""
    audio, style, _ = inputs(actor)
    entries = {
        "audio": audio[:, 0],
        "style": style,
        "frame_index": torch.zeros(B, 1, dtype=torch.int64),
        "frame_mask": torch.ones(B, 1, dtype=torch.bool),
        "latent": torch.zeros(B, 16),
    }
    found = []
    for call in (lambda policy: policy(TensorDict(entries, [B])), lambda policy: policy(**entries)):
        policy = policy_of(actor)
        torch.manual_seed(5)
        found.append(call(policy))
    assert all(torch.equal(found[0][key], value) for key, value in zip(policy.out_keys, found[1], strict=True))


def test_operations_per_frame(actor):
    """Step, sample, density and action; there were 117 and 153."""
    policy = policy_of(actor)
    audio, style, lengths = inputs(actor)
    counts = []
    for n in (10, 60):
        with CountOperations() as count:
            step_through(policy, audio[:, :n], style, lengths)
        counts.append(count.n)
    assert (counts[1] - counts[0]) / 50 <= (70 if actor.audio_encoder.features_per_frame == 1 else 90)


def test_policy_gradient_leaves_the_output_map_alone(actor):
    policy = policy_of(actor)
    data = step_through(policy, *inputs(actor)).detach()
    with set_recurrent_mode(True):
        log_prob = policy.actor_module.get_dist(data).log_prob(data["latent"])
    log_prob.sum().backward()
    assert actor.decoder.vertice_map_r.weight.grad is None
    assert actor.decoder.vertice_map.weight.grad.abs().sum() > 0
    assert actor.decoder.layer.linear1.weight.grad.abs().sum() > 0


def test_padding_is_never_seen(actor):
    policy = policy_of(actor, correlation=0.5)
    data = step_through(policy, *inputs(actor)).detach()
    poisoned = data.clone()
    for key in ("latent",):
        poisoned[key] = torch.where(data["frame_mask"], data[key], torch.nan)
    grads = []
    for td in (data, poisoned):
        policy.zero_grad()
        with set_recurrent_mode(True):
            policy.actor_module.get_dist(td).log_prob(td["latent"]).sum().backward()
        grads.append([p.grad.clone() for p in policy.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) and torch.isfinite(a).all() for a, b in zip(*grads, strict=True))


def test_noise_has_the_stated_size(actor):
    """RMS length of the decoded noise, measured by sampling, in millimetres."""
    lips = torch.tensor([1, 4, 7])
    torch.manual_seed(0)
    for exploration in ("latent", "vertex"):
        scale = noise_scale(actor.decoder, 0.3, exploration, lips)
        if exploration == "latent":
            noise = torch.randn(20000, 16) * scale @ actor.decoder.vertice_map_r.weight.T
        else:
            noise = torch.randn(20000, 3 * V) * scale
        rms = noise.detach().unflatten(-1, (V, 3))[:, lips].square().sum(-1).mean().sqrt()
        assert float(rms) == pytest.approx(0.3e-3, rel=0.03)


def test_copies_do_not_carry_the_cache(actor):
    policy = policy_of(actor)
    step_through(policy, *inputs(actor))
    assert policy.core._steps is not None
    for clone in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        assert clone.core._steps is None
        assert clone.core is clone.actor_module[0]
        assert clone.core.decoder is clone.module[1].core.decoder
    assert not any("cache" in k for k in policy.state_dict())


def test_distribution_against_torch():
    from s2f_rl.models.distributions import MaskedNormal

    torch.manual_seed(0)
    loc, loc2, value = torch.randn(3, 4, 5, 6).unbind(0)[0], torch.randn(4, 5, 6), torch.randn(4, 5, 6)
    scale, scale2 = torch.rand(6) + 0.1, torch.rand(6) + 0.1
    mask = torch.rand(4, 5, 1) > 0.3
    ours, theirs = MaskedNormal(loc, scale, mask), Independent(Normal(loc, scale.expand_as(loc)), 1)
    other, other_theirs = MaskedNormal(loc2, scale2, mask), Independent(Normal(loc2, scale2.expand_as(loc)), 1)
    m = mask.squeeze(-1)
    torch.testing.assert_close(ours.log_prob(value), theirs.log_prob(value) * m)
    torch.testing.assert_close(ours.entropy(), theirs.entropy() * m)
    kl = torch.distributions.kl_divergence
    torch.testing.assert_close(kl(ours, other), kl(theirs, other_theirs) * m)
    averaged = MaskedNormal(loc, scale, mask, average=True)
    torch.testing.assert_close(averaged.log_prob(value) * 6, ours.log_prob(value))


def test_mistakes(actor):
    with pytest.raises(UserError, match="exploration='vertices'"):
        FaceFormerPolicy(actor, "vertices")
    with pytest.raises(UserError, match="correlation"):
        FaceFormerPolicy(actor, correlation=1.0)
    with pytest.raises(UserError, match="noise_mm"):
        FaceFormerPolicy(actor, noise_mm=0.0)
    torch.nn.init.zeros_(actor.decoder.vertice_map_r.weight)
    with pytest.raises(UserError, match="untrained"):
        FaceFormerPolicy(actor)


def test_sequence_mode_needs_whole_rows_and_their_latents(actor):
    policy = policy_of(actor)
    data = step_through(policy, *inputs(actor)).detach()
    with set_recurrent_mode(True):
        with pytest.raises(KeyError, match="no 'latent'"):
            policy.actor_module.get_dist(data.exclude("latent"))
        with pytest.raises(ValueError, match="begin at frame 0"):
            policy.actor_module.get_dist(data[:, 5:])
