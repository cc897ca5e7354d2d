"""Rows on disk, and what `evaluate_checkpoint` writes."""

from __future__ import annotations

import csv
import importlib.util
import json
import math

import numpy as np
import pytest
import torch
from tiny import make_tiny_corpus

from s2f_rl import metrics
from s2f_rl.data import FaceCorpus
from s2f_rl.errors import UserError
from s2f_rl.evaluation import Scorer, evaluate_checkpoint, evaluate_truth, true_distances
from s2f_rl.evaluation.tables import long_rows, write_rows
from s2f_rl.metrics.measures import definitions
from s2f_rl.models import FaceFormer, MelAudioEncoder
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from s2f_rl.training import actor_entry


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    torch.manual_seed(0)
    RewardModel(SpeechMeshTransformer(120, width=16, depth=1, n_heads=2), ScoreHead(16, 16, 8)).save(folder / "reward")
    make_tiny_corpus(folder / "corpus", n_subjects=4, n_sentences=3)
    actor = FaceFormer(MelAudioEncoder(width=12), 40, feature_dim=16, n_subjects=2).eval()
    torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=1e-3)
    torch.save({"actor": actor_entry(actor, FaceCorpus(folder / "corpus", split="all"))}, folder / "best.pt")
    return folder


def test_everything_that_evaluate_writes(root, tmp_path):
    summary = evaluate_checkpoint(
        root / "best.pt", root / "corpus", tmp_path, split="all", reward=root / "reward", progress=False
    )
    with open(tmp_path / "sequences.csv", newline="") as file:
        wide = list(csv.DictReader(file))
    with open(tmp_path / "measures.csv", newline="") as file:
        long = list(csv.DictReader(file))
    corpus = FaceCorpus(root / "corpus", split="all")
    assert len(wide) == 12 * 3
    lve = next(r for r in long if r["measure"] == "lve")
    assert lve["unit"] == "m^2" and lve["version"] == "1"
    assert lve["mask"] == metrics.vertex_mask_hash(corpus.regions["lips"])
    for row in long[:40]:
        (own,) = (w for w in wide if all(w[k] == row[k] for k in ("utterance", "condition")))
        assert own[row["measure"]] == row["value"]
    model = RewardModel.load(root / "reward")
    for row in wide:
        u = corpus[row["utterance"]]
        motion = torch.tensor(np.load(tmp_path / "predictions" / f"{u.name}_condition_{row['condition']}.npy"))
        plrs = float(metrics.perceptual_lip_readability(motion, u.mel_clips, model))
        assert float(row["plrs"]) == pytest.approx(plrs, abs=1e-5, nan_ok=True)
        assert (row["diversity_over_styles"] != "") == (row["condition"] == "mean")
    motions = [np.load(tmp_path / "predictions" / f"{wide[0]['utterance']}_condition_{s}.npy") for s in corpus.subjects]
    mean = next(r for r in wide if r["condition"] == "mean")
    expected = metrics.diversity(np.stack(motions), corpus.regions["lips"])
    assert float(mean["diversity_over_styles"]) == pytest.approx(float(expected), rel=1e-5)
    low, high = summary["intervals_95"]["style_dependent"]["lve"]
    assert low < summary["style_dependent"]["lve"] < high
    rows = [r for r in wide if r["condition"] != "mean"]
    slcc = metrics.speech_lip_correlation(
        [float(r["speech_intensity"]) for r in rows],
        [float(r["lip_intensity"]) for r in rows],
        [(r["subject"], r["condition"]) for r in rows],  # styles differ in how far they open the mouth
    )
    assert summary["style_dependent"]["slcc"] == pytest.approx(slcc)
    assert (
        json.loads((tmp_path / "summary.json").read_text())["definitions"]["lve"] == definitions(corpus.regions)["lve"]
    )


def test_every_column_has_a_definition(root):
    corpus = FaceCorpus(root / "corpus", split="all")
    rows = evaluate_truth(corpus, Scorer({"judge": RewardModel.load(root / "reward")}, corpus))
    known = definitions(corpus.regions)
    assert {c for r in rows for c, v in r.items() if isinstance(v, float)} - set(known) == {
        "judge_lip_score",
        "judge_real_score",
        "judge_plrs",
    }
    shown = {r["measure"]: r["metric"] for r in long_rows(rows, known)}
    assert shown["judge_plrs"] == "perceptual_lip_readability" and shown["judge_lip_score"] == "reward_score"
    assert all(r["lip_intensity_ratio"] == pytest.approx(1) for r in rows)
    assert all(math.isfinite(r["slcc_within"]) for r in rows)


def test_formats(tmp_path, monkeypatch):
    rows = [{"a": 1.5, "b": "x"}, {"b": "y", "c": 2}]
    if importlib.util.find_spec("pyarrow") is not None:
        import pyarrow.parquet

        write_rows(tmp_path / "r.parquet", rows)
        assert pyarrow.parquet.read_table(tmp_path / "r.parquet").to_pylist() == [
            {"a": 1.5, "b": "x", "c": None},
            {"a": None, "b": "y", "c": 2},
        ]
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match="pyarrow"):
        write_rows(tmp_path / "s.parquet", rows)
    with pytest.raises(UserError, match="rows_format"):
        evaluate_checkpoint("no", "no", tmp_path, rows_format="xls")


def test_true_distance_is_for_the_built_in_corpus(root):
    corpus = FaceCorpus(root / "corpus", split="all")
    assert true_distances(corpus, False) is None and true_distances(corpus, "auto") is None
    with pytest.raises(UserError, match="not a built-in corpus"):
        true_distances(corpus, "true")
    with pytest.raises(UserError, match="true_distance='maybe'"):
        true_distances(corpus, "maybe")
