"""Raw rows of a suite's results: one per run and checkpoint, one per sequence, one per validation during training."""

from __future__ import annotations

import csv
import gzip
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.matrix import Run
from benchmarks.harness.pool import Job, Step, is_current, read_record
from benchmarks.harness.sets import EvaluatedSet
from s2f_rl.data.files import atomic_write_json, atomic_write_text
from s2f_rl.evaluation import counts, summarise, write_rows
from s2f_rl.provenance import package_versions, source_commit
from s2f_rl.runs import read_rows
from s2f_rl.threads import available_cores

Row = dict[str, Any]
TEXT = {"variant", "start", "reward", "seed", "checkpoint", "utterance", "subject", "condition"}


def machine(jobs: int) -> dict[str, Any]:
    """What speed depends on, and no name: cores, processes side by side, architecture, versions."""
    return {
        "cores": available_cores(),
        "jobs": jobs,
        "architecture": platform.machine(),
        "system": platform.system(),
        "versions": package_versions(),
    }


def read_sequences(path: Path) -> list[Row]:
    """Rows of a csv of sequences (or a .csv.gz); what is not text is a number, nan where it could not be measured."""
    unpacked = gzip.open if path.suffix == ".gz" else open
    with unpacked(path, "rt", newline="", encoding="utf-8") as file:
        return [
            {key: value if key in TEXT else float(value or "nan") for key, value in row.items()}
            for row in csv.DictReader(file)
        ]


def about_run(suite: Mapping[str, Any], run: Run) -> Row:
    """The columns that every row of a run starts with."""
    return {
        "suite": suite["name"],
        "variant": run.variant,
        "family": run.family,
        "settings": dict(run.settings),
        "control": run.control,
        "recipe": run.recipe,
        "start": run.start,
        "reward": run.reward,
        "seed": run.seed,
        **({"against": dict(run.against)} if run.against else {}),
    }


def training_figures(folder: Path) -> Row:
    """Frames collected, gradient steps and speed, from the run's own rows: clocks add up over kills and resumes.

    Validation is no training and counts in no time.
    """
    path = folder / "metrics.jsonl"
    rows = read_rows(path) if path.exists() else []
    clocks = {key for row in rows for key in row if key.startswith("time/")} - {"time/validation_s"}
    seconds = sum(row.get(key) or 0.0 for row in rows for key in clocks)
    updates = [row["updates"] for row in rows if row.get("updates") is not None]
    frames = int(rows[-1]["frames"]) if rows else 0
    last = rows[-1] if rows else {}
    return {
        "iteration": last.get("iteration"),
        "frames": frames,
        "updates": int(sum(updates)) if updates else None,
        "train_s": seconds,
        "frames_per_s": frames / seconds if seconds else None,
        "commit": last.get("commit"),
        "versions": last.get("versions"),
    }


def summary_rows(about: Row, sequences: Iterable[Row]) -> list[Row]:
    """Means over the sequences, for every checkpoint and gain; ``not_measured``: column -> sequences without it.

    Of how many the true distance was measured stands beside them: it takes time, so that few are chosen.
    """
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in sequences:
        groups.setdefault((row["checkpoint"], row["gain"]), []).append(row)
    found = []
    for (checkpoint, gain), rows in groups.items():
        measured = [{k: v for k, v in row.items() if k not in ("gain", "frames")} for row in rows]
        known = counts(measured)
        missing = {name: n for name, count in known.items() if (n := count["sequences_not_measured"])}
        shown: Row = {"sequences": len(rows), "not_measured": missing}
        if distances := known.get("true_distance", {}).get("sequences"):
            shown["true_distance_sequences"] = distances
        found.append({**about, "checkpoint": checkpoint, "gain": gain, **shown, **summarise(measured)})
    return found


def curve_rows(about: Row, folder: Path) -> list[Row]:
    """The run's metrics rows without text: validations, gradient norms, noise, clocks."""
    path = folder / "metrics.jsonl"
    dropped = ("kind", "commit", "versions", "seed")
    return [{**about, **{k: v for k, v in row.items() if k not in dropped}} for row in read_rows(path)]


def gather(
    suite: Mapping[str, Any],
    each: EvaluatedSet,
    matrix: Iterable[Run],
    references: Mapping[str, Row],
    jobs: Iterable[Job],
    root: Path,
) -> Path:
    """Write a set's ``runs.jsonl``, ``sequences.csv``, ``curves.jsonl`` and ``suite.json``; returns their folder.

    Args:
        suite: the suite's config. each: the set of utterances. matrix: the suite's runs.
        references: name -> leading columns of what is not trained: ground truth and starts.
        jobs: of every run and reference, by its name; what they ended with is in the records of their steps.
        root: the suite's folder.

    A run or reference that failed, has not ended or was last evaluated in another way (other judges, say) is one row
    with its ``status`` and the last lines of its ``error``.
    """
    out, evaluations, folder_of_runs = root / "results" / each.name, root / "evaluations" / each.name, root / "runs"
    runs: list[Row] = []
    sequences: list[Row] = []
    curves: list[Row] = []
    common = {"status": "done", "commit": source_commit(), "versions": package_versions()}
    label = {} if each.label is None else {"set": each.label}
    steps: dict[str, tuple[Step, ...]] = {}
    for job in jobs:  # of this set: what was trained, and its own evaluation
        own = root / "records" / each.records / f"{job.name}.json"
        trained = root / "records" / "train" / f"{job.name}.json"
        steps[job.name] = tuple(step for step in job.steps if step.record in (own, trained))
    for name, about in references.items():
        status, error = _status(steps[name])
        if status != "done":
            runs.append({**about, **label, "status": status, "error": error, "attempts": 0, "iteration": None})
            continue
        found = read_sequences(evaluations / f"{name}.csv")
        runs += summary_rows({**about, **label, **common, "frames": 0}, found)
        sequences += [{**_flat(about), **row} for row in found]
    for run in matrix:
        about = {**about_run(suite, run), **label}
        records = [read_record(step.record) for step in steps[run.name]]
        status, error = _status(steps[run.name])
        wall_s = sum(record["wall_s"] for record in records if record)
        attempts = records[0]["attempts"] if records[0] else 0
        folder = folder_of_runs / run.name
        about |= {"status": status, "error": error, "wall_s": wall_s, "attempts": attempts, **training_figures(folder)}
        about["overrides"] = list(run.overrides)
        if status != "done":
            runs.append(about)
            continue
        found = read_sequences(evaluations / f"{run.name}.csv")
        runs += summary_rows(about, found)
        sequences += [{**_flat(about_run(suite, run)), **row} for row in found]
        curves += curve_rows(about_run(suite, run), folder)
    write_rows(out / "sequences.csv", sequences)
    _write_lines(out / "runs.jsonl", runs)
    _write_lines(out / "curves.jsonl", curves)
    atomic_write_json(out / "suite.json", {"suite": dict(suite), "set": each.label, "machine": machine(suite["jobs"])})
    return out


def _status(steps: Sequence[Step]) -> tuple[str, str]:
    for name, step in zip(("training", "evaluation")[-len(steps) :], steps, strict=True):
        record = read_record(step.record)
        if record is None or record["status"] == "running":
            return "unfinished", f"{name} has not ended"
        if record["status"] != "done":
            return "failed", f"{name}, exit code {record['returncode']}: {record['error']}"
        if not is_current(record, step):
            return "unfinished", f"{name} was done with other settings and has not been done anew"
    return "done", ""


def _flat(about: Row) -> Row:
    """Leading columns for a csv: few, because they are in every line."""
    keys = ("variant", "start", "seed") if about["reward"] is None else ("variant", "start", "reward", "seed")
    return {key: about[key] for key in keys}


def _write_lines(path: Path, rows: Iterable[Row]) -> None:
    atomic_write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
