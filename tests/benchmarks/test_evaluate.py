"""Evaluation of checkpoints with gains, against the library's own evaluation and the definition of a gain."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.evaluate import chosen_utterances, evaluate_with_gains, measure, open_scorer, spread, truth_rows
from benchmarks.harness.rewards import TrainRewards, open_judge, reward_arguments
from benchmarks.harness.sets import evaluated_sets
from benchmarks.run import check_sets
from s2f_rl.data import FaceCorpus
from s2f_rl.data.synthetic import Hidden, generate
from s2f_rl.data.synthetic.face import regions
from s2f_rl.data.synthetic.speakers import make_speaker
from s2f_rl.errors import UserError
from s2f_rl.evaluation import Scorer, TrueDistances, evaluate_actor
from s2f_rl.models import FaceFormer, MelAudioEncoder
from s2f_rl.models.checkpoint import actor_payload, load_actor
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from s2f_rl.runs.overrides import flat
from tests.benchmarks.test_matrix import small_suite
from tests.tiny import make_tiny_corpus


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``corpus/``, ``actor.pt`` (random), ``reward/`` and ``judge/`` (random)."""
    root = tmp_path_factory.mktemp("evaluate")
    make_tiny_corpus(root / "corpus", n_subjects=4, n_sentences=2, audio_only=("S2_sentence02",))
    torch.manual_seed(0)
    actor = FaceFormer(MelAudioEncoder(width=8), 40, n_subjects=2, feature_dim=16)
    torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=1e-3)
    torch.save({"actor": actor_payload(actor, ["S0", "S1"])}, root / "actor.pt")
    for name in ("reward", "judge", "third"):
        RewardModel(SpeechMeshTransformer(120, width=16, depth=1, n_heads=2), ScoreHead(16, 16, 8)).save(root / name)
    return root


@pytest.fixture(scope="module")
def corpus(place: Path) -> FaceCorpus:
    return FaceCorpus(place / "corpus", split="validation")


@pytest.fixture(scope="module")
def scorer(place: Path, corpus: FaceCorpus) -> Scorer:
    return open_scorer(place / "reward", {"judge": place / "judge"}, corpus)


def test_gain_one_is_the_plain_evaluation(place: Path, corpus: FaceCorpus, scorer: Scorer) -> None:
    ours = evaluate_with_gains(place / "actor.pt", corpus, scorer)
    theirs = evaluate_actor(load_actor(place / "actor.pt")[0], corpus, scorer, conditions="own")
    theirs = [row for row in theirs if row["condition"] != "mean"]
    assert len(ours) == len(theirs) == 4  # 2 utterances x 2 training styles
    for row, other in zip(ours, theirs, strict=True):
        for key in ("utterance", "condition", "frames"):
            assert row[key] == other[key]
        for key in ("lip_score", "real_score", "judge_lip_score", "lve", "mve", "mtm"):
            assert (key in row) == (key in other)
            assert row.get(key, 0.0) == pytest.approx(other.get(key, 0.0), rel=1e-5, nan_ok=True), key


def test_a_gain_multiplies_the_displacement(place: Path, corpus: FaceCorpus, scorer: Scorer) -> None:
    rows = evaluate_with_gains(place / "actor.pt", corpus, scorer, gains=(1.0, 1.5))
    plain, louder = ([row for row in rows if row["gain"] == gain] for gain in (1.0, 1.5))
    measured = 0
    for one, other in zip(plain, louder, strict=True):
        assert (one["utterance"], one["condition"]) == (other["utterance"], other["condition"])
        assert one["judge_lip_score"] != other["judge_lip_score"]
        if "amplitude_ratio" in one:
            assert other["amplitude_ratio"] == pytest.approx(1.5 * one["amplitude_ratio"], rel=1e-4)
            measured += 1
    assert evaluate_with_gains(place / "actor.pt", corpus, scorer, utterances=[1]) == [
        row for row in rows if row["gain"] == 1 and row["utterance"] == corpus[1].name
    ]
    assert measured == 2  # the other utterance has no ground truth
    # without displacement there is the template
    still = evaluate_with_gains(place / "actor.pt", corpus, scorer, gains=(0.0,))[0]
    template = corpus[0].template.expand(1, still["frames"], -1)
    (expected,) = measure(0, template, ["template"], corpus, scorer)
    for key in ("mve", "lip_score"):
        assert still[key] == pytest.approx(expected[key], rel=1e-5)


def test_truth(corpus: FaceCorpus, scorer: Scorer) -> None:
    (row,) = truth_rows(corpus, scorer)
    assert truth_rows(corpus, scorer, utterances=[0]) == [row] and not truth_rows(corpus, scorer, utterances=[1])
    assert (row["utterance"], row["lve"], row["amplitude_ratio"]) == ("S2_sentence01", 0.0, pytest.approx(1.0))
    expected = scorer.scores(0, corpus[0].vertices.unsqueeze(0))[0]
    assert row["judge_real_score"] == pytest.approx(expected["judge_real_score"])


def test_a_judge_must_be_another_model(place: Path, corpus: FaceCorpus) -> None:
    with pytest.raises(UserError, match="are the same"):
        open_scorer(place / "reward", {"judge": place / "reward"}, corpus)


class TestTrainRewards:
    def test_parts_are_scored_once_and_added_up(self, place: Path, corpus: FaceCorpus) -> None:
        """Two rewards with a model in common; the sums by hand from the scores of the models alone."""
        folder = str(place / "reward")
        third = {"kind": "perceptual", "folder": str(place / "third"), "weight": 0.5, "weights": {"real_score": 0.0}}
        rewards = {
            "one": {"reward.folder": folder, "reward.weights.lip_score": 2.0},
            "both": {"reward.folder": folder, **flat({"reward.parts": {"lips": third}})},
        }
        given = [text.removeprefix("--reward=") for text in reward_arguments(rewards, None)]
        both, other = TrainRewards(given, corpus), str(place / "judge")
        judge = open_judge(json.dumps({"kind": "perceptual", "folder": other}), corpus)
        scorer = Scorer({"train": both.model, "judge": judge}, corpus)
        assert len(scorer.models["train"].rewards) == 2
        vertices = corpus[0].vertices.unsqueeze(0)
        (row,) = measure(0, vertices, ["truth"], corpus, scorer)
        (plain,) = measure(0, vertices, ["truth"], corpus, open_scorer(folder, {"judge": other}, corpus))
        found = both.added_up(row, scorer.models["train"].columns)
        assert found["train_reward_one"] == pytest.approx(2 * plain["lip_score"] + plain["real_score"])
        (more,) = Scorer({"train": RewardModel.load(place / "third")}, corpus).scores(0, vertices)
        expected = plain["lip_score"] + plain["real_score"] + 0.5 * more["lip_score"]
        assert found["train_reward_both"] == pytest.approx(expected)
        assert not any("part" in column for column in found)
        assert found["judge_lip_score"] == pytest.approx(plain["judge_lip_score"])
        own = TrainRewards([text.removeprefix("--reward=") for text in reward_arguments(rewards, "one")], corpus)
        named = Scorer({"train": own.model}, corpus)
        (row,) = measure(0, vertices, ["truth"], corpus, named)
        alone = own.added_up(row, named.models["train"].columns)
        assert alone["train_reward"] == pytest.approx(found["train_reward_one"]) and "lip_score" not in alone

    def test_one_folder_keeps_its_columns(self, place: Path, corpus: FaceCorpus) -> None:
        (text,) = reward_arguments({None: {"reward.folder": str(place / "reward")}}, None)
        found = TrainRewards([text.removeprefix("--reward=")], corpus)
        assert found.added_up({"lip_score": 1.0}, {"lip_score": ("a", "lip_score")}) == {"lip_score": 1.0}


def test_chosen_utterances(place: Path) -> None:
    everything = FaceCorpus(place / "corpus", split="all")
    names = [everything.names[i] for i in chosen_utterances(everything, ["S2_*", "*sentence01"])]
    assert names == [n for n in everything.names if n.startswith("S2_") or n.endswith("01")] != everything.names
    test = set(FaceCorpus(place / "corpus", split="test").names)
    closed = {everything.names[i] for i in chosen_utterances(everything, open_test=False)}
    assert test and not closed & test and closed == {n for n in everything.names if n[:2] not in {t[:2] for t in test}}
    assert chosen_utterances(everything, number=2) == spread(len(everything), 2)
    with pytest.raises(UserError, match="no utterances nobody$"):
        chosen_utterances(everything, ["nobody"])
    sets = {"heard": {"corpus": str(place / "corpus"), "split": "test"}}
    check_sets(evaluated_sets(small_suite(evaluate=sets)), open_test=True)
    with pytest.raises(UserError, match="split test has no utterances, or only of test speakers, who need open_test"):
        check_sets(evaluated_sets(small_suite(evaluate=sets)), open_test=False)


def test_true_distance_to_the_style() -> None:
    """A take of the style's speaker of the same phones, on the speaker's own face, is at no distance to its takes."""
    own, style = make_speaker(0, 0, 300), make_speaker(1, 0, 300)
    meter = TrueDistances.__new__(TrueDistances)
    meter.speakers, meter.fps, meter.scale = {"own": own, "style": style}, 30.0, 1.0
    meter.regions = {name: torch.as_tensor(index) for name, index in regions(300).items()}
    phones = [(phone, 0.1 * k, 0.1 * (k + 1)) for k, phone in enumerate(["sil", "b", "aa", "m", "iy", "sil"])]
    template = torch.as_tensor(own.template).float().flatten()
    utterance: Any = SimpleNamespace(subject="own", phones=phones, template=template, name="own_sentence01")
    made = torch.as_tensor(generate(phones, 36, style, Hidden.none(len(phones)))[::2]).float()
    motion = (template + made).unsqueeze(0)
    (mine,), (styled,) = (meter.columns(utterance, motion, name, face=False) for name in (None, "style"))
    assert styled["true_distance"] < 2e-5 < mine["true_distance"] / 4 and "true_distance_face" not in mine
    (whole,) = meter.columns(utterance, motion)
    assert whole["true_distance"] == mine["true_distance"] and whole["true_distance_face"] > 0


def test_spread() -> None:
    assert spread(40, 8) == [0, 5, 10, 15, 20, 25, 30, 35]
    assert spread(3, 8) == [0, 1, 2] and spread(5, 0) == []
