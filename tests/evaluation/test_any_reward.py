"""Evaluation and `s2f-rl score` with rewards that are no models: their columns, own masks, pieces, gaps."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.errors import UserError
from s2f_rl.evaluation import Scorer, evaluate_truth, summarise
from s2f_rl.evaluation import score as module
from s2f_rl.evaluation.score import score_folder
from s2f_rl.rewards import ClosureReward, Reward
from tests.tiny import make_tiny_corpus

PHONES = [("sil", 0.0, 0.1), ("aa", 0.1, 0.25), ("p", 0.25, 0.35), ("aa", 0.35, 0.6)]


class Speed(Reward):
    """Of the first vertex, over one frame or against the whole utterance."""

    score_names = ("speed_score",)

    def __init__(self, look_back: int | None) -> None:
        self.look_back = look_back

    def score_motion(self, vertices, prepared, frame_mask, stride=1, first_frame=None):
        first = vertices[..., :3]
        moved = first.diff(dim=1) if self.look_back else first[:, 1:] - first.mean(1, keepdim=True)
        return {"speed_score": (torch.nn.functional.pad(moved.norm(dim=-1), (1, 0)), frame_mask)}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = make_tiny_corpus(tmp_path_factory.mktemp("any"), n_sentences=1)
    (root / "phones").mkdir()
    (root / "phones" / "S0_sentence01.json").write_text(json.dumps(PHONES))
    return FaceCorpus(root, split="all")


@pytest.fixture
def meshes(corpus, tmp_path):
    folder = tmp_path / "meshes"
    folder.mkdir()
    for name in corpus.names:
        np.save(folder / f"{name}.npy", corpus[name].vertices.numpy())
    return folder


def test_rows_of_an_evaluation(corpus):
    scorer = Scorer({"train": {"closure": ClosureReward(corpus), "speed": Speed(1)}, "other": Speed(None)}, corpus)
    assert scorer.columns("train") == ["closure_score", "open_score", "speed_score"]
    assert scorer.columns("other") == ["other_speed_score"] and scorer.columns("none") == []
    rows = evaluate_truth(corpus, scorer, timing=False)
    for row, u in zip(rows, corpus, strict=True):
        v = u.vertices[:, :3]
        speeds = [float((v[t] - v[t - 1]).norm()) for t in range(1, len(v))]
        assert row["speed_score"] == pytest.approx(sum(speeds) / len(speeds), rel=1e-4)
        assert math.isnan(row["closure_score"]) == (u.phones is None)
    assert summarise(rows)["closure_score"] == rows[0]["closure_score"]
    with pytest.raises(UserError, match="reward models 'train' and 'judge' are the same"):
        Scorer({"train": {"a": ClosureReward(corpus), "b": Speed(1)}, "judge": Speed(1)}, corpus)


@pytest.mark.parametrize("look_back", [1, None])
def test_scores_of_a_folder(corpus, meshes, tmp_path, monkeypatch, look_back):
    monkeypatch.setattr(module, "_READ_FRAMES", 4)
    spoilt = np.load(meshes / "S1_sentence01.npy")
    spoilt[5, 7] = np.nan
    np.save(meshes / "S1_sentence01.npy", spoilt)
    rows = score_folder(meshes, corpus.root, Speed(look_back), tmp_path / "out.csv", progress=False)
    for row in rows:
        u = corpus[row["utterance"]]
        v, mean = u.vertices[:, :3], u.vertices[:, :3].mean(0)
        speeds = {t: float((v[t] - v[t - 1]).norm()) for t in range(1, len(v)) if t not in (5, 6) or u.subject != "S1"}
        if look_back is None:
            speeds = {} if u.subject == "S1" else {0: 0.0, **{t: float((v[t] - mean).norm()) for t in range(1, len(v))}}
        assert row["clips"] == len(speeds)
        expected = sum(speeds.values()) / len(speeds) if speeds else math.nan
        assert row["speed_score"] == pytest.approx(expected, rel=1e-4, nan_ok=True)


def test_a_kind_by_name(corpus, meshes, tmp_path):
    rows = score_folder(meshes, corpus.root, "closure", tmp_path / "out.csv", progress=False)
    assert [math.isnan(row["closure_score"]) for row in rows] == [False, True, True]
    assert (tmp_path / "out.csv").read_text().startswith("file,utterance,closure_score,open_score,clips")
    with pytest.raises(UserError, match="closure: such a reward is scored against a corpus"):
        score_folder(meshes, None, "closure", tmp_path / "other.csv", wavs=corpus.root / "wav")
    with pytest.raises(UserError, match="nowhere:X: cannot be imported"):
        score_folder(meshes, corpus.root, "nowhere:X", tmp_path / "other.csv")
