"""What stands in for a GPU: shapes without values, which forbids asking for one, and products in bfloat16."""

from __future__ import annotations

import pytest
import torch

from s2f_rl import keys, metrics
from s2f_rl.collectors import utterance_collector
from s2f_rl.envs import FrozenRewardTransform
from s2f_rl.losses.advantages import discounted_returns, group_relative_advantage
from s2f_rl.losses.supervised import motion_errors
from s2f_rl.models import FaceFormer, MelAudioEncoder
from s2f_rl.rewards import ScoreHead, SpeechMeshTransformer
from tests.envs.support import corpus_in, env_for, policy_for, reward_model_for

B, T, V, H = 3, 9, 7, 16


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return corpus_in(tmp_path_factory.mktemp("corpus"))


def test_measures():
    """Of motions on a device, with regions on the CPU."""
    motions, truth = torch.empty(B, T, 3 * V, device="meta"), torch.empty(B, T, 3 * V, device="meta")
    lips, rest = torch.arange(3), torch.empty(3 * V)
    for found in (
        metrics.max_vertex_error(motions, truth),
        metrics.lip_vertex_error(motions, truth, lips),
        metrics.amplitude_ratio(motions, truth, lips),
        metrics.jitter_ratio(motions, truth, lips),
        metrics.lip_intensity(motions, lips),
        metrics.upper_face_dynamics_deviation(motions, truth, rest, lips),
    ):
        assert found.shape == (B,) and found.is_meta


class TestWithoutValues:
    """On the meta device a value that the host asks for raises: nothing here waits for a device."""

    @pytest.fixture(autouse=True)
    def _meta(self):
        with torch.device("meta"):
            yield

    def test_decoder(self):
        decoder = FaceFormer(MelAudioEncoder(width=8), V, feature_dim=H, n_subjects=2).decoder
        audio, style = torch.empty(B, T, 1, 8), torch.empty(B, 2)
        latent = decoder.sequence(torch.empty(B, T, H), audio, style)
        assert latent.shape == (B, T, H) and decoder.decode(latent).shape == (B, T, 3 * V)
        forced = decoder.sequence_from_displacements(torch.empty(B, T, 3 * V), audio, style, "template")
        forced.sum().backward()
        assert decoder.vertice_map.weight.grad.shape == (H, 3 * V)

    def test_reward_model(self):
        backbone, head = SpeechMeshTransformer(3 * V, width=H, depth=1, n_heads=2), ScoreHead(H, H, 8)
        mesh = backbone.encode_mesh(torch.empty(B, T, 3 * V))
        audio = backbone.encode_audio(torch.empty(T, 20, 128))
        assert mesh.shape == (B, T - 4, H) and audio.shape == (T, H)
        assert head(mesh, mesh).lip.shape == (B, T - 4)

    def test_losses(self):
        mask = torch.empty(B, T, 1, dtype=torch.bool)
        motion = torch.empty(2, B, T, 3 * V)
        assert [error.shape for error in motion_errors(*motion, mask)] == [(), ()]
        returns = discounted_returns(torch.empty(B, T, 1), mask, 0.7)
        assert group_relative_advantage(returns, mask, B).shape == (B, T, 1)


def test_scores_in_bfloat16(corpus):
    """What is written is float32, the same frames are scored, and no score is further off than bfloat16 rounds."""
    transform = FrozenRewardTransform(reward_model_for(corpus), corpus)
    batch = utterance_collector(env_for(corpus, 4), policy_for(corpus)).next()
    exact = transform(batch.clone()).get("next")
    transform.reward_model.backbone.precision = "bfloat16"
    lower = transform(batch.clone()).get("next")
    assert torch.equal(exact[keys.SCORE_MASK], lower[keys.SCORE_MASK])
    for name in (keys.LIP_SCORE, keys.REAL_SCORE, keys.REWARD):
        error = (exact[name] - lower[name]).abs().max()
        assert lower[name].dtype == torch.float32 and 0 < error < 2e-2, (name, error)
