"""What the pages state of the fourth protocol's runs, worked out again from the published rows, without the harness."""

from __future__ import annotations

import csv
import gzip
import math
import re
from pathlib import Path
from statistics import mean

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "findings.md").read_text(encoding="utf-8")
SETS = ("adapted", "other", "new")


class Rows:
    """Last checkpoints of a set: {run: {speaker: mean of a column over the speaker's sentences}}."""

    def __init__(self, name: str, suite: str = "prize") -> None:
        with gzip.open(
            DOCS / "results" / suite / name / "sequences.csv.gz", "rt", encoding="utf-8", newline=""
        ) as file:
            rows = [row for row in csv.DictReader(file) if float(row["gain"]) == 1]
        self.runs: dict[tuple[str, ...], list[dict[str, str]]] = {}
        for row in rows:
            place = tuple(row.get(key) or "" for key in ("variant", "start", "reward", "seed"))
            self.runs.setdefault(place, []).append(row)
        self.seeds = sorted({place[3] for place in self.runs if place[0] == "gdpo"})

    def of(self, place: tuple[str, ...], column: str) -> float:
        voices: dict[str, list[float]] = {}
        for row in self.runs[place]:
            value = float(row[column] or "nan")
            if math.isfinite(value):
                voices.setdefault(row["subject"], []).append(value)
        return mean(mean(each) for each in voices.values())

    def differences(self, column: str) -> tuple[float, float]:
        """GDPO minus its control, and the control, over starts, rewards and seeds."""
        ours, theirs = [], []
        for start, reward, seed in sorted({place[1:] for place in self.runs if place[0] == "gdpo"}):
            ours.append(self.of(("gdpo", start, reward, seed), column))
            theirs.append(self.of(("control", start, "", seed), column))
        return mean(ours) - mean(theirs), mean(theirs)


@pytest.fixture(scope="module")
def rows() -> dict[str, Rows]:
    return {name: Rows(name) for name in SETS}


def cells(label: str) -> list[str]:
    line = next(line for line in PAGE.splitlines() if line.startswith(f"| {label}"))
    return [cell.strip(" *") for cell in line.strip("|").split("|")]


def signed(text: str) -> float:
    return float(re.match(r"[*]*([+-][\d.]+)", text)[1])  # type: ignore[index]


def test_all_of_it_is_published(rows: dict[str, Rows]) -> None:
    for each in rows.values():
        assert each.seeds == ["0", "1"]
        assert sum(place[0] == "gdpo" for place in each.runs) == 12
        assert sum(place[0] in ("placebo", "gradient") for place in each.runs) == 12


@pytest.mark.parametrize(("label", "column"), [("true distance", "true_distance"), ("lip error", "lve")])
def test_percentages(rows: dict[str, Rows], label: str, column: str) -> None:
    told = [signed(cell) for cell in cells(label)[1:]]
    found = [100 * difference / control for difference, control in (rows[name].differences(column) for name in SETS)]
    assert told == [pytest.approx(each, abs=0.5) for each in found]
    if column == "true_distance":
        base = [f"{1e3 * rows[name].differences(column)[1]:.2f}".lstrip("0") for name in SETS]
        assert " / ".join(base) in cells(label)[0]
        assert f"falls by {-told[0]:.0f}% on" in (text := " ".join((DOCS.parent / "README.md").read_text().split()))
        assert f"rises by {told[1]:.0f}% on others" in text and told[1] == told[2]


@pytest.mark.parametrize(
    ("label", "column"),
    [("judge, lip", "judge_lip_score"), ("second judge", "second_lip_score"), ("closure", "closure_rate"),
     ("false closure", "false_closure_rate"), ("amplitude", "amplitude_ratio")],
)  # fmt: skip
def test_differences(rows: dict[str, Rows], label: str, column: str) -> None:
    told = [signed(cell) for cell in cells(label)[1:]]
    assert told == [pytest.approx(rows[name].differences(column)[0], abs=0.00051) for name in SETS]


def test_from_scratch() -> None:
    adapted, other, new = (Rows(name, "prize_scratch") for name in SETS)
    text = " ".join(PAGE.split())
    told = re.search(r"true distance -(\d+)% .*? LVE -(\d+)%, closure \+(\.\d+), amplitude \+(\.\d+)", text)
    assert told is not None
    for found, column in zip(told.groups()[:2], ("true_distance", "lve"), strict=True):
        difference, control = adapted.differences(column)
        assert float(found) == pytest.approx(-100 * difference / control, abs=0.5)
    for found, column in zip(told.groups()[2:], ("closure_rate", "amplitude_ratio"), strict=True):
        assert float(found) == pytest.approx(adapted.differences(column)[0], abs=0.005)
    assert abs(adapted.differences("judge_lip_score")[0]) < 0.005
    elsewhere = re.search(r"other sentences -(\d+)%, new voices -(\d+)%", text)
    assert elsewhere is not None
    for found, rows in zip(elsewhere.groups(), (other, new), strict=True):
        difference, control = rows.differences("true_distance")
        assert float(found) == pytest.approx(-100 * difference / control, abs=0.5)
    assert f"it falls by {told[1]}% and {elsewhere[1]}%" in " ".join((DOCS.parent / "README.md").read_text().split())
