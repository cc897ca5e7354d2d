"""A suite's results in the form that is committed: the rows from which the page is made again, and not more.

``suite.json`` and ``runs.jsonl`` as they are, and in ``sequences.csv.gz`` what the tables are made of: last checkpoints
without gains, five digits. ``curves.jsonl`` is left out: figures of training need the suite's own folder. The bytes
depend on the rows alone.
"""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

from benchmarks.harness.results import Results
from s2f_rl.data.files import atomic_write_bytes, atomic_write_json

ABOUT = ("variant", "start", "reward", "seed", "checkpoint", "gain", "utterance", "subject", "condition")


def publish(results: Results, out: Path) -> None:
    """Write the rows of results into ``out``."""
    columns = sorted({column for measure in results.measures for column in measure.columns})
    named = [c for c in sorted({c for row in results.sequences for c in row}) if c.startswith("train_reward_")]
    rows = [
        row for row in results.sequences if row["checkpoint"] in ("last", "truth") and row["gain"] == 1.0
    ]  # fmt: skip
    kept = [c for c in (*ABOUT, *dict.fromkeys([*columns, *named])) if any(c in row for row in rows)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(kept)
    for row in rows:
        writer.writerow(
            [f"{v:.5g}" if isinstance(v := row.get(c, ""), float) and v == v else "" if v != v else v for c in kept]
        )
    lines = (results.folder / "runs.jsonl").read_bytes()
    about = {"suite": results.suite, "set": results.set, "machine": results.machine}
    out.mkdir(parents=True, exist_ok=True)
    atomic_write_json(out / "suite.json", about)
    atomic_write_bytes(out / "runs.jsonl", lines)
    atomic_write_bytes(out / "sequences.csv.gz", gzip.compress(text.getvalue().encode(), 9, mtime=0))
