"""AUC, monotonicity and reliability: against counting by hand, and on rewards whose taste is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from s2f_rl.data import FaceCorpus
from s2f_rl.errors import NotFinite, UserError
from s2f_rl.rewards.calibration.auc import (
    SUM,
    auc,
    auc_summary,
    auc_table,
    corruption_auc,
    warn_of_unnoticed,
    write_auc,
)
from s2f_rl.rewards.calibration.reliability import reliability, reliability_rows
from s2f_rl.rewards.calibration.spoiled_versions import (
    Scored,
    Versions,
    auc_interval,
    discrimination_rows,
    score_versions,
    speaker_rows,
    speaker_spread,
    spearman,
)
from s2f_rl.rewards.corruptions import chosen_corruptions
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.recordings import MotionBank


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
def rows(validation: FaceCorpus, motion: MotionSubspace) -> list[dict]:
    chosen = chosen_corruptions(["amplitude_up", "amplitude_down", "jitter", "regression_to_mean"])
    return corruption_auc(Taste(), validation, motion, corruptions=chosen)  # type: ignore[arg-type]


def test_what_is_hardly_noticed_is_said_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    def row(corruption: str, auc: float, score: str = "lip_score", routed: bool = True, base: str = "truth") -> dict:
        return {"corruption": corruption, "auc": auc, "score": score, "routed": routed, "base": base}

    fine = [
        row("jitter", 0.75, "real_score"),
        row("frame_hold", 0.2, routed=False),
        row("jitter", 0.1, SUM),
        row("jitter", 0.1, "real_score", base="regression_to_mean"),
    ]
    assert warn_of_unnoticed(fine) == [] and not caplog.messages
    missed = [row("missing_closure", 0.721), row("constant_offset", 0.57)]
    assert warn_of_unnoticed(fine + missed) == missed[::-1]
    (line,) = caplog.messages
    assert line.startswith("the reward hardly notices (AUC below 0.75): constant_offset 0.57, missing_closure 0.72; ")


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
            assert row["not_scored"] == 0
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

    def test_what_is_too_short_is_counted(self, validation: FaceCorpus, motion: MotionSubspace, monkeypatch) -> None:
        score_batch = Taste.score_batch
        n_frames = min(len(validation[i].vertices) for i in range(len(validation)))

        def without_the_shortest(self, vertices: Tensor, audio: Tensor) -> dict[str, Tensor]:
            scored = score_batch(self, vertices, audio)
            scored["score_mask"] &= vertices.shape[1] > n_frames
            return scored

        monkeypatch.setattr(Taste, "score_batch", without_the_shortest)
        (row, *_) = corruption_auc(Taste(), validation, motion, corruptions=chosen_corruptions(["jitter"]))  # type: ignore[arg-type]
        assert (row["utterances"], row["not_scored"]) == (len(validation) - 1, 1)
        scored = score_versions(Taste(), MotionBank(validation), motion, None, chosen_corruptions(["jitter"]), (0, 1))
        assert len(scored.too_short) == 1 and len(scored.truth) == len(validation) - 1

    def test_scores_that_are_not_finite_are_an_error(self, validation, motion, monkeypatch) -> None:
        score_batch = Taste.score_batch

        def broken(self, vertices: Tensor, audio: Tensor) -> dict[str, Tensor]:
            scored = score_batch(self, vertices, audio)
            scored["real_score"][:, 4] = torch.nan
            return scored

        monkeypatch.setattr(Taste, "score_batch", broken)
        with pytest.raises(NotFinite, match="real_score is not finite, so the model has diverged"):
            corruption_auc(Taste(), validation, motion)  # type: ignore[arg-type]
        with pytest.raises(NotFinite, match="real_score is not finite"):
            score_versions(Taste(), MotionBank(validation), motion)

    def test_noise_over_smoothed_motion(self, validation: FaceCorpus, motion: MotionSubspace, bank) -> None:
        chosen = chosen_corruptions(["amplitude_up", "jitter"])
        rows = corruption_auc(Taste(), validation, motion, bank.fit_regressor(motion), chosen)  # type: ignore[arg-type]
        assert {(row["corruption"], row["base"]) for row in rows} == {
            ("amplitude_up", "truth"), ("jitter", "truth"), ("jitter", "regression_to_mean"),
        }  # fmt: skip

    def test_same_seed_same_rows(self, rows: list[dict], validation: FaceCorpus, motion: MotionSubspace) -> None:
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


STRENGTHS = (0.0, 0.5, 1.0)


@pytest.fixture(scope="module")
def scored(validation: FaceCorpus, motion: MotionSubspace, bank: MotionBank) -> Scored:
    chosen = chosen_corruptions(["amplitude_up", "amplitude_down", "jitter"])
    regressor = bank.fit_regressor(motion)
    return score_versions(Taste(), MotionBank(validation), motion, regressor, chosen, STRENGTHS)


class TestVersions:
    def test_scores_by_hand(self, scored: Scored, validation: FaceCorpus) -> None:
        u = validation[0]
        assert list(scored.truth) == [validation[i].name for i in range(len(validation))]
        still = (u.vertices - u.vertices.mean(0)).square().sum(1)[4 : 4 + len(u.mel_clips)]
        assert scored.truth[u.name]["lip_score"] == pytest.approx(-still.numpy(), rel=1e-3)
        up = next(v for v in scored.versions if (v.utterance, v.corruption) == (u.name, "amplitude_up"))
        mean = float(-still.mean())
        assert up.means["lip_score"] == pytest.approx([mean, 2.25 * mean, 4 * mean], rel=1e-3)
        assert up.clips["lip_score"] == pytest.approx(-4 * still.numpy(), rel=1e-3)
        assert up.means[SUM] == pytest.approx(up.means["lip_score"] + up.means["real_score"])

    def test_which_bases(self, scored: Scored) -> None:
        assert {(v.corruption, v.base) for v in scored.versions} == {
            ("amplitude_up", "truth"), ("amplitude_down", "truth"),
            ("jitter", "truth"), ("jitter", "regression_to_mean"),
        }  # fmt: skip

    def test_draws_depend_on_nothing_else(self, scored: Scored, validation, motion, bank) -> None:
        alone = score_versions(
            Taste(), MotionBank(validation), motion, bank.fit_regressor(motion), chosen_corruptions(["jitter"]), (0, 1)
        )
        for one in alone.versions:
            other = next(
                v for v in scored.versions if (v.utterance, v.corruption, v.base) == (one.utterance, "jitter", one.base)
            )
            assert one.means["real_score"][[0, 1]] == pytest.approx(other.means["real_score"][[0, 2]])

    def test_any_seed(self, validation, motion) -> None:
        chosen = chosen_corruptions(["policy_noise"])
        found = [
            score_versions(Taste(), MotionBank(validation, [0]), motion, None, chosen, (0, 1), seed=seed)
            for seed in (1, 4295, 2**40, 2**63)
        ]
        assert len({float(each.versions[0].means["real_score"][1]) for each in found}) == 4

    @pytest.mark.parametrize("strengths", [(0.0,), (0.1, 1.0), (0.0, 0.5), (0.0, 0.5, 0.5, 1.0), (0.0, 0.7, 0.3, 1.0)])
    def test_strengths(self, strengths: tuple[float, ...], validation, motion) -> None:
        with pytest.raises(UserError, match="rise from 0 to 1"):
            score_versions(Taste(), MotionBank(validation), motion, strengths=strengths)


class TestDiscrimination:
    def test_rows(self, scored: Scored) -> None:
        found = {(r["corruption"], r["base"], r["score"]): r for r in discrimination_rows(scored)}
        assert len(found) == 4 * 3
        up, down = found["amplitude_up", "truth", "lip_score"], found["amplitude_down", "truth", "lip_score"]
        assert up["auc"] == 1 and up["spearman"] == -1 and up["paired"] == 1
        assert down["auc"] == 0 and down["spearman"] == 1 and down["paired"] == 0
        assert up["routed"] and not found["jitter", "truth", "lip_score"]["routed"]
        assert up["curve"][0] == up["better"] and up["curve"][-1] == up["worse"]
        assert up["utterances"] == len(scored.truth)

    def test_auc_is_that_of_the_older_table(self, scored: Scored, rows: list[dict]) -> None:
        older = next(r for r in rows if (r["corruption"], r["score"]) == ("amplitude_up", "real_score"))
        newer = next(
            r for r in discrimination_rows(scored) if (r["corruption"], r["score"]) == ("amplitude_up", "real_score")
        )
        for key in ("auc", "paired", "better", "worse"):
            assert newer[key] == pytest.approx(older[key], rel=1e-4)

    def test_a_control_is_not_routed(self) -> None:
        means = {score: np.array([0.5, 0.4]) for score in ("lip_score", "real_score", SUM)}
        version = Versions("A_sentence01", "upper_face_swap", "truth", means, {})
        assert not any(row["routed"] for row in discrimination_rows(Scored((0.0, 1.0), {}, {}, [version])))


class TestStatistics:
    @pytest.mark.parametrize("ties", [False, True])
    def test_spearman(self, ties: bool) -> None:
        from scipy import stats

        rng = np.random.default_rng(0)
        for _ in range(20):
            x, y = rng.normal(size=7), rng.normal(size=7)
            if ties:
                x, y = x.round(), y.round()
            if len(set(x)) > 1 and len(set(y)) > 1:
                assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)

    def test_spearman_of_a_constant(self) -> None:
        assert spearman([0, 0.5, 1], [0.3, 0.3, 0.3]) == 0

    def test_auc_interval(self) -> None:
        """Against a bootstrap written as a loop, and the Mann-Whitney statistic of scipy."""
        from scipy import stats

        rng = np.random.default_rng(1)
        better, worse = rng.normal(0.8, 1, 25), rng.normal(0, 1, 25)
        found, low, high = auc_interval(better, worse, resamples=4000)
        assert found == pytest.approx(stats.mannwhitneyu(better, worse).statistic / 25**2)
        slow = []
        for _ in range(4000):
            chosen = rng.integers(25, size=25)
            slow.append(auc(better[chosen], worse[chosen]))
        assert (low, high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])), abs=0.012)
        assert auc_interval(better, worse, seed=3) == auc_interval(better, worse, seed=3)

    def test_auc_interval_of_a_clear_case(self) -> None:
        assert auc_interval([2, 3, 4], [0, 1, 1.5]) == (1, 1, 1)


class TestReliability:
    def slow(self, true: np.ndarray, spoiled: np.ndarray, n_bins: int) -> float:
        """ECE by a loop over bins, weights by repetition."""
        pool = [(score, 1.0, 0.5 / len(true)) for score in true] + [(s, 0.0, 0.5 / len(spoiled)) for s in spoiled]
        ece = 0.0
        for k in range(n_bins):
            inside = [p for p in pool if min(int(p[0] * n_bins), n_bins - 1) == k]
            weight = sum(p[2] for p in inside)
            if weight:
                share = sum(p[1] * p[2] for p in inside) / weight
                ece += weight * abs(share - sum(p[0] * p[2] for p in inside) / weight)
        return ece

    def test_ece(self) -> None:
        rng = np.random.default_rng(0)
        true, spoiled = rng.beta(4, 2, 300), rng.beta(2, 3, 900)
        found = reliability(true, spoiled)
        assert found["ece"] == pytest.approx(self.slow(true, spoiled, 10))
        assert sum(b["weight"] for b in found["bins"]) == pytest.approx(1)
        brier = 0.5 * np.mean((true - 1) ** 2) + 0.5 * np.mean(spoiled**2)
        assert found["brier"] == pytest.approx(brier)

    def test_known_values(self) -> None:
        assert reliability(np.ones(3), np.zeros(5))["ece"] == 0
        assert reliability(np.zeros(3), np.ones(5))["ece"] == 1
        assert reliability(np.full(4, 0.5), np.full(9, 0.5))["ece"] == 0
        last = reliability(np.ones(1), np.zeros(1))["bins"][-1]
        assert (last["score"], last["true"], last["weight"]) == (1, 1, 0.5)
        assert reliability(np.ones(1), np.zeros(1))["bins"][4]["true"] is None

    def test_rows(self) -> None:
        clips = {"lip_score": np.array([0.9, 0.7]), "real_score": np.array([1.5, 0.1])}
        spoiled = {"lip_score": np.array([0.2, 0.4]), "real_score": np.array([0.1, 0.1])}
        versions = [
            Versions("A_sentence01", "shift_early", "truth", {}, spoiled),
            Versions("A_sentence01", "jitter", "truth", {}, spoiled),  # lip need not notice
            Versions("A_sentence01", "policy_noise", "regression_to_mean", {}, spoiled),  # not over the truth
        ]
        rows = reliability_rows(Scored((0.0, 1.0), {"A_sentence01": clips}, {"A_sentence01": "A"}, versions))
        assert [(r["score"], r["level"], r["true_count"], r["spoiled_count"]) for r in rows] == [
            ("lip_score", "clip", 2, 2), ("lip_score", "utterance", 1, 1),
        ]  # fmt: skip
        assert rows[1]["ece"] == pytest.approx(0.5 * 0.2 + 0.5 * 0.3)


class TestSpeakers:
    def test_rows_and_spread(self) -> None:
        values = {
            "A_sentence01": 0.5,
            "A_sentence02": 0.7,
            "A_sentence03": 0.6,
            "B_sentence01": 0.2,
            "B_sentence02": 0.3,
        }
        truth = {name: {"lip_score": np.array([value - 0.1, value + 0.1])} for name, value in values.items()}
        rows = speaker_rows(truth, {name: name[0] for name in values}, ["C"])
        assert [row["subject"] for row in rows] == ["A", "B"]
        assert rows[0]["mean"] == pytest.approx(0.6) and rows[0]["sd"] == pytest.approx(0.1)
        assert rows[1]["sd"] == pytest.approx(0.05 * 2**0.5) and rows[1]["utterances"] == 2
        spread = speaker_spread(rows)
        assert len(spread) == 1
        assert spread[0]["between_sd"] == pytest.approx(np.std([0.6, 0.25], ddof=1))
        assert spread[0]["within_sd"] == pytest.approx(((2 * 0.01 + 1 * 0.005) / 3) ** 0.5)

    def test_one_speaker_has_no_spread(self) -> None:
        rows = speaker_rows({"A_sentence01": {"lip_score": np.array([0.5])}}, {"A_sentence01": "A"}, {"A"})
        assert rows[0]["sd"] == 0 and rows[0]["seen"] and speaker_spread(rows)[0]["between_sd"] is None
        assert speaker_spread(rows)[0]["within_sd"] is None, "one utterance says nothing of a spread"
