"""``set_keys`` changes what a loss reads; losses with TorchRL's names take what TorchRL's take."""

from __future__ import annotations

import pytest
import torch
import torchrl.objectives as torchrl
from losses_rollout import T, rollout

from s2f_rl.losses import (
    A2CLoss,
    AdvantageWeightedLoss,
    ClipPPOLoss,
    KLPenaltyPPOLoss,
    ReferenceKL,
    ReinforceLoss,
    RewardGradientLoss,
    SupervisedLoss,
    WeightedLoss,
    total_loss,
)
from s2f_rl.models.critics import DecoderCritic

NAMES = {
    "audio": "heard",
    "style": ("speaker", "style"),
    "frame_mask": "valid",
    "action": ("policy", "z"),
    "utterance": "which",
    "loc": "mean",
    "scale": "deviation",
    "sample_log_prob": "log_p",
    "advantage": "gain",
    "value_target": "wanted",
}
OURS = {"action": "latent", "sample_log_prob": "latent_log_prob"}  # where TorchRL's name of a key is not the key


def make(kind, policy, corpus):
    torch.manual_seed(7)
    actor, critic = policy.actor_module, DecoderCritic(16, 10, 3, hidden=8)
    if kind in ("on_policy", "teacher_forced"):
        return SupervisedLoss(actor, corpus, mode=kind)
    if kind == "kl":
        return ReferenceKL(actor)
    if kind == "reward_gradient":
        return RewardGradientLoss(actor, lambda motion, utterance, n: (motion.square().sum(-1), motion[..., 0] > 0))
    if kind == "weighted":
        parts = {each: (make(each, policy, corpus), 1.0) for each in ("ppo", "on_policy", "kl")}
        return WeightedLoss(parts, balance="grad_norm")
    kinds = {"ppo": ClipPPOLoss, "ppo_kl": KLPenaltyPPOLoss, "a2c": A2CLoss, "reinforce": ReinforceLoss}
    return {**kinds, "awr": AdvantageWeightedLoss}[kind](actor, critic)


KINDS = [
    *("on_policy", "teacher_forced", "kl", "reward_gradient", "awr"),
    *("ppo", "ppo_kl", "a2c", "reinforce", "weighted"),
]


def accepted(loss):
    """TorchRL's names of the keys that a loss, or a part of it, reads."""
    parts = loss.parts.values() if isinstance(loss, WeightedLoss) else [loss]
    return {name for part in parts for name in part._AcceptedKeys.__dataclass_fields__} & set(NAMES)


def renamed(batch, names):
    """The batch with entries moved; where they were stands something else."""
    out = batch.copy()
    for name in names:
        key = OURS.get(name, name)
        out.set(NAMES[name], batch[key])
        out.set(key, torch.full_like(batch[key], 3))
    return out


def results(loss, policy, batch):
    policy.zero_grad()
    loss.zero_grad()
    out = loss(batch)
    total_loss(out).backward()
    gradients = {name: p.grad.clone() for name, p in loss.named_parameters() if p.grad is not None}
    return {key: out[key].detach() for key in out.keys()} | gradients


def assert_equal(a, b):
    assert a.keys() == b.keys() and len(a) > 2
    for key in a:
        assert torch.equal(a[key], b[key]), key


@pytest.mark.parametrize("kind", KINDS)
class TestSetKeys:
    def test_a_renamed_batch_gives_equal_numbers(self, kind, policy, corpus, batch):
        batch = batch.detach()
        loss = make(kind, policy, corpus)
        policy.core.decoder.layer.linear1.weight.data.mul_(1.01)
        expected = results(loss, policy, batch)
        names = accepted(loss)
        assert {"audio", "style", "frame_mask", "action"} <= names
        other = renamed(batch, names)
        before = {key: other[key].clone() for key in other.keys(True, True)}
        loss.set_keys(**{name: NAMES[name] for name in names})
        assert_equal(results(loss, policy, other), expected)
        assert all(torch.equal(other[key], value) for key, value in before.items())
        assert NAMES["frame_mask"] in loss.in_keys or kind in ("ppo", "ppo_kl", "a2c", "reinforce")
        loss.set_keys(**dict.fromkeys(names))
        assert_equal(results(loss, policy, batch), expected)

    def test_a_key_that_nothing_reads_is_refused(self, kind, policy, corpus):
        with pytest.raises(ValueError, match="colour is not an accepted tensordict key"):
            make(kind, policy, corpus).set_keys(colour="red")


def test_an_entry_that_was_not_asked_for_is_hidden(policy, batch):
    loss = ReferenceKL(policy.actor_module)
    loss.set_keys(frame_mask="not_there")
    assert "frame_mask" in batch.keys() and "frame_mask" not in loss.named_as_ours(batch).keys()
    with pytest.raises(AttributeError):
        loss(batch.detach())


def test_the_value_is_read_where_the_critic_writes_it(policy, batch):
    class Elsewhere(DecoderCritic):
        def forward(self, tensordict):
            out = super().forward(tensordict)
            return out.set("worth", out.get("state_value")).set("state_value", torch.zeros_like(out["state_value"]))

    for kind in (ClipPPOLoss, ReinforceLoss, AdvantageWeightedLoss):
        out = []
        for critic_class, key in ((DecoderCritic, "state_value"), (Elsewhere, "worth")):
            torch.manual_seed(7)
            loss = kind(policy.actor_module, critic_class(16, 10, 3, hidden=8))
            loss.set_keys(value=key)
            out.append(loss(batch.detach())["loss_critic"])
        assert torch.equal(*out) and out[0] > 0


SETTINGS = {
    "ClipPPOLoss": (ClipPPOLoss, {"clip_epsilon": 0.1, "entropy_bonus": True, "entropy_coeff": 0.3,
                                  "critic_coeff": 0.5, "normalize_advantage": True, "loss_critic_type": "l1"}),
    "A2CLoss": (A2CLoss, {"entropy_bonus": True, "entropy_coeff": 0.3, "critic_coeff": 0.5, "reduction": "sum"}),
    "ReinforceLoss": (ReinforceLoss, {"loss_critic_type": "smooth_l1", "reduction": "sum"}),
}  # fmt: skip


@pytest.mark.parametrize("names", [("actor_network", "critic_network"), ("actor", "critic"), None])
@pytest.mark.parametrize("name", SETTINGS)
def test_they_take_what_torchrls_take_and_give_the_same(policy, name, names):
    """On rows without padding, where there is nothing to mask."""
    batch = rollout(policy, torch.full((4,), T)).detach()
    kind, settings = SETTINGS[name]
    out = []
    for each in (kind, getattr(torchrl, name)):
        torch.manual_seed(7)
        networks = (policy.actor_module, DecoderCritic(16, 10, 3, hidden=8))
        loss = each(*networks, **settings) if names is None else each(
            **dict(zip(names, networks, strict=True)), **settings, **_needed(each, names, networks)
        )  # fmt: skip
        loss.set_keys(action="latent")
        out.append({key.replace("actor", "objective").replace("value", "critic"): value
                    for key, value in loss(batch.copy()).items() if key.startswith("loss_")})  # fmt: skip
    assert out[0].keys() == out[1].keys() >= {"loss_objective", "loss_critic"}
    for key in out[0]:
        torch.testing.assert_close(out[0][key], out[1][key], rtol=1e-6, atol=0)


def _needed(kind, names, networks):
    """TorchRL's ReinforceLoss insists on its first name."""
    insists = kind is torchrl.ReinforceLoss and names[0] == "actor"
    return {"actor_network": networks[0]} if insists else {}


def test_old_names_work_for_one_release(policy, batch):
    from s2f_rl.losses import KLPENPPOLoss

    batch = batch.detach()
    with pytest.warns(FutureWarning, match="actor_module of this loss is now actor_network"):
        old = ClipPPOLoss(actor_module=policy.actor_module)
    assert torch.equal(old(batch)["loss_objective"], ClipPPOLoss(policy.actor_module)(batch)["loss_objective"])
    with pytest.warns(FutureWarning, match="KLPENPPOLoss is now KLPenaltyPPOLoss"):
        old = KLPENPPOLoss(policy.actor_module, beta=0.7)
    assert torch.equal(
        old(batch)["loss_penalty"], KLPenaltyPPOLoss(policy.actor_module, beta=0.7)(batch)["loss_penalty"]
    )
