"""Rows laid out at once, and what that is for: scoring and descending ask no more, and do no more, of more lanes."""

from __future__ import annotations

import pytest
import torch

from s2f_rl.collectors import utterance_collector
from s2f_rl.device_rows import places, take
from s2f_rl.envs import FrozenRewardTransform
from s2f_rl.losses import BaselineAdvantage, ClipPPOLoss, SupervisedLoss, WeightedLoss
from tests.envs.support import corpus_in, env_for, policy_for, reward_model_for
from tests.operations import CountOperations, CountWaits


class TestLayOut:
    @pytest.mark.parametrize("shape", [(), (3,)])
    def test_against_a_loop(self, shape):
        pieces = [torch.rand(n, *shape) + 1 for n in (4, 1, 7)]
        which = [2, None, 0, 2, 1]
        expected = torch.zeros(5, 6, *shape)
        for lane, i in enumerate(which):
            if i is not None:
                expected[lane, : len(pieces[i])] = pieces[i][:6]
        place = places([4, 1, 7], which, 6)
        assert torch.equal(take(pieces, place, torch.zeros(shape)), expected)
        assert (place > 0).sum(1).tolist() == [6, 0, 4, 6, 1]

    def test_nothing_to_show(self):
        assert torch.equal(take([], places([], [None, None], 3), torch.ones(2)), torch.zeros(2, 3, 2))


class TestMoreLanes:
    @pytest.fixture
    def counted(self, tmp_path):
        """Waits and operations of scoring and of a gradient step, with 4 and with 8 lanes of the same utterances."""
        corpus = corpus_in(tmp_path, n_subjects=2)
        policy = policy_for(corpus)
        policy.core.decoder.vertice_map_r.requires_grad_(False)
        transform = FrozenRewardTransform(reward_model_for(corpus), corpus)
        transform.read_latents(policy.core)
        supervised = SupervisedLoss(policy.actor_module, corpus)
        ppo = ClipPPOLoss(policy.actor_module, None)
        loss = WeightedLoss({"policy": (ppo, 3.0), "supervised": (supervised, 1.0)}, balance="grad_norm")
        few = utterance_collector(env_for(corpus, 4, group_size=2), policy).next()
        found = []
        for batch in (few, torch.cat([few, few])):
            BaselineAdvantage(None, 2)(batch, transform(batch)["next", "reward"])
            # on a CPU it is asked where rows begin; on a device this is asserted there
            batch = batch.exclude("frame_index", "action")
            transform(batch)
            loss(batch)
            for what in (lambda: transform(batch), lambda: loss(batch)):  # noqa: B023 (called here)
                with CountWaits() as waits, CountOperations() as operations:
                    what()
                found.append((waits.names, operations.n))
        return found

    def test_scoring(self, counted):
        (names, few), _, (_, many), _ = counted
        assert names == ["nonzero"] and many == few  # which clips there are

    def test_a_gradient_step(self, counted):
        _, (names, few), _, (_, many) = counted
        assert names == [] and many == few
