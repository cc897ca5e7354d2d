"""The negatives are what they are called, and verdicts follow from rows whose numbers are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import judge_tests
from benchmarks.harness.judge_notes import notes
from benchmarks.negatives import BLUR_S, OPEN_MM, REFERENCES, Negatives
from s2f_rl.data import FaceCorpus
from s2f_rl.data.synthetic import synthesize
from s2f_rl.data.tensor_files import save_tensors
from s2f_rl.metrics.lips import lip_distance, rest_lip_distance
from s2f_rl.models import FaceFormer, MelAudioEncoder
from s2f_rl.rewards.judge.judge import Judge
from s2f_rl.training import actor_entry

pytest.importorskip("espeakng_loader")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built-in corpus, two actors of it and a judge, all untrained."""
    root = tmp_path_factory.mktemp("place")
    corpus = FaceCorpus(synthesize(root / "corpus", 3, 4, vertices=300, workers=1, progress=False), split="train")
    torch.manual_seed(0)
    for name in ("start", "adversarial"):
        actor = FaceFormer(MelAudioEncoder(width=8), 300, n_subjects=1, feature_dim=16)
        torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=1e-4)
        save_tensors(root / f"{name}.pt", {"actor": actor_entry(actor, corpus)})
    judge = Judge(1e3 * torch.randn(4, 900), corpus[0].template, width=8, hidden=8)
    judge.fps, judge.mesh_identity = float(corpus.fps), corpus.mesh_identity
    judge.save(root / "judge")
    return root


def test_negatives(place: Path) -> None:
    corpus = FaceCorpus(place / "corpus", split="validation")
    motions = Negatives(corpus, place / "start.pt", place / "adversarial.pt")(0)
    assert set(motions) == {"truth", "start", *REFERENCES} and len({m.shape for m in motions.values()}) == 1
    u, n = corpus[0], len(motions["truth"])
    torch.testing.assert_close(motions["truth"], (u.vertices - u.template)[:n])
    pair = {k: corpus.regions[k] for k in ("upper_lip", "lower_lip")}
    rest = float(rest_lip_distance(u.template, **pair))
    near = lip_distance(u.template + motions["open_start"], **pair)
    assert float(near.min()) > rest + 1e-3 * OPEN_MM - 1e-5
    wide = lip_distance(u.template + motions["start"], **pair) > rest + 1e-3 * OPEN_MM
    assert torch.equal(motions["open_start"][wide], motions["start"][wide]) and not wide.all()
    # smoothing once more, in numpy and by the definition
    sigma, truth = BLUR_S * corpus.fps, (u.vertices - u.template).double().numpy()
    for t in (0, n // 2):
        at = np.arange(-80, 81)
        weight = np.exp(-0.5 * (at / sigma) ** 2) * (np.abs(at) <= np.ceil(4 * sigma))
        expected = weight @ truth[np.clip(t + at, 0, len(truth) - 1)] / weight.sum()
        np.testing.assert_allclose(motions["blurred_truth"][t].numpy(), expected, atol=1e-7)
    for name in ("adversarial", "wrong_phones", "other_sentence"):
        assert float((motions[name] - motions["start"]).abs().max()) > 1e-4


def rows_of(**motions: tuple[float, float, float, float]) -> list[dict]:
    """Rows of four voices x two utterances around (judge's lip score, LVE, closure, false closure)."""
    rows = []
    for name, (lip, lve, closure, false_closure) in motions.items():
        for k in range(8):
            noise = 0.1 * (-1) ** k  # shared by all motions of an utterance, so that it cancels in pairs
            rows.append(
                {
                    "motion": name, "utterance": f"S{k // 2}_sentence0{k}", "subject": f"S{k // 2}",
                    "j_lip_score": lip + noise + 0.001 * k, "j_real_score": 0.5, "lve": lve,
                    "closure_rate": closure, "false_closure_rate": false_closure,
                }
            )  # fmt: skip
    return rows


GOOD = {name: (0.1, 1e-5, 0.5, 0.02) for name in REFERENCES}
BASE = {"truth": (0.6, 0.0, 1.0, 0.0), "start": (0.4, 1e-5, 0.5, 0.02)}


def test_verdicts() -> None:
    rows = rows_of(**BASE, **GOOD)
    assert judge_tests.difference(rows, "j_lip_score", "wrong_phones", "start") == pytest.approx((-0.3,) * 3)
    assert judge_tests.verdict(rows, "j") == {"fooled_by": [], "fooled_after_veto": []}
    fools = {**GOOD, "adversarial": (0.5005, 1.2e-5, 0.5, 0.02), "open_start": (0.4, 1e-5, 0.44, 0.02)}
    fools |= {"blurred_truth": (0.6, 1e-5, 0.9, 0.055), "wrong_phones": (0.41, 1.04e-5, 0.46, 0.045)}
    rows = rows_of(**BASE, **fools)
    assert judge_tests.verdict(rows, "j") == {
        "fooled_by": ["adversarial", "blurred_truth", "wrong_phones", "open_start"],
        "fooled_after_veto": ["wrong_phones"],
    }
    assert [judge_tests.vetoes(rows, n) for n in ("adversarial", "blurred_truth", "open_start", "wrong_phones")] == [
        ["lve"], ["false closure"], ["closure"], []
    ]  # fmt: skip
    table = judge_tests.markdown(rows, ["j"])
    assert len(table.splitlines()) == 2 + 2 + len(REFERENCES) and table.count("**") == 8
    assert "| adversarial | start | **0.504 (+0.100, +0.100 to +0.100)** | 0.500 | 12.0 | 0.50 | 0.02 | lve |" in table


def test_one_voice_is_not_enough() -> None:
    """A negative that scores far lower in one voice of four and a little higher in three fools the judge."""
    rows = rows_of(**BASE, **GOOD)
    for row in rows:
        if row["motion"] == "other_sentence" and row["subject"] != "S0":
            row["j_lip_score"] += 0.35
    assert judge_tests.difference(rows, "j_lip_score", "other_sentence", "start")[0] < 0
    assert judge_tests.verdict(rows, "j")["fooled_by"] == ["other_sentence"]


def test_the_script_and_what_a_suite_says(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [str(place / "corpus"), str(tmp_path), f"--start={place / 'start.pt'}", "--utterances=2"]
    judge_tests.main([*options, f"--adversarial={place / 'adversarial.pt'}", f"--judge=j={place / 'judge'}"])
    assert "j: fooled by" in capsys.readouterr().out
    entry = json.loads((tmp_path / "record.json").read_text())[0]
    assert entry["hash"] == Judge.load(place / "judge").content_hash() and set(entry["fooled_by"]) <= set(REFERENCES)
    judges = {"mine": place / "judge"}
    assert "no record" in notes(judges, tmp_path / "none.json")[0]
    said = "judge mine: fooled by open_start{}; use it with the veto only"
    for fooled, after, lines in (
        ([], [], []),
        (["open_start"], [], [said.format("")]),
        (["open_start"], ["open_start"], [said.format(", even after the veto")]),
    ):
        (tmp_path / "known.json").write_text(json.dumps([entry | {"fooled_by": fooled, "fooled_after_veto": after}]))
        assert notes(judges, tmp_path / "known.json") == lines
