"""The report as one HTML page that needs no other file, and as markdown."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness.results import Results
from benchmarks.harness.tables import Table

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.6rem}h2{font-size:1.15rem;margin:2rem 0 .3rem}p{margin:.2rem 0 .6rem;max-width:60rem;color:#444}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:12.5px;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #e3e6ea;white-space:nowrap}
tbody th,thead th:first-child{text-align:left}thead th{border-bottom:2px solid #999}tbody tr:hover{background:#f5f7fa}
tbody th{position:sticky;left:0;background:#fff}img{max-width:100%}figure{margin:0}pre{font-size:12px;overflow-x:auto}
"""


def facts(results: Results) -> str:
    """What was run, on what, from which source: one line of plain text."""
    suite, machine = results.suite, results.machine
    commits = sorted({str(row["commit"]) for row in results.rows if row.get("commit")})
    trained = [row for row in results.rows if row["seed"] is not None]
    n_runs = len({(row["variant"], row["start"], row.get("reward"), row["seed"]) for row in trained})
    versions = sorted({str(row["versions"]) for row in results.rows if row.get("versions")})
    told = (
        "machine not recorded"
        if machine is None
        else f"{machine['cores']} cores, {machine['jobs']} runs side by side, "
        f"{machine['system']} {machine['architecture']}"
    )
    parts = [
        f"suite {suite['name']}",
        f"{n_runs} runs: {len(results.variants)} variants, {len(results.controls)} controls, seeds {suite['seeds']}",
        results.where,
        told,
        str(machine["versions"]) if machine else ", ".join(versions) or "versions unknown",
        f"commit {', '.join(commits) or 'unknown'}",
    ]
    if lost := [name for name in results.missing if name != "curves.jsonl"]:  # no table needs those
        parts.append(f"made without {' and '.join(lost)}, not kept")
    return "; ".join(parts)


def write_markdown(path: Path, results: Results, tables: Sequence[Table]) -> None:
    """All tables as markdown."""
    from s2f_rl.data.files import atomic_write_text

    text = f"# Benchmark: {results.suite['name']}\n\n{facts(results)}\n\n"
    atomic_write_text(path, text + "\n".join(table.markdown() for table in tables))


def write_page(
    path: Path, results: Results, tables: Sequence[Table], figures: Sequence[tuple[str, str, Path]], first: int = 1
) -> None:
    """Tables and figures on one page; the figures are inside it. The ``first`` tables come before the figures."""
    from s2f_rl.data.files import atomic_write_text

    pictures = []
    for title, note, file in figures:
        data = base64.b64encode(file.read_bytes()).decode()
        pictures.append(
            f"<section><h2>{html.escape(title)}</h2><p>{html.escape(note)}</p><figure>"
            f'<img alt="{html.escape(title)}" src="data:image/png;base64,{data}"></figure></section>\n'
        )
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Benchmark: {html.escape(results.suite['name'])}</title><style>{STYLE}</style></head><body>",
        f"<h1>Benchmark: {html.escape(results.suite['name'])}</h1><p>{html.escape(facts(results))}</p>",
        *(table.html() for table in tables[:first]),
        *pictures,
        *(table.html() for table in tables[first:]),
        "</body></html>\n",
    ]
    atomic_write_text(path, "".join(parts))
