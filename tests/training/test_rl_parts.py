"""The parts of RL runs that keep a state: reward signal, constraint, replay buffer, amplitude reference."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from losses_rollout import S, SmallCorpus, T, V, rollout
from tensordict import TensorDict

from s2f_rl.errors import NotFinite, UserError
from s2f_rl.losses import LagrangeMultiplier, SupervisedLoss
from s2f_rl.models import FaceFormer, FaceFormerPolicy, MelAudioEncoder
from s2f_rl.training import AmplitudeReference, LipErrorConstraint, RewardSignal, UtteranceBuffer, gradient_step
from s2f_rl.training.optimizers import make_optimizer

LENGTHS = [6, 4]
CAPS = {0: torch.tensor([0.5, math.inf]), 1: torch.tensor([math.inf, 0.2])}


class Transform:
    """What RewardSignal needs of a FrozenRewardTransform, with the differentiable score of a toy."""

    scores = ("lip_score", "real_score")
    weights = {"lip_score": 2.0, "real_score": 0.5}
    scale = 3.0

    def caps(self, utterances):
        return torch.stack([CAPS[int(u)] for u in utterances])

    def score_displacements(self, displacement, utterance, n_frames, style=None):
        mask = torch.arange(displacement.shape[1]) < n_frames[:, None]
        lip, real = torch.sigmoid(displacement).unbind(-1)
        return {"lip_score": lip, "real_score": real, "score_mask": mask, "reward": torch.where(mask, lip + real, 0.0)}


def scored_batch(seed):
    generator = torch.Generator().manual_seed(seed)
    displacement = torch.randn(2, 6, 2, generator=generator)
    utterance = torch.tensor([0, 1])
    out = Transform().score_displacements(displacement, utterance, torch.tensor(LENGTHS))
    batch = TensorDict({"utterance": utterance.view(2, 1, 1).expand(2, 6, 1).clone()}, [2, 6])
    for name, value in out.items():
        batch["next", name] = value.unsqueeze(-1)
    return batch, displacement


def capped_values(batches, term):
    k = ("lip_score", "real_score").index(term)
    return [
        min(float(batch["next", term][b, t]), float(CAPS[b][k]))
        for batch in batches for b, n in enumerate(LENGTHS) for t in range(n)
    ]  # fmt: skip


class TestRewardSignal:
    def test_none(self):
        batch, _ = scored_batch(0)
        assert torch.equal(RewardSignal(Transform(), "none")(batch), batch["next", "reward"])

    @pytest.mark.parametrize("normalise", ["batch", "running"])
    def test_against_a_loop(self, normalise):
        signal, seen = RewardSignal(Transform(), normalise), []
        for seed in range(3):
            batch, displacement = scored_batch(seed)
            plain = batch["next", "reward"].clone()
            out = signal(batch)
            seen.append(batch)
            pool = seen if normalise == "running" else seen[-1:]
            moments = {}
            for term in Transform.scores:
                values = capped_values(pool, term)
                mean = sum(values) / len(values)
                moments[term] = mean, math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
            for b, n in enumerate(LENGTHS):
                for t in range(6):
                    expected = 0.0
                    for k, (term, weight) in enumerate(Transform.weights.items()):
                        value = min(float(batch["next", term][b, t]), float(CAPS[b][k]))
                        expected += 3.0 * weight * (value - moments[term][0]) / moments[term][1]
                    assert float(out[b, t]) == pytest.approx(expected if t < n else 0.0, rel=1e-4, abs=1e-5)
            assert torch.equal(batch["next", "reward"], plain)
            again, mask = signal.score(displacement, torch.tensor([0, 1]), torch.tensor(LENGTHS))
            torch.testing.assert_close(again, out.squeeze(-1))
            assert mask.sum() == sum(LENGTHS)

    def test_state(self):
        one, other = (RewardSignal(Transform(), "running") for _ in range(2))
        one(scored_batch(0)[0])
        other.load_state_dict(one.state_dict())
        assert torch.equal(one(scored_batch(1)[0]), other(scored_batch(1)[0]))
        assert not torch.equal(one(scored_batch(1)[0]), RewardSignal(Transform(), "running")(scored_batch(1)[0]))

    def test_differentiable(self):
        signal = RewardSignal(Transform(), "running")
        signal(scored_batch(0)[0])
        displacement = scored_batch(1)[1].requires_grad_()
        signal.score(displacement, torch.tensor([0, 1]), torch.tensor(LENGTHS))[0].sum().backward()
        capped = torch.sigmoid(displacement[0, :, 0]) > 0.5  # beyond the cap nothing is gained
        assert (displacement.grad[0, capped, 0] == 0).all() and (displacement.grad[0, ~capped, 0] > 0).all()
        assert (displacement.grad[1, 4:] == 0).all()

    def test_constant_term_and_nothing_scored(self):
        batch, _ = scored_batch(0)
        batch["next", "lip_score"] = torch.full_like(batch["next", "lip_score"], 0.25)
        assert torch.isfinite(RewardSignal(Transform(), "batch")(batch)).all()
        batch["next", "score_mask"] = torch.zeros_like(batch["next", "score_mask"])
        assert (RewardSignal(Transform(), "running")(batch) == 0).all()


def make_policy(exploration="latent", correlation=0.0, noise_mm=0.5):
    torch.manual_seed(0)
    actor = FaceFormer(MelAudioEncoder(width=10), V, feature_dim=16, n_subjects=S)
    torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=1e-3)
    torch.nn.init.normal_(actor.decoder.vertice_map.weight, std=30.0)
    return FaceFormerPolicy(actor, exploration, noise_mm, correlation)


class TestConstraint:
    @pytest.mark.parametrize("exploration", ["latent", "vertex"])
    def test_against_a_loop(self, exploration):
        policy, corpus = make_policy(exploration), SmallCorpus()
        lips = corpus.regions["lips"]
        multiplier = LagrangeMultiplier(1.02, rate=0.5)
        constraint = LipErrorConstraint(
            policy.core, SupervisedLoss(policy.actor_module, corpus), lips, multiplier, weight=2.0
        )
        silent = rollout(make_policy(exploration), torch.tensor([T, 9, 7])).detach()  # the start, for its inputs
        with torch.no_grad():
            for p in policy.core.decoder.layer.parameters():
                p.add_(0.05 * torch.randn_like(p))
        batch = rollout(policy, torch.tensor([T, 9, 7])).detach()
        assert torch.equal(silent["audio"], batch["audio"])
        start_decoder = make_policy(exploration).core.decoder
        own = start = 0.0
        for b, n in ((0, T - 2), (2, 7)):  # lane 1 has no ground truth, lane 0's is two frames shorter
            truth = corpus.truth[:n].view(n, V, 3)[:, lips]
            loc = batch["loc"][b, :n]
            motion = loc if exploration == "vertex" else policy.core.decoder.decode(loc)
            own += float((motion.view(n, V, 3)[:, lips] - truth).square().sum(-1).amax(-1).mean())
            shell = FaceFormer.__new__(FaceFormer)
            torch.nn.Module.__init__(shell)
            shell.decoder = start_decoder
            with torch.no_grad():
                first = start_decoder.decode(
                    shell.generate(batch["audio"][b : b + 1, :n], batch["style"][b : b + 1, 0])
                )
            start += float((first[0].view(n, V, 3)[:, lips] - truth).square().sum(-1).amax(-1).mean())
        figures = constraint.update(batch)
        assert figures["constraint_lve_ratio"] == pytest.approx(own / start, rel=1e-4)
        expected = 1.0 + 0.5 * (own / start / 1.02 - 1)
        assert figures["constraint_multiplier"] == pytest.approx(expected, rel=1e-4)
        assert constraint() == pytest.approx(2.0 * expected, rel=1e-4)

    @pytest.mark.parametrize("correlation", [0.0, 0.9])
    def test_the_start_itself_has_ratio_one(self, correlation):
        """Noise that is carried over from frame to frame is not taken for an error of the policy."""
        policy, corpus = make_policy(correlation=correlation, noise_mm=3.0), SmallCorpus()
        with torch.no_grad():  # no feedback, so that the history of the sample changes nothing
            policy.core.decoder.vertice_map.weight.zero_()
        term = SupervisedLoss(policy.actor_module, corpus)
        constraint = LipErrorConstraint(policy.core, term, corpus.regions["lips"], LagrangeMultiplier(1.02))
        batch = rollout(policy, torch.tensor([T, 9, 7])).detach()
        assert constraint.lve_ratio(batch) == pytest.approx(1.0, abs=1e-4)

    def test_errors_that_are_not_finite_are_not_taken_in(self):
        policy, corpus = make_policy(), SmallCorpus()
        term = SupervisedLoss(policy.actor_module, corpus)
        constraint = LipErrorConstraint(policy.core, term, torch.tensor([1]), LagrangeMultiplier(0.5))
        batch = rollout(policy, torch.tensor([T, 9, 7])).detach()
        before = constraint()
        with torch.no_grad():
            constraint.start.decoder.vertice_map_r.bias.fill_(torch.nan)
        assert constraint.update(batch) == {"constraint_multiplier": before}
        assert constraint.start_lve == {} and constraint() == before

    def test_state_and_no_truth(self):
        policy, corpus = make_policy(), SmallCorpus()
        term = SupervisedLoss(policy.actor_module, corpus)
        one, other = (LipErrorConstraint(policy.core, term, torch.tensor([1]), LagrangeMultiplier(0.5)) for _ in "ab")
        batch = rollout(policy, torch.tensor([T, 9, 7])).detach()
        one.update(batch)
        other.load_state_dict(one.state_dict())
        assert other() == one() > 1.0 and other.start_lve == one.start_lve
        batch["utterance"] = torch.ones_like(batch["utterance"])
        assert one.update(batch) == {"constraint_multiplier": other()}


def rows(first, n, lengths):
    mask = (torch.arange(5) < torch.tensor(lengths)[:, None]).unsqueeze(-1)
    latent = torch.arange(first, first + n).float().view(n, 1, 1).expand(n, 5, 2)
    batch = TensorDict({"latent": latent.clone(), "frame_mask": mask, "action": torch.zeros(n, 5, 9)}, [n, 5])
    batch["next", "mesh_feature"] = latent.clone()
    return batch


class TestBuffer:
    def test_keeps_the_newest(self):
        buffer = UtteranceBuffer(4, horizon=7)
        buffer.extend(rows(0, 3, [5, 2, 1]))
        assert len(buffer) == 3
        buffer.extend(rows(3, 3, [3, 3, 3]))
        torch.manual_seed(0)
        drawn = buffer.sample(64)
        assert set(drawn["latent"][:, 0, 0].tolist()) == {2.0, 3.0, 4.0, 5.0}
        assert "action" not in drawn.keys() and drawn["next", "mesh_feature"].shape == (64, 3, 2)
        assert drawn.shape == (64, 3)  # cut after the longest: row 2 has one frame, the others three
        assert drawn["frame_mask"].sum((1, 2)).tolist() == [1 if x == 2 else 3 for x in drawn["latent"][:, 0, 0]]

    def test_state(self):
        one, other = UtteranceBuffer(4, 7), UtteranceBuffer(4, 7)
        other.load_state_dict(one.state_dict())
        assert len(other) == 0
        one.extend(rows(0, 3, [5, 2, 1]))
        one.extend(rows(3, 3, [3, 3, 3]))
        other.load_state_dict(one.state_dict())
        for buffer in (one, other):
            buffer.extend(rows(6, 1, [4]))
        drawn = []
        for buffer in (one, other):
            torch.manual_seed(1)
            drawn.append(buffer.sample(32))
        assert (drawn[0] == drawn[1]).all()
        assert set(drawn[0]["latent"][:, 0, 0].tolist()) == {3.0, 4.0, 5.0, 6.0}

    def test_rows_that_are_not_finite_stay_out(self):
        buffer, broken = UtteranceBuffer(4, 7), rows(0, 3, [5, 2, 1])
        broken["latent"][1, 0] = torch.nan
        buffer.extend(rows(0, 1, [3]) * torch.nan)
        with pytest.raises(NotFinite, match="not one of the utterances"):
            buffer.sample(1)
        buffer.extend(broken)
        assert len(buffer) == 2 and set(buffer.sample(32)["latent"][:, 0, 0].tolist()) == {0.0, 2.0}

    def test_a_batch_larger_than_the_buffer(self):
        buffer = UtteranceBuffer(2, 5)
        buffer.extend(rows(0, 5, [5] * 5))
        assert set(buffer.sample(32)["latent"][:, 0, 0].tolist()) == {3.0, 4.0}
        with pytest.raises(UserError, match="replay.capacity=0"):
            UtteranceBuffer(0, 5)


def test_amplitude_reference():
    motion = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    lips = torch.tensor([0, 2])
    own = motion.view(-1, 4, 3)[:, lips]
    truth_mm = 1e3 * float((own - own.mean(0)).square().sum(-1).mean()) ** 0.5
    assert AmplitudeReference([SimpleNamespace(vertices=motion)], lips).ratio(3.0) == pytest.approx(3.0 / truth_mm)
    first = AmplitudeReference([SimpleNamespace(vertices=None)], lips)
    assert first.ratio(2.0) == 1.0 and first.ratio(3.0) == 1.5
    resumed = AmplitudeReference([SimpleNamespace(vertices=None)], lips)
    resumed.load_state_dict(first.state_dict())
    assert resumed.ratio(3.0) == 1.5


def test_gradient_step():
    class Loss(torch.nn.Linear):
        def forward(self, rows):
            return TensorDict(
                {"loss_a": super().forward(rows["x"]).sum(), "loss_b": self.bias.sum(), "c": torch.ones(())}
            )

    torch.manual_seed(0)
    loss = Loss(3, 1)
    before = loss.weight.detach().clone()
    optimizer = make_optimizer([(loss.named_parameters(), 1.0)], 0.1)
    out = gradient_step(loss, TensorDict({"x": torch.ones(1, 3)}, [1]), optimizer, 1e9)
    assert not out["loss_a"].requires_grad
    torch.testing.assert_close(loss.weight, before - 0.1)  # Adam's first step is the rate, against the gradient
    assert loss.bias.grad.item() == 2.0
