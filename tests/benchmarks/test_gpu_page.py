"""The page about GPUs holds the tables of its results file."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.speed.gpu_page import filled

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_that_of_the_results():
    """After another run: python benchmarks/speed/gpu_page.py."""
    results = json.loads((DOCS / "results/speed/gpu.json").read_text())
    page = (DOCS / "gpu.md").read_text(encoding="utf-8")
    assert filled(page, results) == page and page.count("<!-- end -->") == 15


def test_tables():
    text = "<!-- machine -->\nold\n<!-- end -->\nkept\n<!-- Scores -->\n<!-- end -->\n<!-- Recipes -->\n<!-- end -->\n"
    rows = [{"lanes": 1024, "ms": 0.12345}, {"lanes": 8, "share": 0.5}]
    found = filled(text, {"device": "card", "torch": "2.0", "Scores of clips": rows})
    assert "card, torch 2.0." in found and "kept" in found and "old" not in found
    assert "| lanes | ms | share |\n|---|---|---|\n| 1,024 | 0.123 |  |\n| 8 |  | 0.5 |" in found
    assert "<!-- Recipes -->\n\nNot in these results." in found
