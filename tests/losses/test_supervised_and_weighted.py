"""The supervised term against a loop on vertices, and the weighted sum against plain autograd."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from closeness import assert_close_to_largest
from losses_rollout import SmallCorpus, T, V
from tensordict import TensorDict

from s2f_rl.errors import UserError
from s2f_rl.losses import ClipPPOLoss, SupervisedLoss, WeightedLoss, total_loss

LENGTHS = (T, 9, 7, 5)


class TestSupervised:
    @pytest.mark.parametrize("mode", ["on_policy", "teacher_forced"])
    @pytest.mark.parametrize("lip_weight", [0.0, 3.0])
    def test_against_a_loop(self, policy, batch, corpus, mode, lip_weight):
        batch = batch.detach()
        out = SupervisedLoss(policy.actor_module, corpus, mode, 2.0, 0.5, lip_weight)(batch)
        decoder = policy.core.decoder
        weight = torch.ones(V)
        weight[[1, 2]] += lip_weight
        weight = (weight / weight.sum() * V).repeat_interleave(3)
        position, velocity, n_position, n_velocity = 0.0, 0.0, 0, 0
        for b, n in enumerate(LENGTHS):
            if int(batch["utterance"][b, 0]) == 1:  # no ground truth
                continue
            n = min(n, T - 2)  # the corpus has two vertex frames fewer
            truth = corpus.truth[:n]
            history = decoder.decode(batch["latent"][b : b + 1]) if mode == "on_policy" else corpus.truth[None]
            first = "style" if mode == "on_policy" else "template"
            hidden = decoder.sequence_from_displacements(history[:, :n], batch["audio"][b : b + 1, :n],
                                                         batch["style"][b : b + 1, 0], first)  # fmt: skip
            error = 1e3 * (decoder.decode(hidden)[0] - truth)
            position += float((error.square() * weight).sum())
            n_position += error.numel()
            velocity += float(((error[1:] - error[:-1]).square() * weight).sum())
            n_velocity += error[1:].numel()
        assert float(out["loss_position"]) == pytest.approx(2.0 * position / n_position, rel=1e-4)
        assert float(out["loss_velocity"]) == pytest.approx(0.5 * velocity / n_velocity, rel=1e-4)

    def test_trains_the_output_map(self, policy, batch, corpus):
        total_loss(SupervisedLoss(policy.actor_module, corpus)(batch.detach())).backward()
        assert policy.core.decoder.vertice_map_r.weight.grad.abs().sum() > 0

    def test_padding(self, policy, batch, corpus):
        batch = batch.detach()
        loss = SupervisedLoss(policy.actor_module, corpus)
        expected = loss(batch)
        mask = batch["frame_mask"]
        batch["latent"] = torch.where(mask, batch["latent"], torch.nan)
        again = loss(batch)
        assert all(torch.equal(expected[k], again[k]) for k in expected.keys())

    def test_no_truth_at_all(self, policy, batch, corpus):
        batch = batch.detach()
        batch["utterance"] = torch.ones_like(batch["utterance"])
        out = SupervisedLoss(policy.actor_module, corpus)(batch)
        total_loss(out).backward()
        assert float(total_loss(out)) == 0.0
        assert int(out["supervised_frames"]) == 0

    def test_another_speakers_way_has_no_truth(self, policy, batch, corpus):
        """Lanes 0, 2, 3 are in the style of their speaker; lane 2 is then given another."""
        batch, loss = batch.detach(), SupervisedLoss(policy.actor_module, corpus)
        assert loss.truth(batch)[1].sum((1, 2)).tolist() == [T - 2, 0, 7, 5]
        expected = loss(batch[[0, 1, 3]])
        batch["style"][2] = torch.eye(3)[1]
        truth, known = loss.truth(batch)
        assert known.sum((1, 2)).tolist() == [T - 2, 0, 0, 5] and (truth[2] == 0).all()
        torch.testing.assert_close(loss(batch)["loss_position"], expected["loss_position"])
        read = corpus.__class__.__getitem__
        corpus.__class__ = type("Strangers", (SmallCorpus,), {
            "__getitem__": lambda self, i: SimpleNamespace(**{**vars(read(self, i)), "style": None})})  # fmt: skip
        assert not SupervisedLoss(policy.actor_module, corpus).truth(batch)[1].any()

    def test_unknown_mode(self, policy, corpus):
        with pytest.raises(UserError, match="supervised.mode='student'"):
            SupervisedLoss(policy.actor_module, corpus, "student")


def plain_gradients(policy, *terms):
    policy.zero_grad()
    sum(terms).backward()
    return {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}


def norm_over(grads, names):
    return torch.stack([grads[n].norm() for n in names]).norm()


class TestWeighted:
    @pytest.fixture
    def parts(self, policy, corpus):
        return ClipPPOLoss(policy.actor_module, None), SupervisedLoss(policy.actor_module, corpus)

    def gradients(self, policy, weighted, batch):
        policy.zero_grad()
        out = weighted(batch)
        total_loss(out).backward()
        return out, {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}

    def test_plain_sum(self, policy, batch, parts):
        batch = batch.detach()
        ppo, supervised = parts
        weighted = WeightedLoss({"policy": (ppo, 0.3), "supervised": (supervised, 2.0)})
        out, grads = self.gradients(policy, weighted, batch)
        expected = plain_gradients(policy, 0.3 * total_loss(ppo(batch)), 2.0 * total_loss(supervised(batch)))
        for name, g in expected.items():
            assert_close_to_largest(grads[name], g, rel=1e-6, msg=name)
        assert float(out["value_supervised"]) == pytest.approx(float(total_loss(supervised(batch))), rel=1e-6)
        assert float(out["loss_supervised"]) == pytest.approx(2 * float(out["value_supervised"]), rel=1e-6)
        assert "policy_clip_fraction" in out.keys()

    def test_balance(self, policy, batch, parts):
        """Over the shared parameters the two terms pull with norms in the ratio of the weights."""
        batch = batch.detach()
        ppo, supervised = parts
        g_policy = plain_gradients(policy, total_loss(ppo(batch)))
        g_supervised = plain_gradients(policy, total_loss(supervised(batch)))
        shared = [n for n in g_policy if n in g_supervised]
        assert not any("vertice_map_r" in n for n in shared) and any("vertice_map_r" in n for n in g_supervised)
        n_policy, n_supervised = norm_over(g_policy, shared), norm_over(g_supervised, shared)
        weighted = WeightedLoss({"policy": (ppo, 0.5), "supervised": (supervised, 1.0)}, balance="grad_norm")
        out, grads = self.gradients(policy, weighted, batch)
        assert float(out["grad_norm_policy"]) == pytest.approx(float(n_policy), rel=1e-4)
        assert float(out["grad_norm_supervised"]) == pytest.approx(float(n_supervised), rel=1e-4)
        for name, g in grads.items():
            expected = g_supervised[name]  # the anchor keeps its scale
            if name in g_policy:
                expected = expected + 0.5 * n_supervised * g_policy[name] / n_policy
            torch.testing.assert_close(g, expected, rtol=1e-3, atol=1e-6)

    def test_control(self, policy, batch, parts):
        """Weight 0 logs the term and leaves the update to the others, balanced or not."""
        batch = batch.detach()
        ppo, supervised = parts
        for balance in ("none", "grad_norm"):
            with_term = WeightedLoss({"policy": (ppo, 0.0), "supervised": (supervised, 1.0)}, balance)
            out, grads = self.gradients(policy, with_term, batch)
            g = plain_gradients(policy, total_loss(supervised(batch)))
            for name in g:
                torch.testing.assert_close(grads[name], g[name], rtol=1e-4, atol=1e-7)
            assert float(out["grad_norm_policy"]) > 0

    def test_without_gradient(self, policy, batch, parts):
        weighted = WeightedLoss({"policy": (parts[0], 0.3), "supervised": (parts[1], 2.0)})
        with torch.no_grad():
            out = weighted(batch.detach())
        assert float(out["loss_supervised"]) == pytest.approx(2 * float(out["value_supervised"]))

    def test_mistakes(self, parts):
        with pytest.raises(UserError, match="balance='gradnorm'"):
            WeightedLoss({"policy": (parts[0], 1.0)}, balance="gradnorm")
        with pytest.raises(UserError, match="weight of policy is -1"):
            WeightedLoss({"policy": (parts[0], -1)})

    def test_silent_term_leaves_no_gradient(self, policy, batch, parts):
        """Without ground truth W has no gradient at all, so an optimizer's momentum cannot move it."""
        batch = batch.detach()
        batch["utterance"] = torch.ones_like(batch["utterance"])
        weighted = WeightedLoss({"policy": (parts[0], 1.0), "supervised": (parts[1], 1.0)}, balance="grad_norm")
        out, grads = self.gradients(policy, weighted, batch)
        assert float(out["grad_norm_supervised"]) == 0 and float(out["grad_norm_policy"]) > 0
        assert policy.core.decoder.vertice_map_r.weight.grad is None
        assert any(float(g.norm()) > 0 for g in grads.values())

    def test_a_silent_anchor_keeps_its_last_norm(self, policy, batch, parts):
        batch = batch.detach()
        terms = {"policy": (parts[0], 2.0), "supervised": (parts[1], 1.0)}
        weighted, resumed = (WeightedLoss(terms, balance="grad_norm") for _ in "ab")
        norm = float(weighted(batch)["grad_norm_supervised"])
        resumed.anchor_norm.load_state_dict(weighted.anchor_norm.state_dict())
        for broken in (torch.inf, torch.nan):  # nor is a norm that is not finite taken for one
            assert float(weighted.anchor_norm.update(torch.tensor(broken))) == pytest.approx(norm)
        batch["utterance"] = torch.ones_like(batch["utterance"])
        for loss in (weighted, resumed):
            _, grads = self.gradients(policy, loss, batch)
            assert float(norm_over(grads, list(grads))) == pytest.approx(2.0 * norm, rel=1e-4)

    def test_the_output_map_of_a_policy_counts_in_no_norm(self, policy, batch, corpus):
        """W gets a gradient from two terms here, and is left out all the same."""
        batch = batch.detach()
        terms = {name: (SupervisedLoss(policy.actor_module, corpus), 1.0) for name in ("supervised", "again")}
        terms["policy"] = (ClipPPOLoss(policy.actor_module), 1.0)
        found = WeightedLoss(terms, balance="grad_norm")(batch)
        total_loss(SupervisedLoss(policy.actor_module, corpus)(batch)).backward()
        gradients = {n: p.grad for n, p in policy.core.named_parameters() if p.grad is not None}
        assert any("vertice_map_r" in n for n in gradients)
        rest = [g.norm() for n, g in gradients.items() if "vertice_map_r" not in n]
        assert float(found["grad_norm_supervised"]) == pytest.approx(float(torch.stack(rest).norm()), rel=1e-4)

    def test_the_output_map_counts_in_no_norm(self):
        """Its gradient, per metre, is far larger than the rest: 1000 against 3 here."""

        class Term(torch.nn.Module):
            def __init__(self, net, slope):
                super().__init__()
                self.net, self.slope = net, slope

            def forward(self, rows):
                value = self.slope * (3 * self.net["layer"].bias.sum() + 1000 * self.net["output"].bias.sum())
                return TensorDict({"loss_objective": value})

        net = torch.nn.ModuleDict({"layer": torch.nn.Linear(1, 1), "output": torch.nn.Linear(1, 1)})
        weighted = WeightedLoss(
            {"a": (Term(net, 1.0), 1.0), "b": (Term(net, 5.0), 2.0)},
            balance="grad_norm",
            output_map=net["output"].parameters(),
        )
        out = weighted(TensorDict({}, [1]))
        assert float(out["grad_norm_a"]) == pytest.approx(3.0) and float(out["grad_norm_b"]) == pytest.approx(15.0)
        out["loss_b"].backward()
        assert net["layer"].bias.grad.item() == pytest.approx(6.0)
        assert net["output"].bias.grad.item() == pytest.approx(2000.0)
