"""The report of a density of lips: what it tells of true, spoiled and climbed motion, against scores taken apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from s2f_rl.cli import main
from s2f_rl.data import FaceCorpus
from s2f_rl.rewards.articulation.density_files import TrainedDensity
from s2f_rl.rewards.articulation.likelihood import FORMS, ArticulationReward
from s2f_rl.rewards.calibration.attack import reward_objective
from tests.rewards.articulation.speaking import small_density, speaking_corpus


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    corpus = FaceCorpus(speaking_corpus(folder / "corpus"), split="train")
    TrainedDensity(small_density(corpus), tuple(corpus.subjects), corpus.fps, corpus.mesh_identity).save(
        folder / "density"
    )
    return folder


def test_rows(place: Path, capsys) -> None:
    options = ["--corpus", str(place / "corpus"), "--out", str(place / "out"), "--split", "train"]
    command = ["reward-report", str(place / "density"), *options, "--attack-utterances", "2", "--attack-steps", "8"]
    assert main(command) == 0
    report = json.loads((place / "out" / "articulation.json").read_text())
    corpus = FaceCorpus(place / "corpus", split="train")
    reward = ArticulationReward(corpus, folder=str(place / "density"), form="likelihood")
    truth, half, foreign = [], [], []
    for u in corpus:
        style = torch.stack([u.style, u.style.flip(0)])
        moved = torch.stack([u.vertices, u.template + 0.5 * (u.vertices - u.template)])
        for motion, way, into in ((0, 0, truth), (1, 0, half), (0, 1, foreign)):
            there = torch.ones(1, len(u.vertices), dtype=torch.bool)
            score, mask = reward.score_motion(moved[motion, None], [reward.prepare(u)], there, style=style[way, None])[
                "articulation_score"
            ]
            into.append(float(score[mask].mean()))
    rows = {(row["form"], row["version"]): row for row in report["auc"]}
    told = rows["likelihood", "style of another speaker"]
    assert told["truth"] == pytest.approx(np.mean(truth), rel=1e-4)
    assert told["spoiled"] == pytest.approx(np.mean(foreign), rel=1e-4)
    assert told["auc"] == pytest.approx(np.mean([[a > b for b in foreign] for a in truth]))
    assert told["paired"] == pytest.approx(np.mean([a > b for a, b in zip(truth, foreign, strict=True)]))
    assert {form for form, _ in rows} == {"likelihood", "squared_error", "widened"}
    assert {"all phones others", "phones 80 ms late", "shift_late", "missing_closure"} <= {name for _, name in rows}
    for row in report["attack"]:
        assert row["after"] > row["before"] and row["after"] - row["before"] > row["random_gain"]
        if row["start"] == "truth":
            assert row["before"] == pytest.approx(row["truth"], rel=1e-4) and row["lip_error_before_mm"] == 0
            assert 0 < row["lip_error_after_mm"] <= row["radius_mm"] * 1.001
    page = (place / "out" / "articulation.md").read_text()
    assert f"{told['auc']:.2f} ({told['paired']:.2f})" in page
    assert page.count("\n| likelihood |") * len(FORMS) == len(report["attack"])

    assert main([*command, "--judge", "x"]) == 2 and "--judge: " in capsys.readouterr().err


def test_the_objective_is_the_mean_over_what_has_a_score(place: Path) -> None:
    corpus = FaceCorpus(place / "corpus", split="train")
    reward = ArticulationReward(corpus, folder=str(place / "density"))
    u = corpus[0]
    prepared = reward.said(u.phones[:3], u.template)
    n = len(prepared.features)
    assert 0 < n < len(u.vertices)
    score, _ = reward.score_motion(
        u.vertices[None], [prepared], torch.ones(1, len(u.vertices)) > 0, style=u.style[None]
    )["articulation_score"]
    found = reward_objective(reward, prepared, u.template, u.style)((u.vertices - u.template)[None])
    assert float(found) == pytest.approx(float(score[0, :n].mean()), rel=1e-4)
