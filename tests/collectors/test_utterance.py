"""Whole-utterance batches: what is in them, trimming, exact continuation, workers, TorchRL's plain Collector."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from tensordict import TensorDict
from torchrl.collectors import Collector
from torchrl.envs import RewardSum, TransformedEnv
from torchrl.envs.utils import ExplorationType

from s2f_rl.collectors import multi_utterance_collector, trim_to_longest, utterance_collector
from s2f_rl.data import FaceCorpus
from s2f_rl.envs import FrozenRewardTransform, SpeechToFaceEnv
from s2f_rl.errors import UserError
from tests.envs.support import audio_encoder, env_for, policy_for, reward_model_for
from tests.operations import CountOperations


def equal(a: TensorDict, b: TensorDict) -> bool:
    assert set(a.keys(True, True)) == set(b.keys(True, True))
    return all(torch.equal(a[key], b[key]) for key in a.keys(True, True))


class TestTrim:
    def test_against_a_loop(self):
        done = torch.zeros(2, 3, 12, 1, dtype=torch.bool)
        ends = {(0, 0): 4, (0, 1): 7, (0, 2): 2, (1, 0): 7, (1, 1): 0, (1, 2): 6}
        for (i, j), t in ends.items():
            done[i, j, t] = True
        done[1, 1, 11] = True  # stale frames behind the first end do not count
        data = TensorDict({"x": torch.arange(12).expand(2, 3, 12), "next": {"done": done}}, [2, 3, 12])
        assert trim_to_longest(data).shape == (2, 3, 8)
        assert trim_to_longest(data[..., :6]).shape == (2, 3, 6)  # lanes that do not end keep all


class TestBatches:
    def test_equal_to_a_rollout(self, corpus):
        """The Collector's batch is the environment's own rollout with the same draws and noise, trimmed."""
        policy = policy_for(corpus)
        transform = FrozenRewardTransform(reward_model_for(corpus), corpus)
        with utterance_collector(env_for(corpus, 2), policy, n_batches=4, reward_transform=transform) as collector:
            torch.manual_seed(11)
            batches = [batch.clone() for batch in collector]
        assert collector.n_collected == 4
        env = env_for(corpus, 2)
        torch.manual_seed(11)
        for batch in batches:
            td = env.reset()
            length = max(corpus.n_frames(u) for u in td["utterance"].flatten())
            data = env.rollout(length, policy, auto_reset=False, tensordict=td, break_when_any_done=False)
            data = transform(data)
            assert batch.shape == (2, length)
            for key in batch.keys(True, True):
                torch.testing.assert_close(batch[key], data[key], atol=1e-6, rtol=1e-6)
            assert ("next", "audio") not in batch.keys(True)
        assert len({batch.shape[1] for batch in batches}) > 1

    def test_reward_in_the_environment(self, corpus):
        """Where a transform sees every frame, it sees its action: the reward is that of the deferred transform."""
        policy, model = policy_for(corpus), reward_model_for(corpus)
        found = []
        for inside in (True, False):
            env, reward = env_for(corpus, 2), FrozenRewardTransform(model, corpus)
            options = {} if inside else {"reward_transform": reward}
            torch.manual_seed(11)
            with utterance_collector(TransformedEnv(env, reward) if inside else env, policy, **options) as collector:
                found.append(collector.next().clone())
        assert (found[0]["next", "reward"] != 0).any()
        for key in ("action", "latent_log_prob", ("next", "reward")):
            torch.testing.assert_close(found[0][key], found[1][key], atol=1e-5, rtol=0)

    def test_operations_per_frame(self, corpus):
        """Environment, policy and TorchRL's own; there were 135."""
        counts = []
        for max_frames in (4, 16):
            env = env_for(corpus, 4, max_frames=max_frames)
            with utterance_collector(env, policy_for(corpus)) as collector:
                collector.next()
                with CountOperations() as count:
                    collector.next()
            counts.append(count.n)
        assert (counts[1] - counts[0]) / 12 <= 60

    def test_threads(self, corpus):
        """One while frames follow each other, all for what is computed of whole batches; restored in any case."""
        env, policy, before, seen = env_for(corpus, 2), policy_for(corpus), torch.get_num_threads(), {}
        decoder = policy.core.decoder
        complete, run_step = policy.complete, decoder.run_step

        def note(name, function):
            def noted(*args):
                seen.setdefault(name, set()).add(torch.get_num_threads())
                return function(*args)

            return noted

        object.__setattr__(policy, "complete", note("complete", complete))
        object.__setattr__(decoder, "run_step", note("run_step", run_step))
        torch.set_num_threads(3)
        try:
            with utterance_collector(env, policy) as collector:
                collector.next()
                assert seen == {"complete": {3}, "run_step": {1}} and torch.get_num_threads() == 3

                def fail(*args):
                    raise RuntimeError("no frame")

                object.__setattr__(decoder, "run_step", fail)
                with pytest.raises(RuntimeError, match="no frame"):
                    collector.next()
                assert torch.get_num_threads() == 3
        finally:
            torch.set_num_threads(before)

    def test_stops_stepping_when_all_lanes_idle(self, corpus):
        env, calls = env_for(corpus, 1), []
        policy = policy_for(corpus)
        policy.register_forward_hook(lambda *_: calls.append(1))
        collector = utterance_collector(env, policy, n_batches=6)
        calls.clear()
        frames = [batch.shape[1] for batch in collector]
        assert len(calls) == sum(frames) == sum(corpus.n_frames(i) for i in range(6)) < 6 * env.horizon

    def test_every_row_is_one_whole_utterance_of_the_epoch(self, corpus):
        env = env_for(corpus, 3)
        seen = []
        for batch in utterance_collector(env, policy_for(corpus), n_batches=2):
            for row in batch:
                u = row["utterance"][0].item()
                seen.append(u)
                assert (row["utterance"] == u).all()
                assert row["frame_mask"].sum() == row["next", "done"].int().argmax() + 1 == corpus.n_frames(u)
        assert sorted(seen) == list(range(6))

    def test_deterministic_exploration_and_transformed_environment(self, corpus):
        env = TransformedEnv(env_for(corpus, 2), RewardSum())
        policy = policy_for(corpus)
        collector = utterance_collector(env, policy, n_batches=1, exploration_type=ExplorationType.DETERMINISTIC)
        batch = next(iter(collector))
        mask = batch["frame_mask"].expand_as(batch["loc"])
        assert torch.equal(batch["latent"][mask], batch["loc"][mask])

    def test_other_environments(self, corpus):
        from torchrl.envs import PendulumEnv

        with pytest.raises(UserError, match="PendulumEnv has no horizon"):
            utterance_collector(PendulumEnv(), policy_for(corpus))


class TestTorchRLsOwnCollector:
    def test_deferred_reward_as_postproc(self, corpus):
        env, model = env_for(corpus, 3), reward_model_for(corpus)
        collector = Collector(
            env,
            policy_for(corpus),
            frames_per_batch=3 * env.horizon,
            total_frames=9 * env.horizon,
            reset_at_each_iter=True,
            postproc=FrozenRewardTransform(model, corpus),
            compact_obs=True,
            track_traj_ids=False,
            return_same_td=True,
            auto_register_policy_transforms=False,
        )
        n_batches = 0
        for batch in collector:
            n_batches += 1
            for row in batch:
                u = row["utterance"][0].item()
                frames = corpus.n_frames(u)
                scores = model.score(corpus[u].template + row["action"][:frames], corpus[u].mel_clips)
                expected = torch.nn.functional.pad(scores["lip_score"] + scores["real_score"], (0, len(row) - frames))
                torch.testing.assert_close(row["next", "reward"].squeeze(-1), expected, atol=1e-5, rtol=0)
        assert n_batches == 3


class TestContinuation:
    """A killed run that restores the collector's state and torch's goes on with bit-identical data."""

    def build(self, corpus, seed=0):
        env = env_for(corpus, 4, group_size=2, style="random", seed=seed)
        transform = FrozenRewardTransform(reward_model_for(corpus), corpus)
        return utterance_collector(env, policy_for(corpus, correlation=0.5), n_batches=7, reward_transform=transform)

    def test_building_uses_up_nothing(self, corpus):
        env, policy = env_for(corpus, 4, style="random"), policy_for(corpus)
        before, random_before = env.draw_state(), torch.get_rng_state()
        utterance_collector(env, policy)
        assert env.draw_state() == before
        assert torch.equal(torch.get_rng_state(), random_before)
        # ... although TorchRL's constructor resets once and calls the policy.
        Collector(env, policy, frames_per_batch=4, auto_register_policy_transforms=False)
        assert env.draw_state()["n_drawn"] == before["n_drawn"] + 4
        assert not torch.equal(torch.get_rng_state(), random_before)

    @pytest.mark.parametrize("k", [0, 1, 4])
    def test_bit_identical(self, corpus, k):
        collector = self.build(corpus)
        torch.manual_seed(21)
        unbroken = []
        for i in range(7):
            if i == k:
                state, random_state = collector.state_dict(), torch.get_rng_state()
            unbroken.append(collector.next().clone())
            torch.rand(3)  # the update's own random numbers
        other = self.build(corpus, seed=5)
        torch.manual_seed(99)
        other.next()
        other.load_state_dict(state)
        torch.set_rng_state(random_state)
        continued = []
        for batch in other:
            continued.append(batch.clone())
            torch.rand(3)
        assert len(continued) == 7 - k
        assert all(equal(a, b) for a, b in zip(unbroken[k:], continued, strict=True))

    def test_the_batch_is_overwritten(self, corpus):
        collector = self.build(corpus)
        first = collector.next()
        kept = first.clone()
        collector.next()
        assert not torch.equal(first["action"], kept["action"])

    def test_after_batches_of_workers(self, corpus):
        """Their state is the number of batches, from which the draws follow."""
        collector, other = self.build(corpus), self.build(corpus)
        for _ in range(3):
            collector.next()
        other.load_state_dict({"n_collected": 3, "draws": None})
        assert other.state_dict() == collector.state_dict()
        assert torch.equal(other.next()["utterance"], collector.next()["utterance"])

    def test_state_of_something_else(self, corpus):
        with pytest.raises(UserError, match="n_collected"):
            self.build(corpus).load_state_dict({"seed": 1})


def _worker_env(root, seed):
    # Module level and from files: what a spawned worker can rebuild.
    corpus = FaceCorpus(root, split="all", topology="vocaset")
    return SpeechToFaceEnv(corpus, audio_encoder(), batch_size=2, seed=seed)


class TestWorkers:
    def test_two_processes(self, corpus):
        policy, model = policy_for(corpus), reward_model_for(corpus)
        collector = multi_utterance_collector(
            partial(_worker_env, corpus.root),
            policy,
            n_workers=2,
            n_batches=2,
            reward_transform=FrozenRewardTransform(model, corpus),
        )
        alone = env_for(corpus, 4).draws
        with collector:
            for k, batch in enumerate(collector):
                shared = batch["utterance"][:, 0, 0].tolist()  # without overlap, what one process would have drawn
                assert sorted(shared) == sorted(utterance for utterance, _ in alone.draw(4))
                assert batch.shape[0] == 4 and batch.shape[1] == batch["frame_mask"].sum((1, 2)).max()
                for row in batch:
                    u = row["utterance"][0].item()
                    frames = corpus.n_frames(u)
                    scores = model.score(corpus[u].template + row["action"][:frames], corpus[u].mel_clips)
                    expected = scores["lip_score"] + scores["real_score"]
                    torch.testing.assert_close(row["next", "reward"][:frames, 0], expected, atol=1e-5, rtol=0)
                    assert (row["next", "reward"][frames:] == 0).all()
                noise = (batch["latent"] - batch["loc"])[:, 0]
                assert (torch.cdist(noise, noise) + torch.eye(4) > 1e-3).all()  # every worker has noise of its own
                if k == 0:
                    updated = copy.deepcopy(policy)  # on CPU the workers share the memory of the policy itself
                    with torch.no_grad():
                        updated.core.log_scale.add_(2.0)
                    scale = batch["scale"][0, 0, 0].item()
                    collector.update_policy_weights_(updated)
                else:
                    assert batch["scale"][0, 0, 0].item() == pytest.approx(scale * 2.718281828**2, rel=1e-4)
