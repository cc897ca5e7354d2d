"""Whole rollouts: the numbers of stepping, and nothing in them that would wait for a device."""

from __future__ import annotations

import pytest
import torch
from torchrl.envs import RewardSum, TransformedEnv
from torchrl.envs.utils import ExplorationType

from s2f_rl.collectors import utterance_collector
from s2f_rl.envs import SpeechToFaceEnv
from s2f_rl.envs.uploads import KeptFeatures
from s2f_rl.models.rollout_graph import RolloutGraphs
from tests.envs.support import audio_encoder, corpus_in, env_for, policy_for
from tests.operations import CountOperations, CountWaits


def batches(corpus, whole: bool, n: int = 3, exploration=ExplorationType.RANDOM, **options):
    """``n`` batches, drawn whole or through TorchRL's frame loop, and the random numbers after them."""
    env = env_for(corpus, 4, group_size=2, style="random", seed=3)
    collector = utterance_collector(env, policy_for(corpus, **options), n_batches=n, exploration_type=exploration)
    assert collector._whole  # else both ways would be one
    collector._whole = whole
    torch.manual_seed(11)
    return [batch.clone() for batch in collector], torch.rand(3), env.draw_state()


class TestEqualToSteps:
    @pytest.mark.parametrize("options", [{}, {"correlation": 0.6}, {"learn_noise": True}])
    @pytest.mark.parametrize("exploration", [ExplorationType.RANDOM, ExplorationType.DETERMINISTIC])
    def test_same_numbers_and_draws(self, corpus, exploration, options):
        (ours, ours_after, ours_draws), (steps, steps_after, steps_draws) = (
            batches(corpus, whole, exploration=exploration, **options) for whole in (True, False)
        )
        assert torch.equal(ours_after, steps_after) and ours_draws == steps_draws
        for a, b in zip(ours, steps, strict=True):
            assert a.shape == b.shape and set(a.keys(True, True)) == set(b.keys(True, True))
            for key in a.keys(True, True):
                if key != ("next", "truncated"):  # TorchRL cuts a trajectory at its horizon, which no loss reads
                    torch.testing.assert_close(a[key], b[key], atol=1e-6, rtol=1e-6, msg=str(key))

    def test_two_features_per_frame(self, tmp_path):
        corpus = corpus_in(tmp_path, topology="biwi", n_subjects=2)
        (ours, *_), (steps, *_) = (batches(corpus, whole, n=1) for whole in (True, False))
        torch.testing.assert_close(ours[0]["latent"], steps[0]["latent"], atol=1e-6, rtol=1e-6)

    def test_who_sees_single_frames_gets_them(self, corpus):
        """A transform, another exploration, a step or a forward of one's own, a hook."""

        class Own(SpeechToFaceEnv):
            def _step(self, tensordict):
                return super()._step(tensordict)

        policy = policy_for(corpus)
        own = Own(corpus, audio_encoder(), batch_size=2)
        assert not utterance_collector(own, policy)._whole
        assert not utterance_collector(TransformedEnv(env_for(corpus, 2), RewardSum()), policy)._whole
        assert not utterance_collector(env_for(corpus, 2), policy_for(corpus, exploration="vertex"))._whole
        kind = type(policy.core)
        policy.core.__class__ = type("Core", (kind,), {"step": lambda self, td: kind.step(self, td)})
        assert not utterance_collector(env_for(corpus, 2), policy)._whole


class TestNothingWaits:
    def count(self, corpus, wrap):
        found = []
        for max_frames in (4, 16):
            env = env_for(corpus, 4, max_frames=max_frames)
            collector = utterance_collector(wrap(env), policy_for(corpus))
            collector.next()
            with CountWaits() as waits, CountOperations() as operations:
                collector._at_once(collector._policy) if collector._whole else collector._by_steps()
            found.append((waits.n, operations.n))
        return found

    def test_of_a_whole_rollout(self, corpus):
        few, many = self.count(corpus, lambda env: env)
        assert few[0] == many[0] == 0
        assert (many[1] - few[1]) / 12 <= 40  # operations per frame; 60 of steps

    def test_steps_wait_for_torchrl_alone(self, corpus):
        """TorchRL asks twice a frame whether a lane is done; the policy, which asked as often, does not."""
        few, many = self.count(corpus, lambda env: TransformedEnv(env, RewardSum()))
        assert (many[0] - few[0]) / 12 == 2

    def test_the_counter_counts(self):
        x = torch.arange(4.0)
        with CountWaits() as waits:
            bool((x > 1).any())
            x[x > 1]
            x.nonzero()
            x[torch.tensor([1, 2])] = 0.0
        assert waits.names == ["_local_scalar_dense", "index", "nonzero"]

    def test_without_values_at_all(self, corpus):
        """On the meta device whatever asks for a value raises."""
        batch = env_for(corpus, 3).whole_utterances().to("meta")
        policy = policy_for(corpus, correlation=0.5).to("meta")
        policy.roll_out(batch)
        assert batch["latent"].shape == (3, batch.shape[1], 16) and batch["latent"].is_meta


class TestKeptFeatures:
    def test_uploads_each_utterance_once_within_the_limit(self):
        """``meta`` stands for a device: what is kept there is asked for once."""
        asked = []

        def load(u):
            asked.append(u)
            return torch.zeros(10 + u, 1, 256)

        kept, device = KeptFeatures(load, max_megabytes=0.05), torch.device("meta")  # 4 or 5 utterances
        shapes = [len(each) for each in kept.get([0, 1, 2], device)]
        assert shapes == [10, 11, 12] and asked == [0, 1, 2]
        kept.get([1, 2], device)
        assert asked == [0, 1, 2]
        assert [len(each) for each in kept.get([0, 5, 6, 7, 8], device)] == [10, 15, 16, 17, 18]
        assert asked == [0, 1, 2, 5, 6, 7, 8] and kept._kept.n_bytes <= 0.05 * 2**20
        kept.get([1], device)
        assert asked[-1] == 1  # had to go

    def test_on_the_cpu_the_source_is_the_cache(self):
        x = torch.zeros(3, 1, 2)
        kept = KeptFeatures(lambda u: x, max_megabytes=1.0)
        assert kept.get([4], torch.device("cpu"))[0] is x and kept._kept.n_bytes == 0


@pytest.mark.cuda
class TestOnCuda:
    def test_graph_against_the_cpu(self, corpus):
        """Also of other lengths, after an update in place, and after parameters are replaced."""
        policy, other = policy_for(corpus, correlation=0.5), policy_for(corpus, seed=7, correlation=0.5)
        device_policy = policy_for(corpus, correlation=0.5).to("cuda")
        for change in ("none", "in place", "assigned"):
            if change == "in place":
                for each in (policy, device_policy):
                    each.load_state_dict(other.state_dict())
            if change == "assigned":
                state = {name: 0.9 * value for name, value in other.state_dict().items()}
                policy.load_state_dict(state)
                device_policy.load_state_dict({k: v.cuda() for k, v in state.items()}, assign=True)
            for n_frames in (5, 40, 33):
                audio, style = torch.randn(4, n_frames, 1, 8), torch.eye(len(corpus.subjects))[[0, 1, 0, 1]]
                expected = policy.core.roll_out(audio, style, sampled=False)
                found = device_policy.core.roll_out(audio.cuda(), style.cuda(), sampled=False)
                for a, b in zip(found, expected, strict=True):
                    torch.testing.assert_close(a.cpu(), b, atol=1e-4, rtol=1e-4)
        assert isinstance(device_policy.core._graphs, RolloutGraphs) and len(device_policy.core._graphs._graphs) == 4

    def test_nothing_waits(self, corpus):
        env = env_for(corpus, 4, device="cuda")
        collector = utterance_collector(env, policy_for(corpus).to("cuda"))
        for _ in range(8):  # all utterances have been seen, all lengths captured
            collector.next()
        torch.cuda.set_sync_debug_mode("error")
        try:
            batch = collector._at_once(collector._policy)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert batch["latent"].is_cuda and bool(torch.isfinite(batch["latent"]).all())

    def test_noise_is_standard(self, corpus):
        core = policy_for(corpus).to("cuda").core
        audio, style = torch.randn(256, 40, 1, 8, device="cuda"), torch.eye(2, device="cuda")[[0] * 256]
        latent, loc, scale = core.roll_out(audio, style)
        noise = (latent - loc) / scale
        assert abs(float(noise.mean())) < 0.01 and abs(float(noise.std()) - 1) < 0.01
