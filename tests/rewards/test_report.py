"""AUC per corruption: against counting by hand, and on rewards whose taste is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from s2f_rl.data import FaceCorpus
from s2f_rl.rewards.corruptions import chosen_corruptions
from s2f_rl.rewards.motion import MotionStatistics
from s2f_rl.rewards.report import SUM, auc, auc_summary, auc_table, corruption_auc, write_auc


class Taste:
    """Stands in for a reward model: likes small motion (lip) and smooth motion (real)."""

    def encode_audio(self, mel_clips: Tensor) -> Tensor:
        return mel_clips.flatten(1)[:, :4]

    def score_batch(self, vertices: Tensor, audio_features: Tensor) -> dict[str, Tensor]:
        mask = torch.zeros(vertices.shape[:2], dtype=torch.bool)
        mask[:, 4 : 4 + audio_features.shape[1]] = True
        lip = -(vertices - vertices.mean(1, keepdim=True)).square().sum(-1)
        step = padded(vertices.diff(n=2, dim=1).square().sum(-1))
        return {"lip_score": lip, "real_score": -step, "score_mask": mask}


def padded(values: Tensor) -> Tensor:
    return torch.cat([values.new_zeros(len(values), 2), values], dim=1)


@pytest.fixture(scope="module")
def rows(validation: FaceCorpus, motion: MotionStatistics) -> list[dict]:
    chosen = chosen_corruptions(["amplitude_up", "amplitude_down", "jitter", "regression_to_mean"])
    return corruption_auc(Taste(), validation, motion, corruptions=chosen)  # type: ignore[arg-type]


def test_auc_by_counting() -> None:
    better, worse = [3.0, 1.0, 2.0], [2.0, 0.0]
    count = sum((a > b) + 0.5 * (a == b) for a in better for b in worse) / 6
    assert auc(better, worse) == pytest.approx(count) == pytest.approx(4.5 / 6)
    assert auc([1.0], [1.0]) == 0.5 and auc([0.0], [1.0]) == 0.0


class TestCorruptionAuc:
    def test_known_tastes(self, rows: list[dict]) -> None:
        found = {(row["corruption"], row["score"]): row for row in rows}
        assert found["amplitude_up", "lip_score"]["paired"] == 1.0
        assert found["amplitude_down", "lip_score"]["paired"] == 0.0
        assert found["jitter", "real_score"]["auc"] == 1.0

    def test_rows_are_complete(self, rows: list[dict], validation: FaceCorpus) -> None:
        # without a regressor, what needs one is left out
        assert {row["corruption"] for row in rows} == {"amplitude_up", "amplitude_down", "jitter"}
        assert {row["score"] for row in rows} == {"lip_score", "real_score", SUM}
        for row in rows:
            assert row["utterances"] == len(validation) and row["strength"] == 1.0 and row["base"] == "truth"
        routed = {(row["corruption"], row["score"]) for row in rows if row["routed"]}
        assert ("jitter", "real_score") in routed and ("jitter", "lip_score") not in routed

    def test_means_by_hand(self, rows: list[dict], validation: FaceCorpus) -> None:
        means = []
        for i in range(len(validation)):
            vertices, n = validation[i].vertices, len(validation[i].mel_clips)
            centred = vertices - vertices.mean(0)
            means.append(float(-centred.square().sum(1)[4 : 4 + n].mean()))
        row = next(row for row in rows if (row["corruption"], row["score"]) == ("amplitude_up", "lip_score"))
        assert row["better"] == pytest.approx(sum(means) / len(means), rel=1e-4)
        assert row["worse"] == pytest.approx(4 * row["better"], rel=1e-4)

    def test_noise_over_smoothed_motion(self, validation: FaceCorpus, motion: MotionStatistics, bank) -> None:
        chosen = chosen_corruptions(["amplitude_up", "jitter"])
        rows = corruption_auc(Taste(), validation, motion, bank.fit_regressor(motion), chosen)  # type: ignore[arg-type]
        assert {(row["corruption"], row["base"]) for row in rows} == {
            ("amplitude_up", "truth"), ("jitter", "truth"), ("jitter", "regression_to_mean"),
        }  # fmt: skip

    def test_same_seed_same_rows(self, rows: list[dict], validation: FaceCorpus, motion: MotionStatistics) -> None:
        chosen = chosen_corruptions(["amplitude_up", "amplitude_down", "jitter", "regression_to_mean"])
        assert corruption_auc(Taste(), validation, motion, corruptions=chosen) == rows  # type: ignore[arg-type]


class TestTables:
    def test_summary(self, rows: list[dict]) -> None:
        summary = auc_summary(rows)
        routed = [row["auc"] for row in rows if row["routed"] and row["score"] != SUM]
        assert summary["auc_routed_min"] == min(routed)
        assert summary["auc_routed_mean"] == pytest.approx(sum(routed) / len(routed))
        assert auc_summary([]) == {}

    def test_text(self, rows: list[dict]) -> None:
        lines = auc_table(rows).splitlines()
        assert len(lines) == 4
        jitter = next(line for line in lines if line.startswith("jitter"))
        assert "1.00*" in jitter

    def test_files(self, rows: list[dict], tmp_path: Path) -> None:
        write_auc(tmp_path, rows, {"reward": "abc"})
        stored = json.loads((tmp_path / "auc.json").read_text())
        assert stored["reward"] == "abc" and stored["rows"] == rows
        assert (tmp_path / "auc.csv").read_text().splitlines()[0].startswith("corruption,base,family,score,routed,auc")
