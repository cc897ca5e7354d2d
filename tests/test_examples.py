"""Every example runs as its README says, is short, and does what it claims."""

from __future__ import annotations

import importlib
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from s2f_rl.data import FaceCorpus, check_corpus
from tests.tiny import make_tiny_corpus

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*/*.py"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_corpus(tmp_path_factory.mktemp("examples") / "corpus")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_short_and_explained(script: Path) -> None:
    assert len(script.read_text(encoding="utf-8").splitlines()) < 60
    assert script.name in (script.parent / "README.md").read_text(encoding="utf-8")
    assert f"[{script.parent.name}]({script.parent.name})" in (EXAMPLES / "README.md").read_text(encoding="utf-8")


def run(name: str, *arguments: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script as a person does: ``python examples/NAME ARGUMENTS``."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def printed_number(capsys: pytest.CaptureFixture[str], pattern: str) -> float:
    found = re.search(pattern, capsys.readouterr().out)
    assert found is not None
    return float(found[1])


def test_metric(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run("metric/asymmetry.py", root, monkeypatch=monkeypatch)
    corpus, expected = FaceCorpus(root, split="all"), []
    for utterance in corpus:
        if utterance.vertices is None:
            continue
        rest = utterance.template.view(-1, 3)[corpus.regions["lips"]]
        moved = utterance.vertices.view(len(utterance.vertices), -1, 3)[:, corpus.regions["lips"]] - rest
        is_left = rest[:, 0] > rest[:, 0].mean()
        left = (
            sum(float(p @ p) for p in moved[:, is_left].flatten(0, 1)) / (3 * len(moved) * int(is_left.sum()))
        ) ** 0.5
        right = (
            sum(float(p @ p) for p in moved[:, ~is_left].flatten(0, 1)) / (3 * len(moved) * int((~is_left).sum()))
        ) ** 0.5
        expected.append(abs(left - right) / (left + right))
    assert printed_number(capsys, r"motion: ([0-9.]+)") == pytest.approx(sum(expected) / len(expected), abs=1e-3)


def test_reward(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    run("reward/jitter_reward.py", root, tmp_path / "out", monkeypatch=monkeypatch)
    assert 0 < printed_number(capsys, r"validation: ([0-9.]+)") < 1
    kind = importlib.import_module("examples.reward.jitter_reward").JitterReward
    corpus = FaceCorpus(root, split="all")
    truth = corpus[0].vertices
    assert truth is not None
    reward = kind(corpus, limit_mm=0.2)
    scores, _ = reward.score_motion(truth[None], [None], torch.ones(1, len(truth), dtype=torch.bool))["smooth_score"]
    lips = truth.view(len(truth), -1, 3)[:, corpus.regions["lips"]]
    for t in range(2, len(truth)):
        second = lips[t] - 2 * lips[t - 1] + lips[t - 2]
        rms_mm = 1e3 * (sum(float(p @ p) for p in second) / len(second)) ** 0.5
        assert float(scores[0, t]) == pytest.approx(1 / (1 + rms_mm / 0.2), abs=1e-4)


def test_actor(root: Path) -> None:
    """In a process of its own: its folder is where it finds the actor."""
    command = [sys.executable, str(EXAMPLES / "actor" / "tune.py"), str(root)]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    errors = [float(x) for x in re.findall(r"supervised \d+: ([0-9.]+)", done.stdout)]
    rewards = [float(x) for x in re.findall(r"reward (-[0-9.]+)", done.stdout)]
    assert len(errors) == 20 and sum(errors[-4:]) < 0.5 * sum(errors[:4]) and len(rewards) == 3


def test_corpus_in_memory(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run("corpus/in_memory.py", root, monkeypatch=monkeypatch)
    assert 0.01 < printed_number(capsys, r", ([0-9.]+) mm\^2") < 100


def test_corpus_converted(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, raw, out = FaceCorpus(root, split="all"), tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    recorded = [u for u in source if u.vertices is not None]
    for u in recorded:
        (raw / f"{u.name}.wav").write_bytes(source.wav(u.index).read_bytes())
        vertices = u.vertices
        assert vertices is not None
        twice = vertices.repeat_interleave(2, 0) * 1e3  # mm, at twice the rate
        np.savez(raw / f"{u.name}.npz", vertices=twice.view(len(twice), -1, 3).numpy())
    faces = {u.subject: 1e3 * u.template.view(-1, 3).numpy() for u in recorded}
    np.savez(raw / "neutral.npz", **faces)
    run("corpus/convert.py", raw, out, monkeypatch=monkeypatch)
    converted = FaceCorpus(out, split="train")
    assert converted.fps == 25 and converted.subjects == sorted(faces)[:-1]
    for u in converted:
        truth, found = source[u.name].vertices, u.vertices
        assert truth is not None and found is not None
        assert torch.allclose(found, truth[: len(found)], atol=1e-7)
    assert not [fault for fault in check_corpus(out) if "unit" in str(fault) or "scale" in str(fault)]
