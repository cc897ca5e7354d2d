"""Which credit has the true gradient where a code moves frames before its own: all sequences of a tiny CodeTalker."""

from __future__ import annotations

import itertools

import pytest
import torch
from small_codetalker import small_actor
from tensordict import TensorDict
from torch import Tensor
from torchrl.modules import set_recurrent_mode

from s2f_rl.losses import credited_returns, group_relative_advantage
from s2f_rl.models import CodeTalker, MotionPolicy

K, T = 3, 3


@pytest.fixture(scope="module")
def tiny() -> tuple[CodeTalker, MotionPolicy, TensorDict]:
    """Every sequence of codes of one utterance, as rows of a batch."""
    sizes = {"n_codes": K, "codes_per_frame": 1, "code_width": 4, "codebook_width": 4, "codebook_hidden": 6}
    actor = small_actor(4, 1, feature_dim=8, **sizes).double()
    policy: MotionPolicy = actor.make_policy()
    policy.core.log_temperature.fill_(0.5)
    for parameter in policy.core.frozen_in_rl():
        parameter.requires_grad_(False)
    codes = torch.tensor(list(itertools.product(range(K), repeat=T))).unsqueeze(-1)
    audio = torch.randn(1, T, 1, 8, generator=torch.Generator().manual_seed(1)).double()
    ones = torch.ones(len(codes), T, 1)
    batch = TensorDict(
        {"latent": codes, "fed_back": policy.core._fed(codes)[2], "audio": audio.expand(len(codes), -1, -1, -1),
         "style": ones.double(), "frame_mask": ones.bool()}, [len(codes), T],
    )  # fmt: skip
    return actor, policy, batch


def log_probs(policy: MotionPolicy, batch: TensorDict) -> Tensor:
    """[27, T]."""
    with set_recurrent_mode(True):
        return policy.actor_module.get_dist(batch.clone(False)).log_prob(batch["latent"])


def gradient(value: Tensor, actor: CodeTalker) -> Tensor:
    found = torch.autograd.grad(value, list(actor.decoder.parameters()), allow_unused=True)
    return torch.cat([each.flatten() for each in found if each is not None])


def rewards(actor: CodeTalker, batch: TensorDict) -> Tensor:
    """[27, T, 1]: of each frame what its own vertices do, as decoded with all the codes."""
    motion = actor.decode(batch["latent"])
    return (motion * torch.linspace(-1, 1, 12).double()).sum(-1, keepdim=True).tanh()


def test_probabilities_of_all_sequences(tiny: tuple[CodeTalker, MotionPolicy, TensorDict]) -> None:
    probabilities = log_probs(tiny[1], tiny[2]).sum(1).exp()
    assert float(probabilities.sum()) == pytest.approx(1.0, abs=1e-12) and float(probabilities.max()) < 0.9


@pytest.mark.parametrize(
    ("credit", "gamma", "exact"),
    [("utterance", 0.7, True), ("around", 0.7, True), ("discounted", 1.0, False), ("discounted", 0.7, False),
     ("window", 0.7, False)],
)  # fmt: skip
def test_expected_estimate(
    credit: str, gamma: float, exact: bool, tiny: tuple[CodeTalker, MotionPolicy, TensorDict]
) -> None:
    """The sum over all sequences against the gradient of the expected reward; three frames are all around each other.

    Group baselines change nothing: the expectation over pairs of sequences is the same.
    """
    actor, policy, batch = tiny
    log_prob, reward = log_probs(policy, batch), rewards(actor, batch)
    assert float((reward[0] - reward[1]).abs()[0]) > 1e-3  # they differ in the last code, and move the first frame
    probability = log_prob.sum(1).exp()
    true = gradient((probability * reward.sum((1, 2))).sum(), actor)
    returns = credited_returns(reward, batch["frame_mask"], credit, gamma)
    weights = probability.detach()[:, None]
    found = gradient((weights * returns.squeeze(-1) * log_probs(policy, batch)).sum(), actor)
    pairs = torch.tensor(list(itertools.product(range(len(batch)), repeat=2)))
    mask = torch.ones(2 * len(pairs), T, 1, dtype=torch.bool)
    advantage = group_relative_advantage(returns[pairs.flatten()], mask, 2).unflatten(0, (-1, 2))[:, 0, :, 0]
    both = probability.detach()[pairs].prod(1, keepdim=True)
    grouped = gradient((both * advantage * log_probs(policy, batch)[pairs[:, 0]]).sum(), actor)
    torch.testing.assert_close(grouped, found, rtol=0, atol=1e-9 * float(found.abs().max()))
    difference = float((found - true).norm() / true.norm())
    assert difference < 1e-6 if exact else difference > 0.05, difference
