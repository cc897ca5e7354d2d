"""What a reward and a judge were made for stands in their files and is compared with the corpus."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.envs import FrozenRewardTransform
from s2f_rl.errors import UserError
from s2f_rl.evaluation import Scorer
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from s2f_rl.rewards.judge.judge import Judge
from s2f_rl.rewards.model.meeting import refuse_other_rate
from tests.conftest import Awkward
from tests.tiny import make_tiny_corpus


def reward(n_vertices: int, fps: float | None = None) -> RewardModel:
    torch.manual_seed(0)
    model = RewardModel(
        SpeechMeshTransformer(3 * n_vertices, width=16, depth=1, n_heads=2), ScoreHead(16, 16, hidden=8)
    )
    model.fps = fps
    return model


def judge(n_vertices: int, fps: float | None = None) -> Judge:
    model = Judge(torch.randn(6, 3 * n_vertices), torch.zeros(3 * n_vertices), width=8, hidden=8)
    model.fps = fps
    return model


@pytest.mark.parametrize("make", [reward, judge])
class TestFiles:
    def test_come_back(self, make, awkward: Awkward, tmp_path: Path) -> None:
        corpus = FaceCorpus(awkward.own)
        model = make(corpus.n_vertices, 25.0)
        model.mesh_identity = corpus.mesh_identity
        before = model.content_hash()
        model.save(tmp_path)
        again = type(model).load(tmp_path)
        assert (again.fps, again.mesh_identity) == (25.0, corpus.mesh_identity)
        assert again.content_hash() == before  # what a model was made for is no part of its scores

    def test_another_unit(self, make, tmp_path: Path) -> None:
        make(8).save(tmp_path)
        path = next(p for p in tmp_path.iterdir() if p.name in ("model_loss.pth", "judge.pt"))
        content = torch.load(path, weights_only=True)
        content["config"]["made_for"]["unit"] = "feet"
        torch.save(content, path)
        with pytest.raises(UserError, match="its unit is 'feet', not metres"):
            type(make(8)).load(tmp_path)

    def test_a_file_of_before(self, make, tmp_path: Path) -> None:
        make(8).save(tmp_path)
        path = next(p for p in tmp_path.iterdir() if p.name in ("model_loss.pth", "judge.pt"))
        content = torch.load(path, weights_only=True)
        del content["config"]["made_for"]
        torch.save(content, path)
        again = type(make(8)).load(tmp_path)
        assert again.fps is None and again.mesh_identity is None


def test_hub_folder(awkward: Awkward, tmp_path: Path) -> None:
    corpus = FaceCorpus(awkward.own)
    model = reward(corpus.n_vertices, 25.0)
    model.mesh_identity = corpus.mesh_identity
    model.save_pretrained(tmp_path)
    again = RewardModel.from_pretrained(tmp_path)
    assert (again.fps, again.mesh_identity) == (25.0, corpus.mesh_identity)


class TestRates:
    def test_another_rate_is_refused_wherever_they_meet(self, awkward: Awkward) -> None:
        corpus = FaceCorpus(awkward.own)
        model = reward(corpus.n_vertices, 30.0)
        with pytest.raises(UserError, match="the reward model was trained at 30 fps, .* runs at 25: .*train one at 25"):
            FrozenRewardTransform(model, corpus)
        with pytest.raises(UserError, match="reward model 'train' was trained at 30 fps"):
            Scorer({"train": model}, corpus)

    def test_ntsc_is_thirty(self) -> None:
        refuse_other_rate(reward(8, 30.0), 29.97, "it", "there")
        with pytest.raises(UserError, match="was trained at 24 fps"):
            refuse_other_rate(reward(8, 24.0), 25.0, "it", "there")

    def test_scores_at_29_97_are_those_at_30(self, tmp_path: Path) -> None:
        """Why the two count as one rate: the clips of the same speech, seen by the same model."""
        slow = FaceCorpus(make_tiny_corpus(tmp_path / "a", n_sentences=1, stored_fps=29.97, seconds=(1.5, 1.5)))
        fast = FaceCorpus(make_tiny_corpus(tmp_path / "b", n_sentences=1, stored_fps=30, seconds=(1.5, 1.5)))
        model = reward(slow.n_vertices)
        torch.nn.init.normal_(model.backbone.encoder.patch_embed.weight, std=10.0)
        scores = [model.score(c[0].vertices, c[0].mel_clips)["lip_score"][4:40] for c in (slow, fast)]
        apart, spread = (scores[0] - scores[1]).square().mean().sqrt(), scores[1].std()
        assert apart < 0.2 * spread

    def test_a_published_mesh_at_an_unusual_rate_is_warned_of(self, caplog: pytest.LogCaptureFixture) -> None:
        refuse_other_rate(reward(5023), 60.0, "published.pth", "there")
        assert "published.pth states no frame rate, models of its mesh are usually of 30 fps" in caplog.text
