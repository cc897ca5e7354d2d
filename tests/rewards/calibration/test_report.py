"""The calibration report from end to end on a tiny reward, and the rows of its attack by hand."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import make_tiny_corpus

from benchmarks import leave_one_out
from s2f_rl import cli
from s2f_rl.data import FaceCorpus
from s2f_rl.data.files import atomic_write_json
from s2f_rl.errors import UserError
from s2f_rl.metrics.measures import motion_measures
from s2f_rl.models import FaceFormer, MelAudioEncoder
from s2f_rl.provenance import source_commit
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from s2f_rl.rewards.calibration.attack import MotionSpace
from s2f_rl.rewards.calibration.attack_rows import attack_rows, summarise_attacks
from s2f_rl.rewards.calibration.auc import spread_evenly
from s2f_rl.rewards.calibration.page import findings, page
from s2f_rl.rewards.calibration.report import leave_one_out_rows, report_figures, reward_report
from s2f_rl.rewards.corruptions import CORRUPTIONS
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.recordings import MotionBank
from s2f_rl.training import actor_entry

V = 45


def make_reward(seed: int, folder: Path) -> RewardModel:
    torch.manual_seed(seed)
    reward = RewardModel(SpeechMeshTransformer(3 * V, width=16, depth=1, n_heads=2), ScoreHead(16, 16, 8))
    reward.save(folder)
    return reward


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reward_report")
    make_reward(0, root / "reward")
    make_reward(1, root / "judge")
    make_tiny_corpus(root / "corpus", n_subjects=5, n_sentences=3, n_vertices=V, seconds=(0.9, 1.2))
    rows = [
        {"left_out": "time", "corruption": "shift_late", "score": "lip_score", "routed": True, "utterances": 3}
        | {"base": "truth", "auc": 0.6, "auc_full": 0.9}
    ]
    atomic_write_json(root / "lofo.json", {"rows": rows})
    return root


@pytest.fixture(scope="module")
def report(root: Path) -> dict:
    return reward_report(
        root / "reward",
        root / "corpus",
        root / "out",
        judges=[root / "judge"],
        attack_utterances=1,
        attack_steps=6,
        lofo_rows=root / "lofo.json",
        strengths=(0.0, 0.5, 1.0),
        radii_mm=(0.2, 1.0),
        progress=False,
    )


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than everything else, and is tested once."""
    monkeypatch.setattr("s2f_rl.rewards.calibration.report.report_figures", lambda report: {})


class TestReport:
    def test_files(self, report: dict, root: Path) -> None:
        stored = json.loads((root / "out" / "calibration.json").read_text())
        assert stored == json.loads(json.dumps(report))
        assert stored["about"]["reward_hash"] == RewardModel.load(root / "reward").content_hash()
        assert stored["about"]["split"] == "validation" and stored["about"]["utterances"] == 3
        names = {"auc", "strength", "reliability", "speakers", "attack", "damage"}
        assert {path.stem for path in (root / "out").glob("*.png")} == names

    def test_page_is_self_contained(self, report: dict, root: Path) -> None:
        text = (root / "out" / "report.html").read_text()
        assert text.count("data:image/png;base64,") == 6
        assert re.findall(r'(?:src|href)="(?!data:)', text) == [] and "http" not in re.sub(r"base64,[^\"]+", "", text)
        for heading in ("spoiled motion", "not trained on", "probabilities", "every speaker", "for nothing"):
            assert heading in text
        assert "shift_late" in text and "nan" not in re.sub(r"base64,[^\"]+", "", text)

    def test_every_possible_corruption_has_its_rows(self, report: dict) -> None:
        possible = {name for name, corruption in CORRUPTIONS.items() if "policy_sample" not in corruption.needs}
        # the one validation speaker has nobody to borrow a motion from
        possible -= {name for name, corruption in CORRUPTIONS.items() if "other_speaker" in corruption.needs}
        assert {row["corruption"] for row in report["discrimination"]} == possible

    def test_speakers(self, report: dict) -> None:
        seen = {row["subject"]: row["seen"] for row in report["speakers"]}
        assert seen == {"S0": True, "S1": True, "S2": True, "S3": False}

    @pytest.mark.usefixtures("no_figures")
    def test_training_speakers_are_told(self, root: Path, tmp_path: Path) -> None:
        arguments = {"attack_utterances": 0, "strengths": (0.0, 1.0), "progress": False}
        report = reward_report(root / "reward", root / "corpus", tmp_path, split="all", **arguments)
        assert (report["about"]["speakers"], report["about"]["training_speakers"]) == (5, 3)
        rows = [(row["subject"], row["seen"]) for row in report["speakers"] if row["score"] == "lip_score"]
        assert sorted(rows) == [("S0", True), ("S1", True), ("S2", True), ("S3", False), ("S4", False)]
        assert "3 of the 5 speakers are training speakers" in (tmp_path / "report.html").read_text()

    def test_page_and_figures_without_some_numbers(self, report: dict) -> None:
        holes = json.loads(json.dumps(report))
        for rows in ("discrimination", "attack_summary", "spread"):
            for row in holes[rows]:
                row |= {key: None for key, value in row.items() if isinstance(value, float) and key != "radius_mm"}
        assert "not finite" in page(holes, {})
        assert set(report_figures(holes)) == {"auc", "strength", "speakers", "reliability", "attack", "damage"}
        for row in holes["attack_summary"]:
            for key in ("before", "random_gain", "real_before", "lip_error_mm_before"):
                row.pop(key)
        assert page(holes, {}) and report_figures(holes)

    @pytest.mark.usefixtures("no_figures")
    def test_same_seed_same_rows(self, report: dict, root: Path) -> None:
        again = reward_report(
            *(root / "reward", root / "corpus", root / "again"),
            attack_utterances=0,
            strengths=(0.0, 0.5, 1.0),
            progress=False,
        )
        assert again["discrimination"] == report["discrimination"] and again["attack"] == []
        assert "for nothing" not in (root / "again" / "report.html").read_text()

    @pytest.mark.usefixtures("no_figures")
    def test_actor_space_and_predictions(self, root: Path, tmp_path: Path) -> None:
        torch.manual_seed(0)
        corpus = FaceCorpus(root / "corpus", "validation")
        actor = FaceFormer(MelAudioEncoder(width=16), V, feature_dim=8, n_subjects=3)
        torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=1e-4)
        torch.save({"actor": actor_entry(actor, corpus)}, tmp_path / "best.pt")
        (tmp_path / "predictions").mkdir()
        for index in range(len(corpus)):
            u = corpus[index]
            halved = u.template + 0.5 * (u.vertices - u.template)
            np.save(tmp_path / "predictions" / f"{u.name}_condition_S0.npy", halved.numpy())
        report = reward_report(
            *(root / "reward", root / "corpus", tmp_path / "out"),
            actor=tmp_path / "best.pt",
            predictions=tmp_path / "predictions",
            attack_utterances=1,
            attack_steps=2,
            strengths=(0.0, 1.0),
            radii_mm=(0.5,),
            progress=False,
        )
        assert {row["space"] for row in report["attack"]} == {"free", "actor"}
        assert {row["start"] for row in report["attack"]} == {"truth", "regression_to_mean", "policy"}
        assert "policy_samples" in {row["corruption"] for row in report["discrimination"]}

    def test_mistakes(self, root: Path, tmp_path: Path) -> None:
        arguments = {"attack_utterances": 0, "progress": False}
        with pytest.raises(UserError, match="is the reward itself"):
            reward_report(root / "reward", root / "corpus", tmp_path, judges=[root / "reward"], **arguments)
        (row,) = json.loads((root / "lofo.json").read_text())["rows"]
        for rows in ([{"auc": 1}], [row | {"auc": "high"}], [row | {"routed": 1}], [row | {"left_out": None}]):
            atomic_write_json(tmp_path / "other.json", {"rows": rows})
            with pytest.raises(UserError, match="leave-one-family-out"):
                reward_report(
                    root / "reward", root / "corpus", tmp_path, lofo_rows=tmp_path / "other.json", **arguments
                )
        torch.manual_seed(0)
        RewardModel(SpeechMeshTransformer(30, width=16, depth=1, n_heads=2)).save(tmp_path / "small")
        with pytest.raises(UserError, match="different meshes: 10 vertices and 45"):
            reward_report(tmp_path / "small", root / "corpus", tmp_path, **arguments)

    @pytest.mark.usefixtures("no_figures")
    def test_without_a_head(self, root: Path, tmp_path: Path) -> None:
        torch.manual_seed(0)
        RewardModel(SpeechMeshTransformer(3 * V, width=16, depth=1, n_heads=2)).save(tmp_path / "bare")
        report = reward_report(
            *(tmp_path / "bare", root / "corpus", tmp_path / "out"),
            attack_utterances=1,
            attack_steps=2,
            strengths=(0.0, 1.0),
            radii_mm=(0.5,),
            progress=False,
        )
        assert {row["score"] for row in report["discrimination"]} == {"lip_score"}
        assert report["reliability"] == [] and {row["objective"] for row in report["attack"]} == {"sum"}

    @pytest.mark.usefixtures("no_figures")
    def test_command(self, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
        given = [str(root / "reward"), "--corpus", str(root / "corpus"), "--out", str(tmp_path), "--device", "cpu"]
        assert cli.main(["reward-report", *given, "--quick", "--attack-steps", "1"]) == 0
        assert "report.html" in capsys.readouterr().out and (tmp_path / "report.html").exists()
        assert cli.main(["reward-report", *given, "--lofo", str(tmp_path / "none.json")]) == 2
        assert "no such file" in capsys.readouterr().err


@pytest.fixture(scope="module")
def rows(root: Path) -> list[dict]:
    corpus = FaceCorpus(root / "corpus", "validation")
    motion = MotionSubspace.fit(FaceCorpus(root / "corpus", "train"))
    reward, judge = RewardModel.load(root / "reward"), RewardModel.load(root / "judge")
    spaces = [MotionSpace("free"), MotionSpace("motion", motion.basis)]
    return attack_rows(reward, {"judge": judge}, MotionBank(corpus), [1], motion, spaces, radii_mm=(0.2, 1), steps=6)


class TestAttackRows:
    def test_gains(self, rows: list[dict]) -> None:
        assert len(rows) == 2 * 3 * 2
        for row in rows:
            assert row["gain"] >= 0 and max(row["lip_mm"], row["face_mm"]) <= row["radius_mm"]
            assert row["gain"] == pytest.approx(row["after"] - row["before"], abs=1e-6)
            moved = max(row["lip_mm"], row["face_mm"])
            assert row["gain_per_mm"] == pytest.approx(row["gain"] / moved if moved else 0, rel=1e-4)
        for narrow, wide in zip(rows[::2], rows[1::2], strict=True):
            assert narrow["radius_mm"] == 0.2 and wide["after"] >= narrow["after"]

    def test_before_is_the_ground_truth(self, rows: list[dict], root: Path) -> None:
        u = FaceCorpus(root / "corpus", "validation")[1]
        for name, prefix in (("reward", ""), ("judge", "judge_")):
            scores = RewardModel.load(root / name).score(u.vertices, u.mel_clips)
            for head in ("lip", "real"):
                mean = float(scores[f"{head}_score"][scores["score_mask"]].mean())
                assert rows[0][f"{prefix}{head}_before"] == pytest.approx(mean, rel=1e-4)
        assert rows[0]["before"] == pytest.approx(rows[0]["lip_before"] + rows[0]["real_before"], rel=1e-5)
        assert rows[0]["amplitude_ratio_before"] == pytest.approx(1, abs=1e-4)
        assert rows[0]["lip_error_mm_before"] == pytest.approx(0, abs=1e-3)

    def test_after_is_another_motion(self, rows: list[dict], root: Path) -> None:
        corpus = FaceCorpus(root / "corpus", "validation")
        u = corpus[1]
        measured = motion_measures(u.vertices[None] + 1e-3, u, corpus.regions, corpus.fps, timing=False)[0]
        assert 1e3 * measured["lve"] ** 0.5 == pytest.approx(3**0.5, rel=1e-3)  # what the column's unit means
        wide = next(row for row in rows if (row["space"], row["objective"], row["radius_mm"]) == ("free", "sum", 1))
        # LVE takes the worst lip vertex of a frame, so its root is at least the RMS over the lips
        assert wide["lip_error_mm_after"] >= wide["lip_mm"] * 0.999

    def test_summary(self) -> None:
        rows = [
            {
                "objective": "sum",
                "start": "truth",
                "space": "free",
                "radius_mm": 1.0,
                "gain": 0.2,
                "closure": float("inf"),
            },
            {"objective": "sum", "start": "truth", "space": "free", "radius_mm": 1.0, "gain": 0.4, "closure": 0.5},
        ]
        summary = summarise_attacks(rows)
        assert len(summary) == 1 and summary[0]["utterances"] == 2
        assert summary[0]["gain"] == pytest.approx(0.3) and summary[0]["closure"] == 0.5
        assert summary[0]["not_measured"] == {"closure": 1}


class TestParts:
    def test_spread_evenly(self) -> None:
        assert spread_evenly(10, None) == list(range(10)) and spread_evenly(3, 7) == [0, 1, 2]
        assert spread_evenly(10, 2) == [2, 7] and len(set(spread_evenly(20, 7))) == 7
        with pytest.raises(UserError, match="at least 1"):
            spread_evenly(10, 0)

    def test_findings_name_what_is_missed(self) -> None:
        row = {"corruption": "jitter", "base": "truth", "score": "real_score", "routed": True, "auc": 0.6}
        row |= {"auc_high": 0.7, "spearman": -0.2}
        rest = {"attack_summary": [], "about": {"judges": {}}}
        lines = findings({"discrimination": [row], **rest})
        assert "real on jitter (0.60)" in lines[0] and "Spearman" in lines[1]
        assert "notices" in findings({"discrimination": [{**row, "auc": 0.9, "spearman": -1}], **rest})[0]


class TestLeaveOneOut:
    def options(self, root: Path, out: Path, *more: str) -> argparse.Namespace:
        arguments = ["--corpus", str(root / "corpus"), "--out", str(out), "--full", str(root / "reward"), *more]
        return leave_one_out.parse(arguments)

    def test_rows_table_and_resuming(self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        started: list[list[str]] = []

        def train(command: list[str], check: bool) -> argparse.Namespace:
            started.append(command)
            name = next(text.removeprefix("name=") for text in command if text.startswith("name="))
            make_reward(len(started) + 10, tmp_path / name)
            return argparse.Namespace(returncode=0)

        source_commit()  # asks git, which the next line would replace; remembered from here on
        monkeypatch.setattr(leave_one_out.subprocess, "run", train)
        options = self.options(root, tmp_path, "--families", "time,amplitude", "iterations=3")
        rows = leave_one_out.run(options)
        assert [command[-2:] for command in started] == [
            [f"leave_out={f}", "iterations=3"] for f in ("time", "amplitude")
        ]
        assert {row["corruption"] for row in rows if row["left_out"] == "time"} == {
            name for name, corruption in CORRUPTIONS.items() if corruption.family == "time"
        }
        assert leave_one_out_rows(tmp_path / "rows.json") == rows
        table = (tmp_path / "table.md").read_text()
        assert "| time | shift_early | lip_score |" in table and "| amplitude | **mean** |" in table
        assert leave_one_out.run(options) == rows and len(started) == 2  # nothing is trained twice
        with pytest.raises(UserError, match="other arguments"):
            leave_one_out.run(self.options(root, tmp_path, "--families", "time", "iterations=4"))

    def test_a_failed_training_ends_it(self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(leave_one_out.subprocess, "run", lambda *_, **__: argparse.Namespace(returncode=3))
        with pytest.raises(UserError, match="exit code 3"):
            leave_one_out.run(self.options(root, tmp_path, "--families", "mouth"))
        with pytest.raises(UserError, match="unknown family 'teeth'"):
            leave_one_out.run(self.options(root, tmp_path, "--families", "teeth"))
