"""Results of a suite as the report needs them: rows by variant, measures by run, pairs with the control."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.gather import read_sequences
from benchmarks.harness.scores import SCORES, TRAIN_REWARD, score_columns
from benchmarks.harness.sets import told
from benchmarks.harness.statistics import Floats
from s2f_rl.data.files import load_json
from s2f_rl.errors import UserError

Row = dict[str, Any]
REFERENCES = ("truth", "start")
SEQUENCES = ("sequences.csv", "sequences.csv.gz")


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


TRAIN = "train reward"
"""Label of what a run was trained against."""


def measures(judges: list[str], columns: Iterable[str] = ()) -> list[Measure]:
    """Every measure of the main table, in order; a judge is a model that nothing is trained against.

    columns: of the rows, which tell what a judge scores that is no perceptual one, and whether rewards were added up.
    """
    columns = set(columns)
    train = (TRAIN_REWARD,) if any(column.startswith(TRAIN_REWARD) for column in columns) else score_columns()
    found = [Measure(TRAIN, train), Measure("train, share of gap closed", train, closed=True, digits=2)]
    for judge in judges:
        own = other_scores(judge, judges, columns)
        found += [Measure(f"{judge} {name}", score_columns(judge, (name,))) for name in SCORES]
        found += [Measure(judge_label(judge, column), (column,)) for column in own]
        found.append(Measure(f"{judge}, share of gap closed", own or score_columns(judge), closed=True, digits=2))
    return [
        *found,
        Measure("LVE mm²", ("lve",), 1e6, 2, "down"),
        Measure("|FDD| mm²", ("fdd_abs",), 1e6, 3, "down"),
        Measure("MTM frames", ("mtm",), 1.0, 2, "down"),
        Measure("closure rate", ("closure_rate",), 1.0, 2),
        Measure("false closures", ("false_closure_rate",), 1.0, 3, "down"),
        Measure("jitter ratio", ("jitter_ratio",), 1.0, 2, "one"),
        Measure("amplitude ratio", ("amplitude_ratio",), 1.0, 2, "one"),
        Measure("true distance mm", ("true_distance",), 1e3, 3, "down"),
        Measure("to the style's takes mm", ("true_distance_style",), 1e3, 3, "down"),
        Measure("updates", ("updates",), 1.0, 0, "none"),
        Measure("frames/s", ("frames_per_s",), 1.0, 0, "none"),
    ]


def other_scores(judge: str, judges: Iterable[str], columns: Iterable[str]) -> tuple[str, ...]:
    """Columns of a judge's scores beyond lip and real.

    Example:
        >>> other_scores("a", ["a", "a_b"], ["a_lip_score", "a_b_phone_score", "a_phone_score", "a_plrs"])
        ('a_phone_score',)
    """
    longer = tuple(f"{other}_" for other in judges if other != judge and other.startswith(judge))
    own = (c for c in columns if c.startswith(f"{judge}_") and c.endswith("_score") and not c.startswith(longer))
    return tuple(sorted(set(own) - set(score_columns(judge))))


def judge_label(judge: str, column: str) -> str:
    """What the score of a judge is called in a table.

    Example:
        >>> judge_label("phones", "phones_articulation_score"), judge_label("articulation", "articulation_score")
        ('phones articulation', 'articulation')
    """
    return " ".join([judge, *column.removeprefix(f"{judge}_").removesuffix("score").strip("_").split("_")]).strip()


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
        known = {column for row in self.rows for column in row}
        self.measures = [
            m for m in measures(self.judges, known) if any(set(m.columns) <= set(row) for row in self.rows)
        ]
        trained = [row for row in self.rows if row["seed"] is not None]
        self.control_of: dict[str, str | None] = {row["variant"]: row["control"] for row in trained}
        self.controls = [name for name, control in self.control_of.items() if control is None]
        self.variants = [name for name, control in self.control_of.items() if control is not None]
        self.starts = sorted({row["start"] for row in trained})
        self.seeds = sorted({row["seed"] for row in trained})
        self.rewards: list[str | None] = sorted({row["reward"] for row in trained if row.get("reward")}) or [None]
        self.against: dict[str, dict[str, str]] = {row["variant"]: row.get("against", {}) for row in trained}
        keys = (
            (row["variant"], row["start"], row.get("reward"), row["seed"], row["checkpoint"], row["gain"])
            for row in self.rows
        )
        self._by_key: Mapping[Any, Row] = dict(zip(keys, self.rows, strict=True))

    def row(
        self,
        variant: str,
        start: str | None,
        seed: int | None,
        checkpoint: str = "last",
        gain: float = 1.0,
        reward: str | None = None,
    ) -> Row | None:
        """The row of a run's checkpoint, or None; controls, starts and the truth have one for all rewards."""
        if variant == "truth":
            start, seed, checkpoint = None, None, "truth"
        elif variant == "start":
            seed = None
        shared = variant in REFERENCES or self.control_of.get(variant) is None
        return self._by_key.get((variant, start, None if shared else reward, seed, checkpoint, gain))

    def value(self, row: Row | None, measure: Measure, reward: str | None = None) -> float:
        """The measure of a row, nan where it was not measured; ``reward``: whose is asked of a row that serves all."""
        plain = _sum(row, measure.columns, reward) * measure.factor
        if not measure.closed or row is None:
            return plain
        # the ground truth belongs to no start: its gap is closed from any of them
        start = row["start"] if row["start"] is not None else self.starts[0]
        begin = _sum(self.row("start", start, None), measure.columns, reward)
        gap = _sum(self.row("truth", None, None), measure.columns, reward) - begin
        return (plain - begin) / gap if gap > 0 else math.nan  # a start that beats the truth leaves no gap to close

    @property
    def strata(self) -> list[tuple[str, str | None]]:
        """Every start with every reward."""
        return [(start, reward) for start in self.starts for reward in self.rewards]

    def _table(self, variant: str, measure: Measure, checkpoint: str, gain: float = 1.0) -> Floats:
        """[seeds, strata] of a variant, a control repeated over the rewards."""
        seeds = [None] if variant in REFERENCES else self.seeds
        found = [
            [
                self.value(self.row(variant, start, seed, checkpoint, gain, reward), measure, reward)
                for start, reward in self.strata
            ]
            for seed in seeds
        ]
        return np.asarray(found, dtype=float).reshape(len(seeds), len(self.strata))

    def scores(self, variant: str, measure: Measure, checkpoint: str = "last", gain: float = 1.0) -> Floats:
        """[seeds, strata] of a variant, [seeds, starts] of what has no reward of its own: their mean over the rewards.

        Strata are starts x rewards. Seeds that miss one (a failed run) are left out.
        """
        found = self._table(variant, measure, checkpoint, gain)
        if self.control_of.get(variant) is None:
            found = found.reshape(len(found), len(self.starts), len(self.rewards)).mean(axis=2)
        return found[np.isfinite(found).all(axis=1)]

    def whole(self, variant: str) -> int:
        """Rows that :meth:`scores` of a variant has when nothing is left out."""
        return 1 if variant in REFERENCES else len(self.seeds)

    def partly_measured(self) -> dict[str, tuple[int, int]]:
        """Label -> fewest sequences that a measure is the mean of in a last checkpoint, and all; others are whole."""
        found: dict[str, tuple[int, int]] = {}
        for measure in self.measures:
            if measure.columns[0].startswith("true_distance"):  # few are chosen for it, which is told apart
                continue
            for row in self.rows:
                missing = max((row.get("not_measured", {}).get(column, 0) for column in measure.columns), default=0)
                if missing and row["gain"] == 1.0 and row["checkpoint"] != "best":
                    n = row["sequences"]
                    found[measure.label] = min(found.get(measure.label, (n, n)), (n - missing, n))
        return found

    def pairs(
        self, variant: str, measure: Measure, checkpoint: str = "last", other: str | None = None
    ) -> tuple[Floats, Floats]:
        """[seeds, starts x rewards] of a variant and of its control (or of ``other``), the seeds that both have."""
        names = (variant, other or str(self.control_of[variant]))
        array = np.stack([self._table(name, measure, checkpoint) for name in names])
        kept = array[:, np.isfinite(array).all(axis=(0, 2))]
        return kept[0], kept[1]

    def by_seed(self, variant: str, measure: Measure) -> Floats:
        """[seeds] of a variant, the mean over starts and rewards; nan for a seed that misses one."""
        return self._table(variant, measure, "truth" if variant == "truth" else "last").mean(axis=1)

    def by_start(self, variant: str, measure: Measure) -> Floats:
        """[starts] of a variant, the mean over seeds and rewards; nan for a start that misses one."""
        found = self._table(variant, measure, "truth" if variant == "truth" else "last")
        return found.reshape(len(found), len(self.starts), len(self.rewards)).mean(axis=(0, 2))

    def above_truth(self, variant: str, checkpoint: str = "last", gain: float = 1.0) -> tuple[int, int]:
        """Of how many runs the train reward is above the ground truth's own, and of how many it is known."""
        train = next((m for m in self.measures if m.label == TRAIN), None)
        if train is None or variant == "truth":
            return 0, 0
        ours, truth = self._table(variant, train, checkpoint, gain), self._table("truth", train, "truth")
        return int((ours > truth).sum()), int(np.isfinite(ours).sum())

    @property
    def references(self) -> list[str]:
        """Variants that others are compared with: a placebo, back-propagation."""
        named = {other for own in self.against.values() for other in own.values()}
        return [name for name in self.variants if name in named]

    def compared(self, variant: str) -> dict[str, str]:
        """What a variant is compared with: label -> its control and the references that it names."""
        return {"control": str(self.control_of[variant]), **self.against.get(variant, {})}


class Results(Runs):
    """A folder that :func:`~benchmarks.harness.gather.gather` or :func:`~benchmarks.harness.publish.publish` wrote.

    Args:
        folder: with ``runs.jsonl`` and, as far as they were kept, ``suite.json``, ``sequences.csv`` (or ``.csv.gz``)
            and ``curves.jsonl``. What is missing is in ``missing``; a suite is then made up from what the rows say.

    Raises:
        UserError: no rows, or a file that is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        rows = read_lines(self.folder / "runs.jsonl")
        sequences = next((p for p in (self.folder / name for name in SEQUENCES) if p.exists()), None)
        curves, about = self.folder / "curves.jsonl", self.folder / "suite.json"
        places = {"suite.json": about, "sequences.csv": sequences, "curves.jsonl": curves}
        self.missing = [name for name, path in places.items() if path is None or not path.exists()]
        known = load_json(about) if about.exists() else {"suite": told_by_rows(rows, self.folder), "machine": None}
        self.suite: Row = {
            "rewards": None, "evaluate": None, "veto": None, "families": None, **known["suite"],
        }  # fmt: skip
        self.machine: Row | None = known["machine"]
        self.set: str | None = known.get("set")
        super().__init__(rows, self.suite["judges"])
        # what a column of samples was called until 0.1 is now the name of a measure of predictions alone
        self.curves = [
            {"sampled_amplitude_ratio" if key == "amplitude_ratio" else key: value for key, value in row.items()}
            for row in (read_lines(curves) if curves.exists() else [])
        ]
        self.sequences = [] if sequences is None else read_sequences(sequences)
        self._by_run: dict[tuple[Any, ...], list[Row]] = {}
        for row in self.sequences:
            if row["gain"] == 1.0 and row["checkpoint"] == "last":
                place = (row["variant"], row["start"], row.get("reward") or None, row["seed"])
                self._by_run.setdefault(place, []).append(row)

    @property
    def families(self) -> dict[str, Results]:
        """Groups of starts that the suite keeps apart, each with its own runs and the truth; none without any."""
        groups: dict[str, list[str]] = self.suite["families"] or {}
        parts = {name: self._part({None, *starts}) for name, starts in groups.items()}
        return {name: part for name, part in parts.items() if part.starts}

    def _part(self, kept: set[str | None]) -> Results:
        own = copy.copy(self)
        Runs.__init__(own, [row for row in (*self.rows, *self.failed) if row["start"] in kept], self.judges)
        own.seeds = self.seeds
        own.sequences = [row for row in self.sequences if (row["start"] or None) in kept]
        own.curves = [row for row in self.curves if row["start"] in kept]
        own._by_run = {place: rows for place, rows in self._by_run.items() if place[1] in kept}
        return own

    @property
    def where(self) -> str:
        """Corpus and speakers that were evaluated."""
        return "corpus and speakers not recorded" if "suite.json" in self.missing else told(self.suite, self.set)

    def speaker_differences(self, variant: str, other: str, measure: Measure) -> Floats:
        """[starts, rewards, seeds, speakers] of a variant minus another one, or minus ``start``: means over a speaker's
        sequences.

        Seeds that lack a run, and speakers for whom it could not be measured in every run, are left out.
        """
        speakers = sorted({row["subject"] for row in self.sequences})
        found = np.full((2, len(self.starts), len(self.rewards), len(self.seeds), len(speakers)), np.nan)
        for k, name in enumerate((variant, other)):
            for a, start in enumerate(self.starts):
                for r, reward in enumerate(self.rewards):
                    for s, seed in enumerate(self.seeds):
                        number = "" if name in REFERENCES else str(seed)
                        own = None if self.control_of.get(name) is None else reward
                        values: dict[str, list[float]] = {}
                        for row in self._by_run.get((name, start, own, number), ()):
                            value = _sum(row, measure.columns, reward)
                            if math.isfinite(value):
                                values.setdefault(row["subject"], []).append(value * measure.factor)
                        for v, speaker in enumerate(speakers):
                            if speaker in values:
                                found[k, a, r, s, v] = np.mean(values[speaker])
        difference = found[0] - found[1]
        difference = difference[:, :, np.isfinite(difference).any(axis=3).all(axis=(0, 1))]
        return difference[..., np.isfinite(difference).all(axis=(0, 1, 2))]

    def curve(self, variant: str, column: str) -> tuple[Floats, Floats]:
        """Frames [K] (mean over runs) and values [runs, K] of a metrics column, at iterations that all runs have."""
        runs: dict[tuple[Any, ...], dict[int, tuple[float, float]]] = {}
        for row in self.curves:
            value = row.get(column)
            if row["variant"] == variant and value is not None:
                place = (row["start"], row.get("reward"), row["seed"])
                runs.setdefault(place, {})[row["iteration"]] = (row["frames"], value)
        if not runs:
            return np.zeros(0), np.zeros((0, 0))
        shared = sorted(set.intersection(*(set(run) for run in runs.values())))
        table = np.asarray([[run[i] for i in shared] for run in runs.values()], dtype=float)
        table = table.reshape(len(runs), len(shared), 2)
        return table[..., 0].mean(0), table[..., 1]

    def sequence_scores(self, variant: str, columns: tuple[str, ...]) -> list[Floats]:
        """For every run of a variant the sum of ``columns`` of each sequence (last checkpoint)."""
        runs: dict[tuple[Any, ...], list[float]] = {}
        wanted = "truth" if variant == "truth" else "last"
        for row in self.sequences:
            if row["variant"] == variant and row["checkpoint"] == wanted and row["gain"] == 1.0:
                runs.setdefault((row["start"], row.get("reward"), row["seed"]), []).append(_sum(row, columns))
        return [np.asarray(values)[np.isfinite(values)] for values in runs.values()]


def _sum(row: Mapping[str, Any] | None, columns: tuple[str, ...], reward: str | None = None) -> float:
    """Of the columns of a row; a row that serves all rewards has TRAIN_REWARD for each of them."""
    if row is None:
        return math.nan
    names = [f"{c}_{reward}" if c == TRAIN_REWARD and _lacks(row, c) else c for c in columns]
    values = [row.get(name) for name in names]
    return math.nan if None in values else float(sum(values))  # type: ignore[arg-type]


def _lacks(row: Mapping[str, Any], column: str) -> bool:
    value = row.get(column)
    return value is None or math.isnan(value)


def told_by_rows(rows: Iterable[Row], folder: Path) -> Row:
    """What the report needs of a suite, from its rows alone."""
    rows = list(rows)
    ends = "_lip_score"
    columns = {column for row in rows for column in row}
    return {
        "name": rows[0]["suite"] if rows else folder.name,
        "seeds": sorted({row["seed"] for row in rows if row["seed"] is not None}),
        "judges": sorted(column.removesuffix(ends) for column in columns if column.endswith(ends)),
        "gains": sorted({row["gain"] for row in rows if row.get("gain", 1.0) != 1.0}),
    }


def read_lines(path: Path) -> list[Row]:
    """Rows of a file of one JSON object a line. Raises UserError, naming the file, if it holds anything else."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as rows of results; run the suite again") from error
