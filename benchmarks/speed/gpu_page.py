"""Puts the results of `gpu.py` into docs/gpu.md: each table between its mark ``<!-- title -->`` and ``<!-- end -->``.

python benchmarks/speed/gpu_page.py [--results docs/results/speed/gpu.json] [--page docs/gpu.md]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a script

from benchmarks.speed.page import table  # noqa: E402
from s2f_rl.data.files import atomic_write_text  # noqa: E402

_SHORT = {"Iterations": re.compile(r"precision|stride|lanes|.*frames/s|share of the peak|peak GB")}
"""Columns that are shown of tables with more."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("docs/results/speed/gpu.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/gpu.md"))
    options = parser.parse_args()
    text = options.page.read_text(encoding="utf-8")
    atomic_write_text(options.page, filled(text, json.loads(options.results.read_text(encoding="utf-8"))))


def filled(text: str, results: Mapping[str, Any]) -> str:
    """The page with every table as the results have it; a mark stands for all titles that begin with it."""

    def body(mark: re.Match[str]) -> str:
        found = machine(results) if mark[1] == "machine" else tables(results, mark[1])
        return f"<!-- {mark[1]} -->\n\n{found or 'Not in these results.'}\n\n<!-- end -->"

    return re.sub(r"<!-- (?!end)(.+?) -->\n.*?<!-- end -->", body, text, flags=re.DOTALL)


def machine(results: Mapping[str, Any]) -> str:
    known = ("device", "driver", "torch", "python")
    return ", ".join(f"{key} {results[key]}".removeprefix("device ") for key in known if key in results) + "."


def tables(results: Mapping[str, Any], title: str) -> str:
    wanted = _SHORT.get(title, re.compile(".*"))
    found = []
    for name, rows in results.items():
        if name.startswith(title) and isinstance(rows, list):
            columns = [c for c in dict.fromkeys(key for row in rows for key in row) if wanted.fullmatch(c)]
            found.append(table(columns, [[_thousands(row.get(column, "")) for column in columns] for row in rows]))
    return "\n\n".join(found)


def _thousands(value: object) -> object:
    return f"{value:,.0f}" if isinstance(value, (int, float)) and abs(value) >= 1000 else value


if __name__ == "__main__":
    main()
