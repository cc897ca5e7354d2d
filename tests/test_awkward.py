"""The awkward corpus through every part: in its own unit it gives what the same faces give in metres."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tensordict import TensorDictBase

from s2f_rl.data import FaceCorpus
from s2f_rl.envs import FrozenRewardTransform, SpeechToFaceEnv
from s2f_rl.evaluation import Scorer, evaluate_actor, evaluate_truth
from s2f_rl.losses import ReferenceKL, SupervisedLoss, motion_errors
from s2f_rl.models import FaceFormer, FaceFormerPolicy, MelAudioEncoder
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.training.statistics import AmplitudeReference, batch_statistics
from tests.conftest import METRES_PER_UNIT, Awkward

NOISE_MM = 0.8


def actor_for(corpus: FaceCorpus) -> FaceFormer:
    torch.manual_seed(2)
    encoder = MelAudioEncoder(width=8, fps=corpus.fps, features_per_frame=corpus.audio_features_per_frame)
    actor = FaceFormer(encoder, corpus.n_vertices, feature_dim=16, n_subjects=len(corpus.subjects))
    torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=1e-3)
    torch.nn.init.normal_(actor.decoder.vertice_map.weight, std=10.0)
    return actor.eval()


def reward_for(corpus: FaceCorpus) -> RewardModel:
    torch.manual_seed(3)
    backbone = SpeechMeshTransformer(3 * corpus.n_vertices, width=32, depth=1, n_heads=4)
    torch.nn.init.normal_(backbone.encoder.patch_embed.weight, std=10.0)
    return RewardModel(backbone, ScoreHead(32, 32, hidden=16))


def rollout(corpus: FaceCorpus, policy: FaceFormerPolicy, actor: FaceFormer) -> TensorDictBase:
    env = SpeechToFaceEnv(corpus, actor.audio_encoder, batch_size=6, group_size=2, seed=4)
    torch.manual_seed(5)
    return env.rollout(env.horizon, policy, break_when_any_done=False).detach()


def through_everything(root: Path) -> dict[str, float]:
    """Numbers from every part of the path: environment, policy, reward, statistics, losses, evaluation."""
    corpus = FaceCorpus(root, "train", keep_mel_clips=False)
    actor, model, lips = actor_for(corpus), reward_for(corpus), corpus.regions["lips"]
    policy = FaceFormerPolicy(actor, noise_mm=NOISE_MM, noise_vertices=lips)
    reward = FrozenRewardTransform(model, corpus, cap="truth")
    batch = reward(rollout(corpus, policy, actor))
    found = {f"batch/{k}": v for k, v in batch_statistics(batch, policy, lips, reward.scores).items()}
    found["sampled_amplitude_ratio"] = AmplitudeReference(corpus, lips).ratio(found["batch/amplitude_mm"])
    reference = ReferenceKL(policy.actor_module)
    with torch.no_grad():
        actor.decoder.layer.linear1.weight.mul_(1.2)
    found["kl"] = float(reference(batch)["kl_reference"])
    for mode in ("on_policy", "teacher_forced"):
        out = SupervisedLoss(policy.actor_module, corpus, mode, lip_weight=2.0)(batch)
        found |= {f"{mode}/{k}": float(out[k]) for k in out.keys()}
    motion = MotionSubspace.fit(corpus, n_components=6)
    found |= {f"direction{k}": float(v) for k, v in enumerate(motion.std)}
    validation = FaceCorpus(root, "validation", keep_mel_clips=False)
    scorer = Scorer({"train": model}, validation)
    rows = evaluate_truth(validation, scorer) + evaluate_actor(actor, validation, scorer)
    for i, row in enumerate(rows):
        found |= {f"row{i}/{k}": v for k, v in row.items() if isinstance(v, float) and math.isfinite(v)}
    return found


def test_every_number_is_that_of_metres(awkward: Awkward) -> None:
    own, metres = through_everything(awkward.own), through_everything(awkward.metres)
    assert own.keys() == metres.keys() and len(own) > 60
    assert metres["kl"] > 0 and metres["on_policy/loss_position"] > 0 and metres["on_policy/supervised_frames"] > 50
    for key, value in metres.items():
        assert own[key] == pytest.approx(value, rel=1e-5, abs=1e-9), key


class TestCorpus:
    def test_metres_at_the_door(self, awkward: Awkward) -> None:
        own, metres = FaceCorpus(awkward.own, "all"), FaceCorpus(awkward.metres, "all")
        assert (own.fps, own.audio_features_per_frame, own.metres_per_unit) == (25, 2, METRES_PER_UNIT)
        stored = np.load(awkward.own / "vertices_npy" / "zoe_sentence01.npy")
        np.testing.assert_allclose(own["zoe_sentence01"].vertices, METRES_PER_UNIT * stored[: len(own[-3])], rtol=1e-6)
        for ours, theirs in zip(own, metres, strict=True):
            torch.testing.assert_close(ours.template, theirs.template, rtol=1e-6, atol=1e-9)
            assert (ours.vertices is None) == (theirs.vertices is None)
            if ours.vertices is not None:
                torch.testing.assert_close(ours.vertices, theirs.vertices, rtol=1e-6, atol=1e-8)
        assert len({u.n_frames for u in own}) > 6

    def test_columns_are_in_the_order_of_training(self, awkward: Awkward) -> None:
        corpus = FaceCorpus(awkward.own, "all")
        assert corpus.subjects == ["zoe", "adam"]
        assert corpus["zoe_sentence01"].style.tolist() == [1, 0] and corpus["adam_sentence01"].style.tolist() == [0, 1]
        assert corpus["mia_sentence01"].style is None and corpus["bob_sentence01"].style is None

    def test_the_environment_shows_them(self, awkward: Awkward) -> None:
        corpus = FaceCorpus(awkward.own, "train")
        env = SpeechToFaceEnv(corpus, actor_for(corpus).audio_encoder, batch_size=6, seed=1)
        start = env.reset()
        for utterance, style in zip(start["utterance"].flatten().tolist(), start["style"].tolist(), strict=True):
            assert style == ([1, 0] if corpus.names[utterance].startswith("zoe") else [0, 1])

    def test_a_subject_without_a_style_is_predicted_in_all(self, awkward: Awkward) -> None:
        corpus = FaceCorpus(awkward.own, "test")
        rows = evaluate_actor(actor_for(corpus), corpus, conditions="own")
        assert [row["condition"] for row in rows[:3]] == ["zoe", "adam", "mean"] and len(rows) == 9


class TestMillimetres:
    """Each unit in a name is what it says, against a count by hand."""

    def test_noise_of_the_policy(self, awkward: Awkward) -> None:
        corpus = FaceCorpus(awkward.own, "train")
        actor, lips = actor_for(corpus), corpus.regions["lips"]
        policy = FaceFormerPolicy(actor, noise_mm=NOISE_MM, noise_vertices=lips)
        batch = rollout(corpus, policy, actor)
        noise = actor.decoder.decode(batch["latent"]) - actor.decoder.decode(batch["loc"])
        length = noise[batch["frame_mask"].squeeze(-1)].unflatten(-1, (-1, 3))[:, lips].square().sum(-1).mean().sqrt()
        assert 1e3 * float(length) == pytest.approx(NOISE_MM, rel=0.05)
        assert batch_statistics_of(batch, policy, corpus)["noise_mm"] == pytest.approx(1e3 * float(length), rel=1e-4)

    def test_amplitude(self, awkward: Awkward) -> None:
        corpus = FaceCorpus(awkward.own, "train")
        actor, lips = actor_for(corpus), corpus.regions["lips"]
        policy = FaceFormerPolicy(actor, noise_mm=NOISE_MM, noise_vertices=lips)
        batch = rollout(corpus, policy, actor)
        squares, frames = 0.0, 0
        for row, mask in zip(batch["action"], batch["frame_mask"].squeeze(-1), strict=True):
            points = row[mask].unflatten(-1, (-1, 3))[:, lips].double()
            squares += float((points - points.mean(0)).square().sum(-1).mean(-1).sum())
            frames += int(mask.sum())
        amplitude = batch_statistics_of(batch, policy, corpus)["amplitude_mm"]
        assert amplitude == pytest.approx(1e3 * math.sqrt(squares / frames), rel=1e-4)
        reference = AmplitudeReference(corpus, lips)
        reference.ratio(1.0)
        truths = [u.vertices.unflatten(-1, (-1, 3))[:, lips].double() for u in corpus if u.vertices is not None]
        mean = np.mean([float((t - t.mean(0)).square().sum(-1).mean()) for t in truths])
        assert reference.reference_mm == pytest.approx(1e3 * math.sqrt(mean), rel=1e-5)

    def test_supervised_error(self, awkward: Awkward) -> None:
        """Every coordinate off by a millimetre, growing by a tenth per frame."""
        mask = torch.ones(1, 4, 1, dtype=torch.bool)
        error = 1e-3 * (1 + 0.1 * torch.arange(4.0)).view(1, 4, 1).expand(1, 4, 6)
        position, velocity = motion_errors(error, torch.zeros_like(error), mask)
        assert float(position) == pytest.approx((1 + 1.21 + 1.44 + 1.69) / 4) and float(velocity) == pytest.approx(0.01)


def batch_statistics_of(batch: TensorDictBase, policy: FaceFormerPolicy, corpus: FaceCorpus) -> dict[str, float]:
    reward = FrozenRewardTransform(reward_for(corpus), corpus)
    return batch_statistics(reward(batch), policy, corpus.regions["lips"], reward.scores)
