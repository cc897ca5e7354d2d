from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from s2f_rl.errors import UserError
from s2f_rl.metrics import lip_readability_per_clip, perceptual_lip_readability

GOLDEN = Path(__file__).parents[1] / "golden"
V = 3


class Backbone(torch.nn.Module):
    """A stand-in with the interface of the real one: two linear maps, unit length."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.mesh = torch.nn.Parameter(torch.randn(5 * V * 3, 6, generator=generator))
        self.mel = torch.nn.Parameter(torch.randn(20 * 128, 6, generator=generator))

    def forward(self, mesh_clips, mel_clips):
        assert mesh_clips.shape[1:] == (5, V * 3) and mel_clips.shape[1:] == (1, 20, 128)
        mesh, mel = mesh_clips.flatten(1) @ self.mesh, mel_clips.flatten(1) @ self.mel
        return mesh / mesh.norm(dim=-1, keepdim=True), mel / mel.norm(dim=-1, keepdim=True)


@pytest.fixture
def case():
    random = np.random.default_rng(1)
    # in float64, so that no comparison hangs on the order of a sum of thousands
    model = SimpleNamespace(backbone=Backbone().double(), n_vertices=V)
    return random.normal(size=(23, V, 3)), random.normal(size=(19, 20, 128)), model


def test_against_a_loop_over_clips(case):
    vertices, mel, model = case
    expected = []
    for i in range(4):  # 23 frames: four whole clips
        mesh = vertices[5 * i : 5 * i + 5].reshape(-1) @ model.backbone.mesh.detach().numpy()
        speech = mel[5 * i].reshape(-1) @ model.backbone.mel.detach().numpy()
        expected.append(mesh @ speech / np.linalg.norm(mesh) / np.linalg.norm(speech))
    np.testing.assert_allclose(lip_readability_per_clip(vertices, mel, model), expected, rtol=0, atol=1e-12)
    value = perceptual_lip_readability(torch.tensor(vertices.reshape(23, -1)), torch.tensor(mel), model)
    assert value.shape == () and not value.requires_grad
    assert float(value) == pytest.approx(np.mean(expected), abs=1e-12)
    assert float(perceptual_lip_readability(vertices, mel[:, None], model)) == float(value)


def test_clips_behind_the_speech_or_the_last_frame_are_dropped(case):
    vertices, mel, model = case
    assert len(lip_readability_per_clip(vertices, mel[:16], model)) == 4  # clip 3 has mel clip 15
    assert len(lip_readability_per_clip(vertices, mel[:15], model)) == 3
    assert len(lip_readability_per_clip(vertices[:19], mel, model)) == 3
    assert math.isnan(perceptual_lip_readability(vertices[:4], mel, model))
    assert math.isnan(perceptual_lip_readability(vertices, mel[:0], model))


def test_many_clips_are_scored_in_parts(case):
    _, mel, model = case
    vertices = np.random.default_rng(2).normal(size=(5 * 300, V, 3)).astype(np.float32)
    long_mel = np.resize(mel, (1500, 20, 128))
    values = lip_readability_per_clip(vertices, long_mel, model)
    assert values.shape == (300,)
    tail = lip_readability_per_clip(vertices[-50:], long_mel[-50:], model)
    np.testing.assert_allclose(values[-10:], tail, atol=1e-6)


def test_mistakes(case):
    vertices, mel, model = case
    with pytest.raises(UserError, match="mel_clips have shape"):
        perceptual_lip_readability(vertices, mel[:, :19], model)
    with pytest.raises(UserError, match="V=3 and the reward model was made for V=9"):
        perceptual_lip_readability(vertices, mel, SimpleNamespace(backbone=model.backbone, n_vertices=9))
    with pytest.raises(UserError, match="batch shape"):
        perceptual_lip_readability(vertices[None], mel, model)


def test_golden_case_with_the_real_reward_model():
    from s2f_rl.rewards import RewardModel

    with np.load(GOLDEN / "speech_mesh.npz", allow_pickle=False) as archive:
        golden = {key: archive[key] for key in archive.files}
    weights = {key[3:]: torch.tensor(value) for key, value in golden.items() if key.startswith("sd/")}
    model = RewardModel.from_reference(weights, n_heads=4)
    per_clip = lip_readability_per_clip(golden["plrs/vertices"], golden["plrs/mel"], model)
    np.testing.assert_allclose(per_clip, golden["plrs/per_clip"], atol=1e-6)
    value = perceptual_lip_readability(golden["plrs/vertices"], golden["plrs/mel"], model)
    assert float(value) == pytest.approx(float(golden["plrs/value"]), abs=1e-6)
