"""The benchmark of speed: its reference is equal to what it is compared with, and its page holds what was measured."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from benchmarks.speed import long, page, reference
from benchmarks.speed.full_size import TINY, Task
from benchmarks.speed.measures import Operations
from benchmarks.speed.run import measured
from s2f_rl.products import linear

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict:
    path = tmp_path_factory.mktemp("speed") / "results.json"
    measured(path, tiny=True)
    return json.loads(path.read_text())


def test_the_reference_gives_the_same_motion_scores_losses_and_gradient():
    row = reference.compare(Task(TINY, torch.device("cpu")))
    differences = {key: value for key, value in row.items() if key.endswith("differs")}
    assert len(differences) == 6 and max(differences.values()) < 1e-4, differences
    assert all(row[part] > 0 for part in ("collect", "reward", "update"))


def test_operations_of_a_linear_layer():
    x, weight = torch.randn(5, 3, 7), torch.randn(11, 7)
    with torch.no_grad(), Operations() as counter:
        linear(x, weight)
        x.flatten(0, 1) @ weight.T
    assert counter.count == 2 * 2 * 15 * 7 * 11


def test_the_page_holds_every_section(results, tmp_path):
    copy = tmp_path / "speed.md"
    shutil.copy(ROOT / "docs" / "speed.md", copy)
    page.write(copy, results)
    text = copy.read_text()
    for name, body in page.sections(results).items():
        assert f"<!-- {name} -->\n\n{body}\n\n<!-- end -->" in text
    page.write(copy, results)
    assert copy.read_text() == text
    assert (tmp_path / "images" / "speed_profile.png").stat().st_size > 1000


def test_ratios_of_the_goals(results):
    results = {**results, "reference": {**results["reference"], "frames/s": 2.0}}
    for row, speed in zip(results["iterations"], (100.0, 1.0, 219.0, 1.0, 88.0, 1.0, 230.0, 1.0), strict=True):
        row["frames/s"] = speed
    found = [(value, met) for _, _, value, met in page.goals(results)][:4]
    assert found == [(50.0, True), (109.5, False), (44.0, False), (115.0, True)]


def test_lengths_are_kept_once_and_drawn(tmp_path):
    kept = tmp_path / "long.json"
    for encoder, frames, peak in (("mel", 1800, 9.0), ("mel", 100, 2.0), ("wav2vec2", 100, 3.0), ("mel", 1800, 5.0)):
        long.keep(kept, {"encoder": encoder, "frames": frames, "seconds": 1.0, "cpu": 1.0, "peak_mb": peak})
    rows = json.loads(kept.read_text())
    assert [(row["encoder"], row["frames"], row["peak_mb"]) for row in rows] == [
        ("mel", 100, 2.0), ("mel", 1800, 5.0), ("wav2vec2", 100, 3.0),
    ]  # fmt: skip
    long.plot(rows, tmp_path / "long.png")
    assert (tmp_path / "long.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_on_long_recordings_holds_what_was_measured():
    text = (ROOT / "docs/how-to/long_recordings.md").read_text(encoding="utf-8")
    rows = json.loads((ROOT / "docs/results/long.json").read_text(encoding="utf-8"))
    assert len(rows) >= 7
    for row in rows:
        encoder = {"wav2vec2": "wav2vec2-base"}.get(row["encoder"], row["encoder"])
        line = next(x for x in text.splitlines() if re.match(rf"\| {encoder} \| {row['frames']:,}( |\b)", x))
        cpu, peak = line.split("|")[3:5]
        assert int(cpu) == round(row["cpu"]) and int(peak) == round(row["peak_mb"])
