"""Two ranks with half of a batch each take the step of one process with all of it."""

from __future__ import annotations

import pytest
import torch
from closeness import assert_close_to_largest
from tensordict import TensorDict
from two_ranks import on_ranks

from s2f_rl import ranks
from s2f_rl.errors import UserError
from s2f_rl.losses import (
    A2CLoss,
    AdvantageWeightedLoss,
    BaselineAdvantage,
    ClipPPOLoss,
    KLPenaltyPPOLoss,
    ReferenceKL,
    ReinforceLoss,
    RewardGradientLoss,
    SupervisedLoss,
    WeightedLoss,
    masked_standardise,
    total_loss,
)
from s2f_rl.models.critics import DecoderCritic

HALF = 2


def score(displacement, utterance, n_frames):
    """A reward for frames that are not the same in number on both ranks."""
    scored = torch.arange(displacement.shape[1]) < n_frames[:, None] - 2
    return -1e6 * displacement.square().sum(-1) * (1 + utterance[:, None]), scored


def objectives(policy, critic):
    actor = policy.actor_module
    return {
        "ppo": ClipPPOLoss(actor, critic, critic_coeff=0.5),
        "ppo_kl": KLPenaltyPPOLoss(actor, beta=0.7),
        "a2c": A2CLoss(actor, critic, critic_coeff=0.5, loss_critic_type="l2"),
        "reinforce": ReinforceLoss(actor, critic),
        "awr": AdvantageWeightedLoss(actor, critic),
        "reward_gradient": RewardGradientLoss(actor, score),
    }


def steps(policy, critic, corpus, batch):
    """Values, statistics and gradients of every objective with the other terms, on this rank's rows."""
    rows = batch[ranks.rank() * HALF :][:HALF] if ranks.count() > 1 else batch
    length = int(rows["frame_mask"].sum((1, 2)).max())  # as a collector would trim it
    rows = rows[:, :length].clone()
    found = {}
    for name, objective in objectives(policy, critic).items():
        supervised, kl = SupervisedLoss(policy.actor_module, corpus), ReferenceKL(policy.actor_module)
        with torch.no_grad():  # a policy that is no longer its reference
            for parameter in kl.reference.parameters():
                parameter.mul_(1.01)
        terms = {"policy": (objective, 3.0), "supervised": (supervised, 1.0), "kl": (kl, 0.1)}
        loss = WeightedLoss(terms, balance="grad_norm")
        loss.zero_grad()
        out = loss(rows)
        total_loss(out).backward()
        gradients = {n: p.grad.clone() for n, p in loss.named_parameters() if p.grad is not None}
        found[name] = {"out": dict(out.detach().items()), "gradients": gradients}
    rows["next", "score_mask"] = rows["frame_mask"]
    advantages = BaselineAdvantage(None, group_size=2)(rows, rows["next", "reward"])["advantage"]
    padded = torch.zeros(len(rows), batch.shape[1], 1)
    padded[:, :length] = torch.where(rows["frame_mask"], advantages, 0.0)
    found["advantage"] = padded
    return found


@pytest.fixture
def critic(policy):
    torch.manual_seed(3)
    return DecoderCritic(16, 10, 3, hidden=8)


@pytest.fixture
def found(policy, critic, corpus, batch, tmp_path):
    batch = batch.detach()
    one = steps(policy, critic, corpus, batch)
    return one, on_ranks(lambda: steps(policy, critic, corpus, batch), tmp_path)


def test_one_step(found):
    one, both = found
    for name in one.keys() - {"advantage"}:
        assert one[name]["gradients"].keys() == both[0][name]["gradients"].keys() and len(one[name]["gradients"]) > 10
        for other in both:
            for key, gradient in one[name]["gradients"].items():
                assert_close_to_largest(other[name]["gradients"][key], gradient, 1e-4)
            for key, value in one[name]["out"].items():
                # not means over frames: their mean over ranks is what is told
                if key.endswith(("ESS", "max_ratio", "explained_variance")):
                    continue
                ours = other[name]["out"][key].to(value.dtype)
                torch.testing.assert_close(ours, value, rtol=1e-4, atol=1e-5, msg=f"{name} {key}")
        assert all(torch.equal(both[0][name]["gradients"][k], g) for k, g in both[1][name]["gradients"].items())


def test_advantages(found):
    one, both = found
    torch.testing.assert_close(torch.cat([each["advantage"] for each in both]), one["advantage"], rtol=1e-5, atol=1e-6)
    mask = torch.ones(1, 3, 1, dtype=torch.bool)
    assert masked_standardise(torch.tensor([[[1.0], [2.0], [3.0]]]), mask).std(correction=0) == pytest.approx(1, 1e-4)


def test_exchanges(tmp_path):
    """Each against what it should be, written down."""

    def exchange():
        me = ranks.rank()
        own = torch.full((me + 1, 2), float(me + 1), requires_grad=True)
        rows = ranks.rows_with_gradient(own)
        (rows * torch.arange(6.0).view(3, 2) * (me + 1)).sum().backward()
        return {
            "total": ranks.total(torch.tensor([1.0 + me])),
            "mean_count": ranks.mean_count(torch.tensor(3 + me)),
            "share": ranks.share(torch.tensor(3 + me)),
            "any": [ranks.any_of(me == 1), ranks.any_of(False)],
            "average": ranks.average([None, torch.tensor([2.0 * me]), None if me else torch.tensor([[4.0]])]),
            "rows": rows.detach(),
            "gradient": own.grad,
            "masks": ranks.rows_of_all(torch.tensor([[bool(me)]])),
            "alone": ranks.alone(lambda: {"who": ranks.rank(), "nan": float("nan"), "deep": [None, "ä"]}),
            "weights": [ranks.same_weights([x := torch.tensor([5.0 + me])]), x][1],
        }

    for me, found in enumerate(on_ranks(exchange, tmp_path)):
        assert found["total"] == 3 and found["mean_count"] == 3.5 and found["share"] == (3 + me) / 3.5
        assert found["any"] == [True, False] and found["weights"] == 5
        assert found["average"][0] is None and found["average"][1] == 1 and found["average"][2].flatten() == 2
        assert found["rows"].tolist() == [[1, 1], [2, 2], [2, 2]] and found["masks"].tolist() == [[False], [True]]
        weights = 3 * torch.arange(6.0).view(3, 2)  # of both ranks' losses, 1 + 2 times
        assert torch.equal(found["gradient"], weights[:1] if me == 0 else weights[1:])
        told = found["alone"]
        assert told["who"] == 0 and told["nan"] != told["nan"] and told["deep"] == [None, "ä"]


def test_one_process_exchanges_nothing():
    x = torch.ones(2, requires_grad=True)
    assert ranks.count() == 1 and ranks.rank() == 0 and ranks.is_first()
    assert ranks.total(x) is x and ranks.mean(x) is x and ranks.mean_count(x) is x and ranks.rows_of_all(x) is x
    assert ranks.rows_with_gradient(x) is x and ranks.average([None, x]) == [None, x] and ranks.share(x) == 1.0
    assert ranks.any_of(True) and not ranks.any_of(False) and ranks.share_of(7, "lanes") == 7
    assert TensorDict(a=ranks.alone(lambda: 3))["a"] == 3


def test_what_fails_on_the_first_rank_fails_on_all(tmp_path):
    def fail():
        raise UserError("no such folder")

    def attempt():
        try:
            ranks.alone(fail)
        except UserError as error:
            return type(error).__name__
        return ""

    assert on_ranks(attempt, tmp_path) == ["UserError", "FirstFailed"]
