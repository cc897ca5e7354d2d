"""What a run freezes of its policy, and what a critic of it reads."""

from __future__ import annotations

import pytest
import torch

from s2f_rl.models import FaceFormer, MelAudioEncoder
from s2f_rl.training.build_policy import build_critic, build_policy

LIPS = torch.tensor([1, 2])


@pytest.fixture
def actor() -> FaceFormer:
    torch.manual_seed(0)
    made = FaceFormer(MelAudioEncoder(width=6, fps=25.0, features_per_frame=2), 8, feature_dim=16, n_subjects=3)
    torch.nn.init.normal_(made.decoder.vertice_map_r.weight, std=1e-3)
    return made


@pytest.mark.parametrize("train_output_map", [False, True])
def test_frozen(actor: FaceFormer, train_output_map: bool) -> None:
    policy = build_policy(actor, {"noise_mm": 0.3, "learn_noise": True}, LIPS, train_output_map)
    frozen = {name for name, p in policy.core.named_parameters() if not p.requires_grad}
    output_map = {"decoder.vertice_map_r.weight", "decoder.vertice_map_r.bias"}
    assert frozen == (set() if train_output_map else output_map)
    assert {id(p) for p in actor.output_map()} == {id(p) for p in policy.core.frozen_in_rl()}


@pytest.mark.parametrize(("exploration", "width"), [("latent", 16), ("vertex", 24)])
def test_critic_of_the_motion(actor: FaceFormer, exploration: str, width: int) -> None:
    policy = build_policy(actor, {"exploration": exploration}, LIPS)
    state = torch.random.get_rng_state()
    critic = build_critic("decoder", 5, policy, actor, None, torch.device("cpu"))
    assert critic is not None and critic.mlp[0].in_features == width + 2 * 6 + 3
    assert torch.equal(state, torch.random.get_rng_state())
