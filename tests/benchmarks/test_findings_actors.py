"""The table of FaceFormer and CodeTalker, worked out again from the published rows, without the harness."""

from __future__ import annotations

import csv
import re
from statistics import mean

import pytest

from tests.benchmarks.test_findings_phones import DOCS, Rows

PAGE = (DOCS / "findings" / "actors.md").read_text(encoding="utf-8")
STARTS = {"FaceFormer": ("first", "third", "fifth"), "CodeTalker": ("second", "fourth", "sixth")}
VARIANTS = {"supervised": "start", "control": "control", "RLOO, weight .5": "rloo", "RLOO, weight 4": "rloo_four"}
COLUMNS = (
    ("lip_score", 1, 2), ("judge_lip_score", 1, 3), ("second_lip_score", 1, 3), ("lve", 1e6, 2), ("closure_rate", 1, 2),
    ("false_closure_rate", 1, 2), ("amplitude_ratio", 1, 2), ("true_distance", 1e3, 3),
)  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> Rows:
    return Rows("", "actors")


def test_every_row(rows: Rows) -> None:
    table = PAGE[PAGE.index("| | train lip") : PAGE.index("- **RL against")]
    kind, seen = "FaceFormer", 0
    for line in table.splitlines()[3:]:
        if not line:
            continue
        label, *cells = (cell.strip(" *") for cell in line.strip("|").split("|"))
        name = label.rpartition("**, ")[2]
        kind = "CodeTalker" if "CodeTalker" in label else kind
        told = [float(each) for each in re.findall(r"\d*\.\d+", " ".join(cells))]
        places = [place for place in rows.runs if place[0] == VARIANTS[name] and place[1] in STARTS[kind]]
        assert len(places) == 3 and len(told) == len(COLUMNS), label
        for (column, unit, digits), value in zip(COLUMNS, told, strict=True):
            found = unit * mean(rows.of(place, column) for place in places)
            assert value == pytest.approx(found, abs=0.51 * 10**-digits), (label, column)
        seen += 1
    assert seen == 8


def test_takes() -> None:
    lines = [
        line for line in PAGE.splitlines() if re.match(r"\| (CodeTalker|FaceFormer|control|RLOO).*\d\.\d{3}, \d", line)
    ]
    assert len(lines) == 8
    for kind, own in (("codetalker", lines[:4]), ("faceformer", lines[4:])):
        with open(DOCS / "results" / "takes" / f"{kind}.csv", encoding="utf-8", newline="") as file:
            table = list(csv.DictReader(file))
        for checkpoint, line in zip(("start", "control", "rloo", "rloo_four"), own, strict=True):
            mine = [row for row in table if row["checkpoint"] == checkpoint]
            assert len(mine) == 16
            told = [float(each) for each in re.findall(r"\d*\.\d+", line.partition("|")[2].split("|", 1)[1])][:6]
            names = ("diversity_lips", "judge_plain", "judge_mean", "judge_picked", "judge_best", "coverage")
            for name, value, digits in zip(names, told, (3, 3, 3, 3, 3, 2), strict=True):
                unit = 1e3 if name == "diversity_lips" else 1
                assert value == pytest.approx(unit * mean(float(row[name]) for row in mine), abs=0.51 * 10**-digits)
