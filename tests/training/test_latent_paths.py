"""Two ways to the same numbers: through the vertices, and by the latents alone while the output map is frozen.

In double precision, so that a difference is a mistake and not rounding.
"""

from __future__ import annotations

import copy
import json

import pytest
import torch
from tensordict import TensorDict
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from s2f_rl import keys
from s2f_rl.collectors import utterance_collector
from s2f_rl.data import FaceCorpus
from s2f_rl.envs import FrozenRewardTransform
from s2f_rl.losses import (
    ClipPPOLoss,
    LagrangeMultiplier,
    ReferenceKL,
    RewardGradientLoss,
    SupervisedLoss,
    WeightedLoss,
    projected_truth,
    total_loss,
)
from s2f_rl.models import LatentMotion
from s2f_rl.rewards import PerceptualReward, Reward, SpeechMeshTransformer
from s2f_rl.rewards.articulation.closure import ClosureReward
from s2f_rl.training import LipErrorConstraint, RewardSignal, batch_statistics
from tests.envs.support import env_for, policy_for, reward_model_for
from tests.tiny import make_tiny_corpus

SAME = {"rtol": 1e-9, "atol": 1e-12}


class Speed(Reward):
    """Needs all vertices."""

    score_names = ("speed_score",)
    look_back = 1

    def score_motion(self, vertices, prepared, frame_mask, stride=1, first_frame=None):
        speed = torch.nn.functional.pad(vertices.diff(dim=1).square().sum(-1), (1, 0))
        return {"speed_score": (torch.exp(-1e3 * speed), frame_mask)}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Six utterances, the last two of a subject without style, S0_sentence02 without vertices; all with phones."""
    root = make_tiny_corpus(tmp_path_factory.mktemp("latent"), audio_only=["S0_sentence02"])
    (root / "phones").mkdir()
    for wav in (root / "wav").glob("*.wav"):
        (root / "phones" / f"{wav.stem}.json").write_text(json.dumps([["m", 0.1, 0.25], ["a", 0.25, 0.6]]))
    return FaceCorpus(root, split="all")


def policies(corpus, **options):
    """A policy whose output map trains and one whose output map does not, of the same weights."""
    trained = policy_for(corpus, **options).double()
    frozen = copy.deepcopy(trained)
    for parameter in frozen.core.frozen_in_rl():
        parameter.requires_grad_(False)
    frozen.writes_action = False
    return trained, frozen


def rolled_out(corpus, policy, lanes=8, group_size=2):
    """Rows as the collector gives them, with actions, lane 1 in another's style, and padding that holds anything."""
    env = env_for(corpus, lanes, group_size=group_size, style="random")
    torch.manual_seed(5)
    single = copy.deepcopy(policy).float()
    single.writes_action = True
    batch = next(iter(utterance_collector(env, single, n_batches=1))).clone()
    own = torch.zeros(lanes, 2)
    for lane, i in enumerate(batch[keys.UTTERANCE][:, 0, 0].tolist()):
        own[lane, i // 2 if i < 4 else 0] = 1.0
    own[1] = own[1].flip(0)
    batch[keys.STYLE] = own.unsqueeze(1).expand(-1, batch.shape[1], -1).clone()
    batch = batch.apply(lambda x: x.double() if x.is_floating_point() else x)
    padding = ~batch[keys.FRAME_MASK]
    assert padding.any()
    for key in (keys.LATENT, keys.LOC):
        batch[key] = torch.where(padding, 7.0, batch[key])
    batch[keys.ACTION] = policy.core.decode(batch[keys.LATENT]).detach()
    return batch.detach()


def gradients(policy, loss):
    policy.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


def compare_gradients(full, latent):
    assert latent and {name for name in full if "vertice_map_r" not in name} == latent.keys()
    for name, gradient in latent.items():
        torch.testing.assert_close(gradient, full[name], rtol=1e-7, atol=1e-9 * float(full[name].abs().max()))


@pytest.mark.parametrize(
    ("mode", "correlation", "lip_weight"),
    [("on_policy", 0.0, 0.0), ("on_policy", 0.6, 3.0), ("teacher_forced", 0.0, 3.0)],
)
def test_supervised_error(corpus, mode, correlation, lip_weight, monkeypatch):
    monkeypatch.setattr(projected_truth, "_FRAMES", 7)  # a recording is projected piece by piece
    trained, frozen = policies(corpus, correlation=correlation)
    batch = rolled_out(corpus, trained)
    out, found = [], []
    for policy in (trained, frozen):
        loss = SupervisedLoss(policy.actor_module, corpus, mode, 2.0, 0.5, lip_weight).double()
        out.append(loss(batch))
        found.append(gradients(policy, total_loss(out[-1])))
        again = loss(batch)  # from what is kept of the recordings
        assert all(torch.equal(out[-1][key], again[key]) for key in again.keys())
    assert 0 < int(out[0]["supervised_frames"]) < int(batch[keys.FRAME_MASK].sum())
    for key in out[0].keys():
        torch.testing.assert_close(out[1][key], out[0][key], **SAME)
    compare_gradients(*found)


def test_another_output_map_is_seen(corpus):
    """What is kept of the recordings and of the reward's map belongs to one output map."""
    trained, frozen = policies(corpus)
    batch = rolled_out(corpus, trained)
    losses = [SupervisedLoss(policy.actor_module, corpus) for policy in (trained, frozen)]
    transforms = [FrozenRewardTransform(reward_model_for(corpus).double(), corpus) for _ in "ab"]
    transforms[1].read_latents(frozen.core)
    for _ in range(2):
        batch[keys.ACTION] = trained.core.decode(batch[keys.LATENT]).detach()
        full, latent = (loss(batch) for loss in losses)
        torch.testing.assert_close(latent["loss_position"], full["loss_position"], **SAME)
        full, latent = transforms[0](batch.clone()), transforms[1](batch.exclude(keys.ACTION))
        torch.testing.assert_close(latent["next", "reward"], full["next", "reward"], **SAME)
        with torch.no_grad():
            for policy in (trained, frozen):
                policy.core.linear_decode.weight.mul_(1.5)
                policy.core.linear_decode.bias.add_(1e-3)


def transform_of(corpus, parts, **options):
    rewards = {
        "model": PerceptualReward(reward_model_for(corpus).double()),
        "closure": ClosureReward(corpus),
        "speed": Speed(),
    }
    return FrozenRewardTransform({name: rewards[name] for name in parts}, corpus, **options)


@pytest.mark.parametrize(
    ("parts", "options"),
    [
        (["model"], {"stride": 5, "cap": "truth"}),
        (["model"], {"write_features": True, "max_frames": 50}),
        (["model", "speed", "closure"], {"stride": 2}),
    ],
)
def test_scores(corpus, parts, options):
    trained, frozen = policies(corpus)
    batch = rolled_out(corpus, trained)
    batch[keys.LATENT][0, 9, 3] = torch.nan
    batch[keys.LATENT][2, 7, 0] = torch.inf
    batch[keys.ACTION] = trained.core.decode(batch[keys.LATENT]).detach()
    full = transform_of(corpus, parts, **options)(batch.clone())
    transform = transform_of(corpus, parts, **options)
    with pytest.raises(KeyError, match="no 'action'"):
        transform(batch.exclude(keys.ACTION))
    transform.read_latents(frozen.core)
    latent = transform(batch.exclude(keys.ACTION))
    assert keys.ACTION not in latent.keys()
    assert full["next"].keys() == latent["next"].keys()
    assert full["next", keys.SCORE_MASK].any() and not full["next", keys.SCORE_MASK][0, 9]
    for key, value in full["next"].items():
        torch.testing.assert_close(latent["next", key], value, **SAME)


def test_what_is_not_finite_has_no_gradient(corpus):
    """Neither in padding nor in a frame that diverged, whatever a reward makes of the face at rest."""
    _, frozen = policies(corpus)
    batch = rolled_out(corpus, frozen)
    linear, mask = frozen.core.linear_decode, batch[keys.FRAME_MASK]
    transform = transform_of(corpus, ["model", "speed"])
    clean = torch.where(mask, batch[keys.LATENT], 0.0)
    found = []
    for hole in (torch.nan, 3.0):
        latents = torch.where(mask, clean, hole)
        if hole != hole:
            latents[0, 9] = hole
        latents.requires_grad_()
        out = transform.score_displacements(
            LatentMotion(latents, linear), batch["utterance"][:, 0, 0], mask.sum((1, 2))
        )
        out["reward"][1:].sum().backward(retain_graph=True)
        found.append(latents.grad[1:].clone())
        out["reward"].sum().backward()
        assert torch.isfinite(latents.grad).all() and not latents.grad[~mask.squeeze(-1)].any()
    torch.testing.assert_close(*found, **SAME)


def test_the_stride_saves_what_it_leaves_out(corpus, monkeypatch):
    _, frozen = policies(corpus)
    batch = rolled_out(corpus, frozen).exclude(keys.ACTION)
    encoded = []
    encode = SpeechMeshTransformer.encode_embedded
    monkeypatch.setattr(
        SpeechMeshTransformer,
        "encode_embedded",
        lambda self, clips, *a: encoded.append(len(clips)) or encode(self, clips, *a),
    )
    for stride in (1, 5):
        transform = transform_of(corpus, ["model"], stride=stride)
        transform.read_latents(frozen.core)
        scored = transform(batch.clone())["next", keys.SCORE_MASK]
        assert encoded.pop() == int(scored.sum()) and not encoded


@pytest.mark.parametrize("normalise", ["none", "running"])
def test_reward_gradient(corpus, normalise):
    trained, frozen = policies(corpus, correlation=0.5)
    batch = rolled_out(corpus, trained)
    found, values = [], []
    for policy in (trained, frozen):
        transform = transform_of(corpus, ["model", "closure", "speed"], stride=2)
        signal = RewardSignal(transform, normalise)
        signal(transform(batch.clone()))
        loss = RewardGradientLoss(policy.actor_module, signal.score, reads_latents=True)
        values.append(loss(batch))
        found.append(gradients(policy, values[-1]["loss_objective"]))
    torch.testing.assert_close(*(value["loss_objective"] for value in values), **SAME)
    compare_gradients(*found)


def test_a_score_that_reads_displacements_gets_them(corpus):
    _, frozen = policies(corpus)
    seen = []

    def score(displacement, utterance, n_frames):
        seen.append(displacement)
        return displacement.sum(-1), torch.ones(displacement.shape[:2], dtype=torch.bool)

    RewardGradientLoss(frozen.actor_module, score)(rolled_out(corpus, frozen))
    assert isinstance(seen[0], torch.Tensor)


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_figures_and_constraint(corpus, correlation):
    trained, frozen = policies(corpus, correlation=correlation)
    batch, lips = rolled_out(corpus, trained), corpus.regions["lips"]
    batch["next", keys.SCORE_MASK] = batch[keys.FRAME_MASK]
    figures = batch_statistics(batch, trained, lips, [])
    assert batch_statistics(batch.exclude(keys.ACTION), frozen, lips, []) == pytest.approx(figures, rel=1e-6)

    term = SupervisedLoss(frozen.actor_module, corpus)
    constraint = LipErrorConstraint(copy.deepcopy(frozen.core), term, lips, LagrangeMultiplier(1.02))
    with torch.no_grad():
        for parameter in frozen.core.decoder.layer.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    constraint.core = frozen.core
    batch = rolled_out(corpus, frozen)
    truth, known = term.truth(batch)
    own = start = 0.0
    with torch.no_grad():
        means = frozen.core.mean_motion(batch, collected=True)
        for lane, n in enumerate(known.sum((1, 2)).tolist()):
            if n:
                rows = batch[lane : lane + 1, :n]
                still = constraint.start.unrolled(rows[keys.AUDIO], rows[keys.STYLE][:, 0])[0]
                for motion in (means[lane, :n], still):
                    error = (motion - truth[lane, :n]).view(n, -1, 3)[:, lips].square().sum(-1).amax(-1).mean()
                    own, start = (own + error, start) if motion is not still else (own, start + error)
    assert constraint.lve_ratio(batch.exclude(keys.ACTION)) == pytest.approx(float(own / start), rel=1e-9)


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation gave."""

    n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.n = max([self.n, *(leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor))])
        return out


def test_no_tensor_of_all_vertices(tmp_path):
    """One iteration of PPO and of the reward gradient, after the first that projects and composes."""
    corpus = FaceCorpus(make_tiny_corpus(tmp_path, n_vertices=4000), split="train")
    policy = policy_for(corpus)
    for parameter in policy.core.frozen_in_rl():
        parameter.requires_grad_(False)
    policy.writes_action = False
    lips, lanes = torch.arange(4), 4
    term = SupervisedLoss(policy.actor_module, corpus)
    constraint = LipErrorConstraint(policy.core, term, lips, LagrangeMultiplier(1.02))
    transform = FrozenRewardTransform(reward_model_for(corpus), corpus)
    transform.read_latents(policy.core)
    gradient = RewardGradientLoss(policy.actor_module, RewardSignal(transform).score, reads_latents=True)
    losses = {"policy": ClipPPOLoss(policy.actor_module), "supervised": term, "kl": ReferenceKL(policy.actor_module)}
    loss = WeightedLoss({name: (each, 1.0) for name, each in losses.items()}, balance="grad_norm")
    with utterance_collector(env_for(corpus, lanes), policy) as collector:
        for _ in range(3):
            with Largest() as largest:
                batch = transform(collector.next())
                batch[keys.ADVANTAGE] = batch["next", "reward"]
                total_loss(loss(batch)).backward()
                total_loss(gradient(batch)).backward()
                constraint.update(batch)
                batch_statistics(batch, policy, lips, transform.scores)
    everything = batch.numel() * 3 * corpus.n_vertices
    parameter = policy.core.decoder.vertice_map.weight.numel()
    assert parameter <= largest.n < 1.1 * parameter < everything / 2


def test_library_users_get_actions(corpus):
    policy = policy_for(corpus)
    batches = []
    for policy.writes_action in (True, False):
        torch.manual_seed(1)
        batches.append(next(iter(utterance_collector(env_for(corpus, 4), policy, n_batches=1))).clone())
    assert keys.ACTION in batches[0].keys() and keys.ACTION not in batches[1].keys()
    torch.testing.assert_close(policy.core.decode(batches[1][keys.LATENT]), batches[0][keys.ACTION])
    single = policy(TensorDict({key: batches[0][key][:, 0] for key in policy.core.in_keys}, [4]))
    assert single[keys.ACTION].shape == (4, 3 * corpus.n_vertices)
