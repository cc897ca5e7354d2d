"""A policy that is no Gaussian goes through environment, collector, losses and statistics, as the contracts say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from codes import CodeActor, K, Q
from tensordict import TensorDictBase
from tiny import make_tiny_corpus
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import set_recurrent_mode

from s2f_rl.collectors import utterance_collector
from s2f_rl.data import FaceCorpus
from s2f_rl.envs import SpeechToFaceEnv
from s2f_rl.errors import UserError
from s2f_rl.evaluation import predict_corpus
from s2f_rl.losses import (
    A2CLoss,
    AdvantageWeightedLoss,
    ClipPPOLoss,
    KLPENPPOLoss,
    LagrangeMultiplier,
    ReferenceKL,
    ReinforceLoss,
    RewardGradientLoss,
    SupervisedLoss,
    WeightedLoss,
    check_ratio_is_one,
    differentiable_rollout,
    total_loss,
)
from s2f_rl.models import Actor, MelAudioEncoder, MotionPolicy
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.training import LipErrorConstraint, UtteranceBuffer, batch_statistics
from s2f_rl.training.build_policy import build_critic, build_policy


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> FaceCorpus:
    return FaceCorpus(make_tiny_corpus(tmp_path_factory.mktemp("codes") / "corpus"), split="train")


@pytest.fixture
def actor(corpus: FaceCorpus) -> CodeActor:
    torch.manual_seed(0)
    return CodeActor(MelAudioEncoder(width=6), corpus.n_vertices, len(corpus.subjects)).eval()


@pytest.fixture
def policy(actor: CodeActor, corpus: FaceCorpus) -> MotionPolicy:
    return build_policy(actor, {}, corpus.regions["lips"])


@pytest.fixture
def batch(policy: MotionPolicy, actor: CodeActor, corpus: FaceCorpus) -> TensorDictBase:
    """[4, T] rows as the collector gives them, padded, with random advantages."""
    env = SpeechToFaceEnv(corpus, actor.audio_encoder, batch_size=4, group_size=2, seed=3)
    torch.manual_seed(1)
    with utterance_collector(env, policy, n_batches=1) as collector:
        found = next(iter(collector)).clone()
    assert not bool(found["frame_mask"].all())
    return found.set("advantage", torch.randn(*found.shape, 1))


def test_contract(actor: CodeActor, policy: MotionPolicy) -> None:
    assert isinstance(actor, Actor) and actor.linear_decode is None and list(actor.output_map()) == []
    assert not policy.core.net.shapes.requires_grad and policy.core.net.embedding.requires_grad


def test_collected(batch: TensorDictBase, policy: MotionPolicy) -> None:
    codes, mask = batch["latent"], batch["frame_mask"]
    assert codes.dtype is torch.int64 and codes.shape == (*batch.shape, Q) and int(codes.max()) < K
    assert codes[mask.squeeze(-1)].unique().numel() == K
    for lane, row in enumerate(batch):
        n = int(row["frame_mask"].sum())
        own = sum(policy.core.net.shapes[q][row["latent"][:n, q]] for q in range(Q))
        own = torch.cat([own[:1], own, own[-1:]])
        expected = 0.25 * own[:-2] + 0.5 * own[1:-1] + 0.25 * own[2:]
        torch.testing.assert_close(batch["action"][lane, :n], expected)
        assert not batch["action"][lane, n:].any()


def test_step_mode_is_sequence_mode(batch: TensorDictBase, policy: MotionPolicy) -> None:
    with set_recurrent_mode(True), torch.no_grad():
        found = policy.actor_module.get_dist(batch.clone(False)).log_prob(batch["latent"])
    mask = batch["frame_mask"].squeeze(-1)
    assert (found - batch["latent_log_prob"])[mask].abs().max() < 1e-5
    summed = batch["logits"].log_softmax(-1).gather(-1, batch["latent"].unsqueeze(-1)).squeeze(-1).sum(-1)
    torch.testing.assert_close(found[mask], summed[mask])
    assert not found[~mask].any() and found[mask].std() > 0.1
    assert check_ratio_is_one(policy.actor_module, batch) < 1e-5


def test_rollout_of_the_environment(actor: CodeActor, policy: MotionPolicy, corpus: FaceCorpus) -> None:
    env = SpeechToFaceEnv(corpus, actor.audio_encoder, batch_size=2, seed=3)
    torch.manual_seed(1)
    rows = env.rollout(env.horizon, policy, break_when_any_done=False)
    check_ratio_is_one(policy.actor_module, rows)
    policy.complete(rows)
    mask = rows["frame_mask"]
    torch.testing.assert_close(rows["action"], policy.core.decode(rows["latent"], mask))
    with set_recurrent_mode(True):
        torch.testing.assert_close(policy.module[1](rows.clone(False))["action"], rows["action"])


def test_deterministic_rollout_is_the_actor(actor: CodeActor, policy: MotionPolicy, corpus: FaceCorpus) -> None:
    audio = CachedAudio(actor.audio_encoder, corpus)
    env = SpeechToFaceEnv(corpus, audio, batch_size=2)
    with (
        set_exploration_type(ExplorationType.DETERMINISTIC),
        utterance_collector(env, policy, n_batches=1, exploration_type=ExplorationType.DETERMINISTIC) as collector,
    ):
        found = next(iter(collector))
    own = [corpus.subjects.index(corpus[int(u)].subject) for u in found["utterance"][:, 0, 0]]
    predictions = predict_corpus(actor, audio, found["utterance"][:, 0, 0].tolist(), [[c] for c in own])
    for row, prediction in zip(found, predictions, strict=True):
        torch.testing.assert_close(row["action"][row["frame_mask"].squeeze(-1)], prediction.displacement[0])


def test_update(batch: TensorDictBase, policy: MotionPolicy) -> None:
    kl = ReferenceKL(policy.actor_module)
    terms = {"policy": (ClipPPOLoss(policy.actor_module), 1.0), "kl": (kl, 0.1)}
    loss = WeightedLoss(terms, balance="grad_norm")
    frozen, before = policy.core.net.shapes.clone(), policy.core.net.logits.weight.clone()
    trained = [p for p in loss.parameters() if p.requires_grad]
    optimizer, values = torch.optim.Adam(trained, 0.03), []
    for _ in range(5):
        out = loss(batch)
        optimizer.zero_grad()
        total_loss(out).backward()
        optimizer.step()
        values.append(float(out["value_policy"]))
    assert values[-1] < values[0] - 0.01
    assert torch.equal(policy.core.net.shapes, frozen) and not torch.equal(policy.core.net.logits.weight, before)
    with set_recurrent_mode(True), torch.no_grad():
        now = policy.actor_module.get_dist(batch.clone(False)).inner.logits
        start = kl.reference.get_dist(batch.clone(False)).inner.logits
    expected = [
        float((now[b, t, q].exp() * (now[b, t, q] - start[b, t, q])).sum())
        for b, t in batch["frame_mask"].squeeze(-1).nonzero().tolist()
        for q in range(Q)
    ]
    frames = int(batch["frame_mask"].sum())
    assert sum(expected) / frames > 1e-3
    assert float(kl(batch)["kl_reference"]) == pytest.approx(sum(expected) / frames, rel=1e-4)


@pytest.mark.parametrize("kind", [A2CLoss, ReinforceLoss, KLPENPPOLoss, AdvantageWeightedLoss])
def test_every_policy_loss(kind: Any, batch: TensorDictBase, policy: MotionPolicy) -> None:
    """At ratio 1 the gradient of all of them is that of -advantage * log-probability, up to a positive weight."""
    out = kind(policy.actor_module)(batch)
    total_loss(out).backward()
    found = policy.core.net.logits.weight.grad.clone()
    policy.core.net.zero_grad()
    with set_recurrent_mode(True):
        log_prob = policy.actor_module.get_dist(batch.clone(False)).log_prob(batch["latent"])
    mask, advantage = batch["frame_mask"].squeeze(-1), batch["advantage"].squeeze(-1)
    weight = advantage.exp().clamp(max=20.0) if kind is AdvantageWeightedLoss else advantage
    (-(weight * log_prob)[mask].mean()).backward()
    torch.testing.assert_close(found, policy.core.net.logits.weight.grad)


def test_statistics_without_noise(batch: TensorDictBase, policy: MotionPolicy, corpus: FaceCorpus) -> None:
    batch["next", "score_mask"] = batch["frame_mask"].clone()
    row = batch_statistics(batch, policy, corpus.regions["lips"], ())
    assert not {"noise_mm", "entropy"} & set(row) and row["amplitude_mm"] > 0 and policy.core.exploration() == {}


def test_replay_keeps_the_parameters(batch: TensorDictBase, policy: MotionPolicy) -> None:
    buffer = UtteranceBuffer(8, batch.shape[1], parameters=policy.core.out_keys)
    buffer.extend(batch)
    drawn = buffer.sample(4)
    assert drawn["latent"].dtype is torch.int64 and drawn["logits"].shape[-2:] == (Q, K)


class TestRefusals:
    """What this policy does not have ends in one line, before anything is computed where that can be."""

    def test_supervised(self, policy: MotionPolicy, corpus: FaceCorpus) -> None:
        with pytest.raises(UserError, match="supervised.mode=on_policy: this policy has no such term"):
            SupervisedLoss(policy.actor_module, corpus)

    def test_constraint(self, policy: MotionPolicy, corpus: FaceCorpus) -> None:
        with pytest.raises(UserError, match="constraint=lve: CodeCore has no rollout of its mean; use constraint=none"):
            LipErrorConstraint(policy.core, None, corpus.regions["lips"], LagrangeMultiplier(1.02))  # type: ignore[arg-type]

    def test_reward_gradient(self, policy: MotionPolicy, batch: TensorDictBase) -> None:
        with pytest.raises(UserError, match="reward_gradient: this policy draws what has no gradient"):
            RewardGradientLoss(policy.actor_module, lambda *inputs: inputs)
        with pytest.raises(UserError, match="CodeCore has no rollout with a gradient"):
            differentiable_rollout(policy.core, batch["audio"], batch["style"][:, 0], None)

    def test_critic(self, policy: MotionPolicy, actor: CodeActor) -> None:
        with pytest.raises(UserError, match="critic=decoder: this policy writes nothing"):
            build_critic("decoder", 8, policy, actor, None, torch.device("cpu"))

    def test_divergence_that_nobody_knows(self, policy: MotionPolicy, batch: TensorDictBase) -> None:
        kl = ReferenceKL(policy.actor_module)
        kl.__dict__["reference"] = SimpleNamespace(get_dist=lambda rows: torch.distributions.Normal(0.0, 1.0))
        with pytest.raises(UserError, match="kl: no divergence is registered for Codes"):
            kl(batch)
