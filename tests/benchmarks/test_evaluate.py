"""Evaluation of checkpoints with gains, against the library's own evaluation and the definition of a gain."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.evaluate import evaluate_with_gains, measure, open_scorer, spread, truth_rows
from s2f_rl.data import FaceCorpus
from s2f_rl.errors import UserError
from s2f_rl.evaluation import Scorer, evaluate_actor
from s2f_rl.models import FaceFormer, MelAudioEncoder
from s2f_rl.models.checkpoint import actor_payload, load_actor
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
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
    for name in ("reward", "judge"):
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


def test_spread() -> None:
    assert spread(40, 8) == [0, 5, 10, 15, 20, 25, 30, 35]
    assert spread(3, 8) == [0, 1, 2] and spread(5, 0) == []
