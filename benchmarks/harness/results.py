"""Results of a suite as the report needs them: rows by variant, measures by run, pairs with the control."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.gather import read_sequences
from benchmarks.harness.scores import SCORES, score_columns
from benchmarks.harness.statistics import Floats
from s2f_rl.data.files import load_json
from s2f_rl.errors import UserError

Row = dict[str, Any]
REFERENCES = ("truth", "start")


@dataclass(frozen=True)
class Measure:
    """A column of the tables.

    ``columns`` are added up, times ``factor``. ``aim``: up, down, one (a ratio to the ground truth) or none.
    ``closed`` turns it into the share of the way from the start's value to the ground truth's.
    """

    label: str
    columns: tuple[str, ...]
    factor: float = 1.0
    digits: int = 3
    aim: str = "up"
    closed: bool = False


def measures(judges: list[str]) -> list[Measure]:
    """Every measure of the main table, in order; a judge is a model that nothing is trained against."""
    train = score_columns()
    found = [Measure("train reward", train), Measure("train, share of gap closed", train, closed=True, digits=2)]
    for judge in judges:
        found += [Measure(f"{judge} {name}", score_columns(judge, (name,))) for name in SCORES]
        found.append(Measure(f"{judge}, share of gap closed", score_columns(judge), closed=True, digits=2))
    return [
        *found,
        Measure("LVE mm²", ("lve",), 1e6, 2, "down"),
        Measure("|FDD| mm²", ("fdd_abs",), 1e6, 3, "down"),
        Measure("MTM frames", ("mtm",), 1.0, 2, "down"),
        Measure("closure rate", ("closure_rate",), 1.0, 2),
        Measure("jitter ratio", ("jitter_ratio",), 1.0, 2, "one"),
        Measure("amplitude ratio", ("amplitude_ratio",), 1.0, 2, "one"),
        Measure("true distance mm", ("true_distance",), 1e3, 3, "down"),
        Measure("updates", ("updates",), 1.0, 0, "none"),
        Measure("frames/s", ("frames_per_s",), 1.0, 0, "none"),
    ]


class Runs:
    """The rows of runs alone, as ``docs/results`` keeps them.

    Args:
        rows: of ``runs.jsonl``.
        judges: their names, which begin the columns of their scores (:mod:`benchmarks.harness.scores`).
    """

    def __init__(self, rows: Iterable[Row], judges: Iterable[str]) -> None:
        rows = list(rows)
        self.failed = [row for row in rows if row["status"] != "done"]
        self.rows = [row for row in rows if row["status"] == "done"]
        self.judges = list(judges)
        self.measures = [m for m in measures(self.judges) if any(set(m.columns) <= set(row) for row in self.rows)]
        trained = [row for row in self.rows if row["seed"] is not None]
        self.control_of: dict[str, str | None] = {row["variant"]: row["control"] for row in trained}
        self.controls = [name for name, control in self.control_of.items() if control is None]
        self.variants = [name for name, control in self.control_of.items() if control is not None]
        self.starts = sorted({row["start"] for row in trained})
        self.seeds = sorted({row["seed"] for row in trained})
        keys = ((row["variant"], row["start"], row["seed"], row["checkpoint"], row["gain"]) for row in self.rows)
        self._by_key: Mapping[Any, Row] = dict(zip(keys, self.rows, strict=True))

    def row(
        self, variant: str, start: str | None, seed: int | None, checkpoint: str = "last", gain: float = 1.0
    ) -> Row | None:
        """The row of a run's checkpoint, or None."""
        if variant == "truth":
            start, seed, checkpoint = None, None, "truth"
        elif variant == "start":
            seed = None
        return self._by_key.get((variant, start, seed, checkpoint, gain))

    def value(self, row: Row | None, measure: Measure) -> float:
        """The measure of a row, nan where it was not measured."""
        plain = _sum(row, measure.columns) * measure.factor
        if not measure.closed or row is None:
            return plain
        # the ground truth belongs to no start: its gap is closed from any of them
        start = row["start"] if row["start"] is not None else self.starts[0]
        begin = _sum(self.row("start", start, None), measure.columns)
        gap = _sum(self.row("truth", None, None), measure.columns) - begin
        return (plain - begin) / gap if gap > 0 else math.nan  # a start that beats the truth leaves no gap to close

    def scores(self, variant: str, measure: Measure, checkpoint: str = "last", gain: float = 1.0) -> Floats:
        """[seeds, starts] of a variant; seeds that miss a start (a failed run) are left out."""
        if variant in REFERENCES:
            found = [[self.value(self.row(variant, start, None), measure) for start in self.starts]]
        else:
            found = [
                [self.value(self.row(variant, start, seed, checkpoint, gain), measure) for start in self.starts]
                for seed in self.seeds
            ]
        array = np.asarray(found, dtype=float).reshape(len(found), len(self.starts))
        return array[np.isfinite(array).all(axis=1)]

    def whole(self, variant: str) -> int:
        """Rows that :meth:`scores` of a variant has when nothing is left out."""
        return 1 if variant in REFERENCES else len(self.seeds)

    def partly_measured(self) -> dict[str, tuple[int, int]]:
        """Label -> fewest sequences that a measure is the mean of in a last checkpoint, and all; others are whole."""
        found: dict[str, tuple[int, int]] = {}
        for measure in self.measures:
            if "true_distance" in measure.columns:  # few are chosen for it, which is told apart
                continue
            for row in self.rows:
                missing = max((row.get("not_measured", {}).get(column, 0) for column in measure.columns), default=0)
                if missing and row["gain"] == 1.0 and row["checkpoint"] != "best":
                    n = row["sequences"]
                    found[measure.label] = min(found.get(measure.label, (n, n)), (n - missing, n))
        return found

    def pairs(self, variant: str, measure: Measure, checkpoint: str = "last") -> tuple[Floats, Floats]:
        """[seeds, starts] of a variant and of its control, the seeds that both have."""
        control = str(self.control_of[variant])
        both = [
            [
                [self.value(self.row(name, start, seed, checkpoint), measure) for start in self.starts]
                for seed in self.seeds
            ]
            for name in (variant, control)
        ]
        array = np.asarray(both, dtype=float).reshape(2, len(self.seeds), len(self.starts))
        kept = array[:, np.isfinite(array).all(axis=(0, 2))]
        return kept[0], kept[1]


class Results(Runs):
    """A folder that :func:`~benchmarks.harness.gather.gather` wrote.

    Args:
        folder: with ``runs.jsonl``, ``sequences.csv``, ``curves.jsonl`` and ``suite.json``.

    Raises:
        UserError: a file is missing or damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        about = load_json(self.folder / "suite.json")
        self.suite: Row = about["suite"]
        self.machine: Row = about["machine"]
        super().__init__(read_lines(self.folder / "runs.jsonl"), self.suite["judges"])
        # what a column of samples was called until 0.1 is now the name of a measure of predictions alone
        self.curves = [
            {"sampled_amplitude_ratio" if key == "amplitude_ratio" else key: value for key, value in row.items()}
            for row in read_lines(self.folder / "curves.jsonl")
        ]
        self.sequences = read_sequences(self.folder / "sequences.csv")

    def curve(self, variant: str, column: str) -> tuple[Floats, Floats]:
        """Frames [K] (mean over runs) and values [runs, K] of a metrics column, at iterations that all runs have."""
        runs: dict[tuple[str, int], dict[int, tuple[float, float]]] = {}
        for row in self.curves:
            value = row.get(column)
            if row["variant"] == variant and value is not None:
                runs.setdefault((row["start"], row["seed"]), {})[row["iteration"]] = (row["frames"], value)
        if not runs:
            return np.zeros(0), np.zeros((0, 0))
        shared = sorted(set.intersection(*(set(run) for run in runs.values())))
        table = np.asarray([[run[i] for i in shared] for run in runs.values()], dtype=float)
        table = table.reshape(len(runs), len(shared), 2)
        return table[..., 0].mean(0), table[..., 1]

    def sequence_scores(self, variant: str, columns: tuple[str, ...]) -> list[Floats]:
        """For every run of a variant the sum of ``columns`` of each sequence (last checkpoint)."""
        runs: dict[tuple[str, str], list[float]] = {}
        wanted = "truth" if variant == "truth" else "last"
        for row in self.sequences:
            if row["variant"] == variant and row["checkpoint"] == wanted and row["gain"] == 1.0:
                runs.setdefault((row["start"], row["seed"]), []).append(_sum(row, columns))
        return [np.asarray(values)[np.isfinite(values)] for values in runs.values()]


def _sum(row: Mapping[str, Any] | None, columns: tuple[str, ...]) -> float:
    if row is None:
        return math.nan
    values = [row.get(column) for column in columns]
    return math.nan if None in values else float(sum(values))  # type: ignore[arg-type]


def read_lines(path: Path) -> list[Row]:
    """Rows of a file of one JSON object a line. Raises UserError, naming the file, if it holds anything else."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as rows of results; run the suite again") from error
