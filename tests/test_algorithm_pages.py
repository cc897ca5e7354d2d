"""``docs/algorithms``: every recipe that trains an actor has a page, and its table of keys is that of its config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from config_tools import composed

from s2f_rl.runs.schema import keys_of
from s2f_rl.schemas import SCHEMAS
from s2f_rl.schemas.rl import RL, Credited

PAGES = Path(__file__).resolve().parents[1] / "docs" / "algorithms"
ALGORITHMS = sorted(name for name, schema in SCHEMAS.items() if issubclass(schema, RL))
HEADINGS = ["Objective", "Source", "Keys", "Its curve", "Its figures", "When to use it"]


def stated_keys(page: str) -> dict[str, str]:
    """Key -> default of the table of keys of a page."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    lines = text.split("| key | default | meaning |\n")[1].split("\n\n")[0].splitlines()[1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {key.strip("`"): default for key, default, *_ in cells}


def looked_up(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


def written(value: Any) -> str:
    """As a page writes it."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("recipe", [*ALGORITHMS, "supervised"])
def test_defaults_are_those_of_the_config(recipe: str) -> None:
    stated = stated_keys(recipe)
    assert {key: written(looked_up(composed(recipe), key)) for key in stated} == stated


def test_shared_defaults() -> None:
    stated = stated_keys("index")
    config = composed("ppo")  # sets none of them itself
    assert {key: written(looked_up(config, key)) for key in stated} == stated


@pytest.mark.parametrize("recipe", ALGORITHMS)
def test_every_key_of_its_own_is_told(recipe: str) -> None:
    own = set(keys_of(SCHEMAS[recipe])) - set(keys_of(Credited))
    top = {key.split(".")[0] for key in stated_keys(recipe)}
    assert own <= top


def test_figures_of_gdpo_are_its_rows() -> None:
    names = {
        "supervised start": "start", "control": "control_grpo", "GRPO": "grpo", "GDPO": "gdpo",
        "GRPO, closure beside it": "grpo_closure", "GDPO, closure beside it": "gdpo_closure",
    }  # fmt: skip
    columns = [("judge_lip_score", 3), ("judge_real_score", 3), ("closure_rate", 2), ("false_closure_rate", 3)]
    rows = [json.loads(line) for line in (PAGES.parent / "results/parts/runs.jsonl").read_text().splitlines()]
    lines = (PAGES / "gdpo.md").read_text(encoding="utf-8").split("## Its figures")[1].splitlines()
    table = {
        cells[0]: cells[1:] for cells in ([c.strip() for c in line.split("|")[1:-1]] for line in lines if "|" in line)
    }
    for name, variant in names.items():
        own = [row for row in rows if row["variant"] == variant and row["checkpoint"] == "last"]
        assert len(own) == (1 if variant == "start" else 3)
        means = [f"{sum(row[c] for row in own) / len(own):.{n}f}".lstrip("0") for c, n in columns]
        assert table[name] == [*means, f"{1e6 * sum(row['lve'] for row in own) / len(own):.2f}"]


def test_every_algorithm_has_a_page() -> None:
    pages = {path.stem for path in PAGES.glob("*.md")} - {"index"}
    assert pages == {*ALGORITHMS, "supervised"}
    index = (PAGES / "index.md").read_text(encoding="utf-8")
    for page in sorted(pages):
        text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
        assert f"({page}.md)" in index
        assert [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")] == HEADINGS, page
