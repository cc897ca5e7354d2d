"""Rows on disk: csv, and parquet where pyarrow is installed."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from s2f_rl.data.files import atomic_path
from s2f_rl.errors import UserError

Row = dict[str, Any]
FORMATS = ("csv", "parquet")


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Rows as csv or, when the name ends in ``.parquet``, as parquet, atomically.

    The columns are the union over the rows, in order of first appearance.

    Raises:
        UserError: parquet without pyarrow.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if Path(path).suffix == ".parquet":
        require_format("parquet")
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table({column: [row.get(column) for row in rows] for column in columns})
        with atomic_path(path) as temporary:
            pyarrow.parquet.write_table(table, temporary)
        return
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def require_format(rows_format: str) -> None:
    """Raise `UserError` unless rows can be written as ``csv`` or ``parquet``, before any work is done for them."""
    if rows_format not in FORMATS:
        raise UserError(f"rows_format={rows_format!r}: use {' or '.join(FORMATS)}")
    if rows_format == "parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise UserError(
                "rows_format=parquet: pyarrow is not installed; pip install 's2f_rl[parquet]' or use csv"
            ) from None


def long_rows(rows: Iterable[Row], definitions: Mapping[str, Mapping[str, object]]) -> list[Row]:
    """One row for each value: utterance, subject, condition, measure, metric, version, unit, mask, value.

    Columns without a definition are the scores of reward models: ``metric`` is ``reward_score``, the version and the
    model's hash stand in the summary.
    """
    out = []
    for row in rows:
        about = {key: row[key] for key in ("utterance", "subject", "condition")}
        for column, value in row.items():
            if not isinstance(value, float):
                continue
            plain = column.rpartition("_")[2] if column.endswith("_plrs") else column
            known = definitions.get(plain, {"metric": "reward_score", "version": None, "unit": "1", "mask": None})
            shown = {key: known[key] for key in ("metric", "version", "unit", "mask")}
            out.append({**about, "measure": column, **shown, "value": value})
    return out
