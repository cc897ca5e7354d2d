"""The same batches from Ray workers; runs where the ray extra is installed."""

from __future__ import annotations

import time
from functools import partial

import pytest
import torch

ray = pytest.importorskip("ray")

from s2f_rl.collectors import ray_utterance_collector  # noqa: E402
from s2f_rl.data import FaceCorpus  # noqa: E402
from s2f_rl.envs import FrozenRewardTransform, SpeechToFaceEnv  # noqa: E402
from s2f_rl.training import WorkerCollector, WorkerLost  # noqa: E402
from tests.envs.support import audio_encoder, policy_for, reward_model_for  # noqa: E402


def _worker_env(root, seed):
    corpus = FaceCorpus(root, split="all", topology="vocaset")
    return SpeechToFaceEnv(corpus, audio_encoder(), batch_size=2, seed=seed)


def test_two_workers(corpus):
    policy = policy_for(corpus)
    transform = FrozenRewardTransform(reward_model_for(corpus), corpus)
    collector = ray_utterance_collector(
        partial(_worker_env, corpus.root), policy, n_workers=2, n_batches=2, reward_transform=transform
    )
    with collector:
        for batch in collector:
            assert batch.shape == (4, int(batch["frame_mask"].sum((1, 2)).max()))
            assert (batch["next", "score_mask"].sum((1, 2)) == batch["frame_mask"].sum((1, 2)) - 4).all()
            noise = (batch["latent"] - batch["loc"])[:, 0]
            assert (torch.cdist(noise, noise) + torch.eye(4) > 1e-3).all()
            collector.update_policy_weights_()
    assert not ray.is_initialized()


def test_a_worker_is_killed_and_all_are_started_again(corpus):
    """One line, no waiting for the dead, and the next batch is the one that would have come."""
    policy = policy_for(corpus)

    def start(n_done):
        return ray_utterance_collector(partial(_worker_env, corpus.root), policy, n_workers=2, n_done=n_done)

    with WorkerCollector(start, policy) as collector:
        first, second = collector.next().clone(), collector.next().clone()
        assert not torch.equal(first["latent"][:, :5], second["latent"][:, :5])
        state = collector.state_dict()
        ray.kill(collector._workers.collector.remote_collectors[1])
        started = time.monotonic()
        with pytest.raises(WorkerLost, match="resume=true"):
            collector.next()
        assert time.monotonic() - started < 60
    with WorkerCollector(start, policy) as again:
        again.load_state_dict({**state, "n_collected": 1})
        other = again.next()
        assert torch.equal(other["utterance"], second["utterance"]) and torch.equal(other["latent"], second["latent"])
    assert not ray.is_initialized()
