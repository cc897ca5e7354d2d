"""The articulation reward: its score against a loop, in every way that motion is given, its masks and its refusals."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm
from tensordict import TensorDict

from s2f_rl.data import FaceCorpus
from s2f_rl.envs import FrozenRewardTransform
from s2f_rl.errors import UserError
from s2f_rl.evaluation import Scorer, evaluate_actor, predict_corpus
from s2f_rl.evaluation.score import score_folder
from s2f_rl.models import FaceFormer, MelAudioEncoder
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.contract import LinearMotion
from s2f_rl.models.latent_motion import LatentMotion
from s2f_rl.rewards.articulation.density import FLOOR_M, widened
from s2f_rl.rewards.articulation.density_files import TrainedDensity
from s2f_rl.rewards.articulation.likelihood import FORMS, ArticulationReward
from s2f_rl.rewards.articulation.phones import phone_features
from s2f_rl.rewards.calibration.attack import reward_objective
from s2f_rl.rewards.contract import ReadsLatents, ReadsStyle, Reward, asks_for_style
from s2f_rl.rewards.parts import RewardParts
from s2f_rl.rewards.registry import build_part
from tests.rewards.articulation.speaking import small_density, speaking_corpus

NAME = "articulation_score"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> FaceCorpus:
    return FaceCorpus(speaking_corpus(tmp_path_factory.mktemp("likelihood")), split="train")


@pytest.fixture(scope="module")
def folder(corpus: FaceCorpus, tmp_path_factory) -> str:
    made = tmp_path_factory.mktemp("density")
    TrainedDensity(small_density(corpus), tuple(corpus.subjects), corpus.fps, corpus.mesh_identity).save(made)
    return str(made)


def one_hot(*columns: int | None) -> torch.Tensor:
    return torch.stack([torch.zeros(2) if c is None else torch.eye(2)[c] for c in columns])


def scored(reward, corpus, vertices, utterances, **more):
    prepared = [reward.prepare(corpus[u]) for u in utterances]
    return reward.score_motion(vertices, prepared, torch.ones(vertices.shape[:2], dtype=torch.bool), **more)[NAME]


@pytest.mark.parametrize("form", FORMS)
def test_against_a_loop(corpus: FaceCorpus, folder: str, form: str) -> None:
    reward = ArticulationReward(corpus, folder=folder, form=form)
    assert isinstance(reward, Reward) and isinstance(reward, ReadsLatents) and isinstance(reward, ReadsStyle)
    u, density = corpus[1], reward.density
    lips = density.lips.tolist()
    score, mask = scored(reward, corpus, u.vertices.double()[None], [1], style=one_hot(1))
    mean, sd = density(phone_features(u.phones, 30.0)[None], one_hot(1))
    mean = widened(mean[0], sd[0])[None] if form == "widened" else mean
    moved = (u.vertices - u.template).double().view(-1, corpus.n_vertices, 3).numpy()
    basis, centre = density.basis.double().numpy(), density.mean.double().numpy()
    for t in range(len(u.vertices)):
        at_lips = np.concatenate([moved[t, v] for v in lips])
        c = [float(row @ (at_lips - centre)) / math.sqrt(len(lips)) for row in basis]
        m, s = mean[0, t].double().tolist(), sd[0, t].double().tolist()
        if form == "likelihood":
            assert max(abs(a - b) / e for a, b, e in zip(c, m, s, strict=True)) < 6
            each = [
                norm.logpdf(a, b, e) + math.log(FLOOR_M * math.sqrt(2 * math.pi))
                for a, b, e in zip(c, m, s, strict=True)
            ]
        else:
            each = [-(((a - b) / float(density.typical_m)) ** 2) for a, b in zip(c, m, strict=True)]
        assert float(score[0, t]) == pytest.approx(sum(each) / len(each), rel=1e-5)
    assert mask.all() and len(set(score[0].tolist())) > 10


@pytest.mark.parametrize("form", FORMS)
def test_latents_as_vertices(corpus: FaceCorpus, folder: str, form: str) -> None:
    """To 1e-9, in double precision, resting frames and another's template included; and the same slope."""
    reward = ArticulationReward(corpus, folder=folder, form=form)
    torch.manual_seed(1)
    linear = LinearMotion(
        torch.randn(3 * corpus.n_vertices, 5).double() * 1e-3, torch.randn(3 * corpus.n_vertices).double() * 1e-3
    )
    latents = torch.randn(2, 12, 5, dtype=torch.float64, requires_grad=True)
    templates = [corpus[u].template.double() for u in (0, 4)]
    motion = LatentMotion(latents, linear, templates).resting(torch.arange(12).expand(2, 12) > 9)
    prepared = [reward.prepare(corpus[u])._replace(lips=reward.prepare(corpus[u]).lips.double()) for u in (0, 4)]
    there = torch.ones(2, 12, dtype=torch.bool)
    found, slopes = [], []
    for each, show in ((reward.score_latents, motion), (reward.score_motion, motion.vertices())):
        score, mask = each(show, prepared, there, style=one_hot(0, None))[NAME]
        found.append(score)
        slopes.append(torch.autograd.grad(score[mask].sum(), latents, retain_graph=True)[0])
    torch.testing.assert_close(*found, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(*slopes, atol=1e-9 * float(slopes[0].abs().max()), rtol=1e-7)
    assert float(slopes[0][:, :10].abs().min()) > 0 == float(slopes[0][:, 10:].abs().max())


def test_style_and_phones_matter(corpus: FaceCorpus, folder: str) -> None:
    reward = ArticulationReward(corpus, folder=folder)
    motion = corpus[0].vertices[None, :12].expand(3, -1, -1)
    score, _ = scored(reward, corpus, motion, [0, 0, 0], style=one_hot(0, 1, None))
    unknown, _ = scored(reward, corpus, motion, [0, 0, 0])
    assert torch.equal(score[2], unknown[0])
    assert all((score[a] - score[b]).abs().min() > 1e-4 for a, b in ((0, 1), (0, 2), (1, 2)))
    other, _ = scored(reward, corpus, motion[:1], [1], style=one_hot(0))
    assert (other[0] - score[0]).abs().max() > 1e-3


def test_the_style_of_the_speaker(corpus: FaceCorpus, folder: str) -> None:
    """Whatever the lanes ask for: the own style of who speaks, zeros for a speaker without one; nobody passes any."""
    of_lane = ArticulationReward(corpus, folder=folder)
    reward = build_part("articulation", {"folder": folder, "style": "speaker"}, corpus)
    assert asks_for_style(of_lane) and not asks_for_style(reward)
    assert reward.content_hash() != of_lane.content_hash()
    motion = corpus[0].vertices[None, :12].expand(2, -1, -1)
    expected, _ = scored(of_lane, corpus, motion, [0, 0], style=one_hot(0, None))
    said = [reward.prepare(corpus[0]), reward.said(corpus[0].phones, corpus[0].template)]
    found, _ = reward.score_motion(motion, said, torch.ones(2, 12, dtype=torch.bool))[NAME]
    assert torch.equal(found, expected) and (found[0] - found[1]).abs().min() > 1e-4
    transform = FrozenRewardTransform({"a": reward}, corpus)
    moved = (corpus[0].vertices - corpus[0].template)[None, :12].expand(2, -1, -1)
    found = transform.score_displacements(moved, torch.tensor([0, 0]), torch.tensor([12, 12]), one_hot(1, None))[NAME]
    torch.testing.assert_close(found, expected[:1].expand(2, -1), atol=1e-4, rtol=1e-4)
    with pytest.raises(UserError, match="style=own: use lane or speaker"):
        ArticulationReward(corpus, folder=folder, style="own")


def test_frames_have_their_own_number(corpus: FaceCorpus, folder: str) -> None:
    """In the environment frames come alone; what is beyond the last phone has no score."""
    reward = ArticulationReward(corpus, folder=folder)
    motion = corpus[0].vertices[None]
    whole, mask = scored(reward, corpus, motion, [0])
    assert bool(mask.all())
    part, seen = scored(reward, corpus, motion[:, 5:9].expand(2, -1, -1), [0, 0], first_frame=torch.tensor([5, 6]))
    torch.testing.assert_close(part[0], whole[0, 5:9])
    assert (part[1] - whole[0, 5:9]).abs().max() > 1e-4 and bool(seen.all())
    n = motion.shape[1]
    _, seen = scored(reward, corpus, motion[:, :4], [0], first_frame=torch.tensor([n - 2]))
    assert seen[0].tolist() == [True, True, False, False]


def test_utterances_without_phones_are_masked(corpus: FaceCorpus, folder: str, tmp_path: Path) -> None:
    shutil.copy(corpus.root / "phones" / f"{corpus.names[0]}.json", tmp_path)
    reward = ArticulationReward(corpus, folder=folder, phones=str(tmp_path))
    _, mask = scored(reward, corpus, corpus[0].vertices[None, :9].expand(2, -1, -1), [0, 1])
    assert mask[0].all() and not mask[1].any()
    own = ArticulationReward(corpus, folder=folder)
    before = reward.content_hash()
    assert before != own.content_hash()
    (tmp_path / f"{corpus.names[0]}.json").write_text(json.dumps([["aa", 0.0, 0.4]]))
    assert ArticulationReward(corpus, folder=folder, phones=str(tmp_path)).content_hash() != before
    assert ArticulationReward(corpus, folder=folder, form="likelihood").content_hash() != own.content_hash()


def test_who_passes_the_style(corpus: FaceCorpus, folder: str) -> None:
    """The transform that of the lanes, step by step and whole, and the own one in its cap; scorers what is given."""
    parts = {"a": build_part("articulation", {"folder": folder}, corpus)}
    reward = parts["a"]
    transform = FrozenRewardTransform(parts, corpus, cap="truth")
    truth = corpus[0].vertices
    moved = (truth - corpus[0].template)[None].expand(2, -1, -1)
    utterance, n = torch.tensor([0, 0]), torch.tensor([len(truth)] * 2)
    expected, _ = scored(reward, corpus, truth[None].expand(2, -1, -1), [0, 0], style=one_hot(0, 1))
    found = transform.score_displacements(moved, utterance, n, one_hot(0, 1))[NAME]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        transform.score_displacements(moved, utterance, n)[NAME][1], expected[0], atol=1e-4, rtol=1e-4
    )
    assert float(transform.caps(utterance)[0, 0]) == pytest.approx(float(expected[0].mean()), rel=1e-4)

    scorer = Scorer({"train": parts}, corpus)
    rows = scorer.scores(0, truth.expand(2, -1, -1), style=one_hot(1, None))
    unknown, _ = scored(reward, corpus, truth[None], [0])
    assert [row[NAME] for row in rows] == pytest.approx([float(expected[1].mean()), float(unknown.mean())], rel=1e-4)
    assert scorer.scores(0, truth[None])[0][NAME] == pytest.approx(float(expected[0].mean()), rel=1e-4)

    several = RewardParts(parts, corpus)
    last, _ = several.score_last(
        [0, 0],
        moved[:, 4:7],
        corpus[0].template.expand(2, -1),
        torch.tensor([3, 3]),
        torch.tensor([6, 6]),
        style=one_hot(0, 1),
    )
    torch.testing.assert_close(last[NAME][0][:, 0], expected[:, 6], atol=1e-4, rtol=1e-4)


def test_what_does_not_fit(corpus: FaceCorpus, folder: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="form=likely: use squared_error or likelihood"):
        ArticulationReward(corpus, folder=folder, form="likely")
    other = FaceCorpus(speaking_corpus(tmp_path / "other", n_vertices=45), split="train")
    with pytest.raises(UserError, match="vertices"):
        ArticulationReward(other, folder=folder)
    content = json.loads((corpus.root / "corpus.json").read_text())
    for change, message in (
        ({"training_subjects": content["training_subjects"][::-1]}, "its style columns are S0, S1, those of .* S1, S0"),
        ({"stored_fps": 50}, "fps|frame"),
    ):
        copied = shutil.copytree(corpus.root, tmp_path / message[:3])
        (copied / "corpus.json").write_text(json.dumps(content | change))
        with pytest.raises(UserError, match=message):
            ArticulationReward(FaceCorpus(copied, split="train"), folder=folder)
    shutil.rmtree(copied / "phones")
    (copied / "corpus.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="no utterance has phone timings"):
        ArticulationReward(FaceCorpus(copied, split="train"), folder=folder)


def test_the_style_of_a_batch_and_of_a_file(corpus: FaceCorpus, folder: str, tmp_path: Path) -> None:
    """A batch has it beside its frames, a file of meshes in its name, a condition is a training subject's."""
    reward = ArticulationReward(corpus, folder=folder, form="likelihood")
    truth, n = corpus[0].vertices, len(corpus[0].vertices)
    expected, _ = scored(reward, corpus, truth[None].expand(2, -1, -1), [0, 0], style=one_hot(0, 1))
    batch = TensorDict(
        {
            "action": (truth - corpus[0].template).expand(2, -1, -1).clone(),
            "utterance": torch.zeros(2, n, 1, dtype=torch.int64),
            "frame_mask": torch.ones(2, n, 1, dtype=torch.bool),
            "frame_index": torch.arange(n).view(1, n, 1).expand(2, -1, -1).clone(),
            "style": one_hot(0, 1)[:, None].expand(-1, n, -1).clone(),
        },
        [2, n],
    )
    found = FrozenRewardTransform({"a": reward}, corpus)(batch)["next", NAME]
    torch.testing.assert_close(found[..., 0], expected, atol=1e-4, rtol=1e-4)

    for condition in ("S0", "S1"):
        np.save(tmp_path / f"{corpus.names[0]}_condition_{condition}.npy", truth.numpy())
    np.save(tmp_path / f"{corpus.names[0]}.npy", truth.numpy())
    rows = score_folder(tmp_path, corpus.root, folder, tmp_path / "out.csv", progress=False)
    told = {row["file"].removeprefix(corpus.names[0]): row[NAME] for row in rows}
    means = expected.mean(1).tolist()
    assert told["_condition_S0.npy"] == pytest.approx(means[0], rel=1e-4) == told[".npy"]
    assert told["_condition_S1.npy"] == pytest.approx(means[1], rel=1e-4) and abs(means[0] - means[1]) > 1e-3
    with pytest.raises(UserError, match="such a reward is scored against a corpus; give --corpus in place of --wavs"):
        score_folder(tmp_path, None, folder, tmp_path / "out.csv", wavs=corpus.root / "wav")


class Indifferent(ArticulationReward):
    """One whose style is switched off, and that knows no such keyword."""

    reads_style = False

    def score_motion(self, vertices, prepared, frame_mask, stride=1, first_frame=None):
        return super().score_motion(vertices, prepared, frame_mask, stride, first_frame)


def test_who_asks_for_no_style_is_told_none(corpus: FaceCorpus, folder: str, tmp_path: Path) -> None:
    reward = Indifferent(corpus, folder=folder)
    u = corpus[0]
    (expected,), _ = scored(reward, corpus, u.vertices[None], [0])
    found = [
        float(reward_objective(reward, reward.prepare(u), u.template, one_hot(1)[0])((u.vertices - u.template)[None])),
        Scorer({"train": reward}, corpus).scores(0, u.vertices[None], style=one_hot(1))[0][NAME],
    ]
    np.save(tmp_path / f"{u.name}_condition_S1.npy", u.vertices.numpy())
    found += [score_folder(tmp_path, corpus.root, reward, tmp_path / "out.csv", progress=False)[0][NAME]]
    assert found == pytest.approx([float(expected.mean())] * 3, rel=1e-4)


def test_evaluation_scores_each_condition_in_its_style(corpus: FaceCorpus, folder: str) -> None:
    reward = ArticulationReward(corpus, folder=folder)
    torch.manual_seed(0)
    actor = FaceFormer(MelAudioEncoder(width=8), corpus.n_vertices, n_subjects=2, feature_dim=16)
    torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=1e-3)
    rows = evaluate_actor(actor.eval(), corpus, Scorer({"train": reward}, corpus), timing=False)
    audio = CachedAudio(actor.audio_encoder, corpus)
    (made,) = predict_corpus(actor, audio, [0], [[0, 1]])
    motion = torch.cat([made.displacement, made.displacement.mean(0, keepdim=True)]) + corpus[0].template
    expected, _ = scored(reward, corpus, motion, [0, 0, 0], style=one_hot(0, 1, None))
    assert [row["condition"] for row in rows[:3]] == ["S0", "S1", "mean"]
    assert [row[NAME] for row in rows[:3]] == pytest.approx(expected.mean(1).tolist(), rel=1e-4)
