"""The report of a suite's results: a page that needs no other file, its figures as PNGs, its tables as markdown.

python benchmarks/report.py checkpoints/benchmarks/algorithms/results/validation [--out FOLDER]
python benchmarks/report.py FOLDER --publish docs/results/NAME   # rows to commit, and report.md made from them
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.harness import evidence, tables
from benchmarks.harness.page import write_markdown, write_page
from benchmarks.harness.publish import publish
from benchmarks.harness.results import Results
from benchmarks.harness.tables import Table
from s2f_rl.errors import UserError
from s2f_rl.runs.mistakes import mistake_line


def write_report(folder: Path, out: Path) -> Path:
    """Write ``report.html``, ``report.md`` and the PNGs into ``out``; returns the page.

    Raises:
        UserError: ``folder`` holds no results, or matplotlib is not installed.
    """
    results = Results(folder)
    made = all_tables(results)
    try:
        from benchmarks.harness.plots import draw_all

        parts = results.families
        figures = [
            (f"{title}: {name}", note, file)
            for name, part in parts.items()
            for title, note, file in draw_all(part, out / name)
        ] or draw_all(results, out)
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise UserError("matplotlib is not installed; pip install 's2f_rl[report]'") from error
    write_markdown(out / "report.md", results, made)
    write_page(out / "report.html", results, made, figures, first=4)
    return out / "report.html"


def all_tables(results: Results) -> list[Table]:
    """The tables of the report, in order: of a suite with families those of each, and one that compares them."""
    families = results.families
    if not families:
        return _tables(results)
    found = [tables.families_table(results)] if len(families) > 1 else []
    for name, part in families.items():
        found += [replace(table, title=f"{table.title}: {name}") for table in _tables(part)]
    return found


def _tables(results: Results) -> list[Table]:
    made = [
        tables.main_table(results),
        tables.differences_table(results),
        evidence.crossed_table(results),
        evidence.veto_table(results),
        tables.gap_table(results),
        tables.gain_table(results),
        tables.iqm_table(results),
        *([tables.best_table(results)] if "best" in results.suite.get("checkpoints", ["best"]) else []),
        tables.failed_table(results),
    ]
    return [tables.with_legend(table) for table in made]


def write_published(folder: Path, out: Path) -> Path:
    """Write the rows of results in the form that is committed, and ``report.md`` from those; returns that page."""
    publish(Results(folder), out)
    results = Results(out)
    write_markdown(out / "report.md", results, all_tables(results))
    return out / "report.md"


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit code: 0 or 2 (a mistake)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of results, as benchmarks/run.py names it at its end")
    parser.add_argument("--out", type=Path, help="where to write; default: the folder itself")
    parser.add_argument("--publish", type=Path, metavar="OUT", help="write the rows to commit, and report.md from them")
    options = parser.parse_args(arguments)
    try:
        if options.publish is not None:
            page = write_published(options.folder, options.publish)
        else:
            page = write_report(options.folder, options.out or options.folder)
    except (UserError, OSError) as error:
        if mistake_line(error) is None:
            raise
        print(f"error: {mistake_line(error)}", file=sys.stderr)
        return 2
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
