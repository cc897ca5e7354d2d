"""The curve over what is heard, worked out again from the published rows, without the harness."""

from __future__ import annotations

import re
from statistics import mean

import pytest

from tests.benchmarks.test_findings_phones import DOCS, SETS, Rows

PAGE = (DOCS / "findings" / "phones.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("## How much must be heard") : PAGE.index("## What it took")]
CELLS = {
    "start": "start", "control": "control", "8 x 8": "v8s8", "8 x 24": "v8s24", "8 x 64": "v8s64", "32 x 8": "v32s8",
    "96 x 8": "v96s8", "encoder frozen: control": "control_frozen",
}  # fmt: skip


def lines() -> list[tuple[str, str, list[str]]]:
    """Of every row of the table its variant, its control and its cells."""
    found, frozen = [], ""
    for line in SECTION.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0] in CELLS:
            variant = CELLS[cells[0]]
            found.append((variant if "control" in variant else variant + frozen, "control" + frozen, cells[1:]))
            frozen = "_frozen" if variant == "control_frozen" else frozen
    return found


@pytest.fixture(scope="module")
def rows() -> dict[str, Rows]:
    return {name: Rows(name, "how_much") for name in SETS}


def distance(rows: Rows, variant: str) -> float:
    """True distance in mm, mean over the three starts."""
    places = [place for place in rows.runs if place[0] == variant]
    assert len(places) == 3
    return 1e3 * mean(rows.of(place, "true_distance") for place in places)


def test_every_cell(rows: dict[str, Rows]) -> None:
    assert len(lines()) == 10
    for variant, control, cells in lines():
        for k, name in enumerate(SETS):
            found = distance(rows[name], variant)
            assert float(cells[2 * k]) == pytest.approx(found, abs=0.00051), (variant, name)
            if difference := re.match(r"[+-][.\d]+", cells[2 * k + 1]):
                less = found - distance(rows[name], control)
                assert float(difference[0]) == pytest.approx(less, abs=0.00051), (variant, name)


def test_first_lines(rows: dict[str, Rows]) -> None:
    change = {
        (cell, name): 100 * (distance(rows[name], cell) / distance(rows[name], "control") - 1)
        for cell in ("v8s8", "v8s64", "v96s8")
        for name in SETS
    }
    told = re.search(r"\(([+-][\d.]+) to ([+][\d.]+)%\).*?shrinks from (\d)% to (\d)%\s+and (\d)%", SECTION, re.S)
    assert told is not None
    many = [change[cell, name] for cell in ("v8s64", "v96s8") for name in ("other", "new")]
    assert [float(told[1]), float(told[2])] == [pytest.approx(each, abs=0.051) for each in (min(many), max(many))]
    shrinks = [-change[cell, "adapted"] for cell in ("v8s8", "v8s64", "v96s8")]
    assert [float(each) for each in told.groups()[2:]] == [pytest.approx(each, abs=0.5) for each in shrinks]
