"""A measure of one's own is a column like ours: in rows, means, definitions and files."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.errors import UserError
from s2f_rl.evaluation import evaluate_truth, write_report
from s2f_rl.metrics import Metric
from s2f_rl.metrics.measures import Measure, own_measures
from tests.tiny import make_tiny_corpus

METRIC = Metric("highest_x", lambda motion: motion, unit="m", best="truth", source="this test", version=3)
HIGHEST = Measure("highest_x", METRIC, lambda motions, *_: motions[..., 0::3].amax((1, 2)), region="lips")
OURS = Measure("lve", METRIC, lambda motions, *_: motions[:, 0, 0])
NONE = 3


def test_own_measure_in_rows_and_files(tmp_path: Path) -> None:
    corpus = FaceCorpus(make_tiny_corpus(tmp_path / "corpus"), split="all")
    more = own_measures([f"{__name__}:HIGHEST"])
    rows = evaluate_truth(corpus, timing=False, more=more)
    for row in rows:
        vertices = corpus[row["utterance"]].vertices
        assert vertices is not None and row["highest_x"] == float(vertices[:, 0::3].max())
    summary = write_report(tmp_path / "out", rows, corpus, None, {}, more=more)
    assert summary["definitions"]["highest_x"] == {
        "metric": "highest_x",
        "version": 3,
        "unit": "m",
        "best": "truth",
        "region": "lips",
        "mask": summary["definitions"]["lve"]["mask"],
    }
    mean = sum(row["highest_x"] for row in rows) / len(rows)
    assert summary["style_dependent"]["highest_x"] == pytest.approx(mean)
    with open(tmp_path / "out" / "measures.csv", encoding="utf-8") as file:
        found = [row for row in csv.DictReader(file) if row["measure"] == "highest_x"]
    assert len(found) == len(rows) and {(row["version"], row["unit"]) for row in found} == {("3", "m")}


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([f"{__name__}:OURS"], "there is a column 'lve' already"),
        ([f"{__name__}:HIGHEST", f"{__name__}:HIGHEST"], "there is a column 'highest_x' already"),
        ([f"{__name__}:NONE"], "is a int, not a s2f_rl.metrics.measures.Measure"),
        (["highest"], "not one of the measures"),
    ],
)
def test_what_is_none(names: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        own_measures(names)


def test_a_motion_that_cannot_be_measured_is_counted(tmp_path: Path) -> None:
    corpus = FaceCorpus(make_tiny_corpus(tmp_path / "corpus"), split="all")
    silent = Measure("silent", METRIC, lambda motions, *_: torch.full((len(motions),), torch.nan))
    rows = evaluate_truth(corpus, timing=False, more=[silent])
    summary = write_report(tmp_path / "out", rows, corpus, None, {}, more=[silent])
    assert "silent" not in summary["style_dependent"]
    assert summary["counts"]["style_dependent"]["silent"]["sequences_not_measured"] == len(rows)
