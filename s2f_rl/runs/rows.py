"""Metrics rows: one JSON object per line, the record that tables and tests are made from.

A column whose name starts with ``time/`` was measured by a clock; every other column of a resumed run equals
that of the unbroken run (:func:`without_times` drops the clock).
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from s2f_rl.data.files import atomic_write_text
from s2f_rl.errors import UserError
from s2f_rl.provenance import package_versions, source_commit

Row = dict[str, Any]
"""One line of ``metrics.jsonl``: numbers, words, truth values, null; ``versions`` is a mapping."""
TIME_PREFIX = "time/"
logger = logging.getLogger(__name__)


class TakesRows(Protocol):
    """What rows are fed to: a :class:`~s2f_rl.runs.loggers.RunLogger`, or anything else with its method."""

    def log_row(self, row: Row) -> None: ...


L = TypeVar("L", bound=TakesRows)


class MetricsRows:
    """Appends rows to a file and survives a kill.

    Every row gets ``kind``, ``iteration``, ``frames``, ``seed``, ``commit`` and ``versions``. Write the rows of an
    iteration *before* its checkpoint: rows beyond the checkpoint are then cut off on resume, and none is missing.

    Every row reaches the logger of :meth:`feed` once, whenever the run was killed: the file is the record, what the
    logger shows is made from it.

    Args:
        path: the ``.jsonl`` file; created with the first row.
        seed: seed of the run, written into each row.

    Example:
        >>> rows = MetricsRows(folder.path / "metrics.jsonl", seed=0)          # doctest: +SKIP
        >>> rows.append({"reward": 0.7, "time/collect_s": 1.2}, iteration=1, frames=800)  # doctest: +SKIP
    """

    def __init__(self, path: str | Path, seed: int = 0) -> None:
        self.path = Path(path)
        self.seed = seed
        self._logger: TakesRows | None = None

    def feed(self, logger: L) -> L:
        """Hand ``logger`` every row, those that are there at once and each further one as it comes; returns it.

        Call it after :meth:`cut_after`, with an empty logger, as :func:`~s2f_rl.runs.loggers.make_logger` gives it.
        """
        for row in read_rows(self.path) if self.path.exists() else ():
            logger.log_row(row)
        self._logger = logger
        return logger

    def append(self, values: Mapping[str, object], iteration: int, frames: int = 0, kind: str = "train") -> Row:
        """Write one row and return it. Values: numbers, strings, booleans, None or one-element tensors."""
        row: Row = {"kind": kind, "iteration": int(iteration), "frames": int(frames), "seed": self.seed}
        row.update(commit=source_commit(), versions=package_versions())
        row.update({key: _plain(value) for key, value in values.items()})
        line = json.dumps(row, allow_nan=False) + "\n"
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        if self._logger is not None:
            self._logger.log_row(row)
        return row

    def cut_after(self, iteration: int) -> None:
        """Drop every row beyond ``iteration`` and a last line that a kill left half written.

        Rows that are missing before it, which no kill leaves, are warned of.
        """
        kept = [row for row in read_rows(self.path) if row["iteration"] <= iteration] if self.path.exists() else []
        missing = set(range(1, iteration + 1)) - {row["iteration"] for row in kept}
        if missing:
            logger.warning(
                "%s: lacks the rows of %d of %d iterations, so curves and tables will; restore the file to have them",
                self.path, len(missing), iteration,
            )  # fmt: skip
        if self.path.exists():
            atomic_write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))


def read_rows(path: str | Path) -> list[Row]:
    """All whole rows of a metrics file, oldest first; a half-written last line is left out.

    Raises:
        UserError: the file is missing or a line before the last is no row.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as metrics rows; check the path") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not isinstance(row.get("iteration"), int):
                raise ValueError("no iteration")
        except ValueError as error:
            if number == len(lines):
                break
            raise UserError(f"{path}: line {number} is not a metrics row; restore or remove the file") from error
        rows.append(row)
    return rows


def without_times(row: Mapping[str, object]) -> Row:
    """The row without its clock columns: what must be equal in two runs of the same seed."""
    return {key: value for key, value in row.items() if not key.startswith(TIME_PREFIX)}


def _plain(value: object) -> object:
    """A JSON value: one-element tensors and numpy scalars become numbers; what is not finite becomes null."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
