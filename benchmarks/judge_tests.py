"""Which judges are fooled by motion that is wrong, and which of it a veto catches.

    python -m benchmarks.judge_tests CORPUS OUT --start RUN --adversarial RUN --judge NAME=FOLDER [--judge ...]

Every negative of :mod:`benchmarks.negatives` must score below the good start (the smoothed recording: below the
recording): the interval of the difference of the lip score, over voices and utterances, lies below 0. A judge passes
if none fools it. The veto looks at no score: it turns down what has a lip error of more than 1.05 times the start's, or
a closure rate of more than .05 below, or a false closure rate of more than .03 above it. Writes ``rows.csv``,
``table.md`` and ``record.json``, in which benchmarks/run.py looks a judge up.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.evaluate import measure, spread
from benchmarks.harness.evidence import VETO, held_against
from benchmarks.negatives import REFERENCES, Negatives
from s2f_rl.data import FaceCorpus
from s2f_rl.data.files import atomic_write_json, atomic_write_text
from s2f_rl.errors import UserError
from s2f_rl.evaluation import Scorer, write_rows
from s2f_rl.evaluation.intervals import bootstrap_intervals
from s2f_rl.evaluation.tables import Row
from s2f_rl.rewards.judge.judge import load_scorer
from s2f_rl.runs.mistakes import mistake_line

_CALLED = {"LVE": "lve", "false closures": "false closure"}  # in the record and in published tables


def mean_of(rows: Sequence[Row], motion: str, column: str) -> float:
    """Mean of a column over the utterances where it could be measured."""
    values = torch.tensor([row[column] for row in rows if row["motion"] == motion], dtype=torch.float64)
    return float(values.nanmean())


def vetoes(rows: Sequence[Row], motion: str) -> list[str]:
    """What the veto holds against a motion, compared with the start: none, or some of lve, closure, false closure."""
    found, start = (
        {c: mean_of(rows, m, c) for c in ("lve", "closure_rate", "false_closure_rate")} for m in (motion, "start")
    )
    return [_CALLED.get(name, name) for name in held_against(found, start, VETO)]


def difference(rows: Sequence[Row], column: str, motion: str, reference: str) -> tuple[float, float, float]:
    """Mean of ``motion`` minus ``reference``, paired by utterance, and its 95% interval over voices and utterances."""
    other = {row["utterance"]: row for row in rows if row["motion"] == reference}
    paired: list[Row] = [
        {**{k: row[k] for k in ("utterance", "subject")}, "change": row[column] - other[row["utterance"]][column]}
        for row in rows
        if row["motion"] == motion
    ]
    values = torch.tensor([row["change"] for row in paired], dtype=torch.float64)
    low, high = bootstrap_intervals(paired, resample_subjects=True)["change"]
    return float(values.nanmean()), low, high


def verdict(rows: Sequence[Row], judge: str) -> dict[str, list[str]]:
    """Negatives that fool a judge, and those of them that the veto lets through."""
    column = f"{judge}_lip_score"
    fooled = [n for n, reference in REFERENCES.items() if difference(rows, column, n, reference)[2] >= 0]
    return {"fooled_by": fooled, "fooled_after_veto": [n for n in fooled if not vetoes(rows, n)]}


def markdown(rows: Sequence[Row], judges: Sequence[str]) -> str:
    """The table: a row for each motion, its scores by each judge and what the veto says."""
    head = " | ".join(f"{judge} lip | {judge} real" for judge in judges)
    lines = [
        f"| motion | below | {head} | LVE mm² | closure | false closure | vetoed by |",
        "|---|---|" + "---|" * (2 * len(judges) + 4),
    ]
    for motion in ("truth", "start", *REFERENCES):
        reference = REFERENCES.get(motion)
        cells = [motion, reference or ""]
        for judge in judges:
            score = f"{mean_of(rows, motion, f'{judge}_lip_score'):.3f}"
            if reference is not None:
                change, low, high = difference(rows, f"{judge}_lip_score", motion, reference)
                score += f" ({change:+.3f}, {low:+.3f} to {high:+.3f})"
                score = score if high < 0 else f"**{score}**"
            cells += [score, f"{mean_of(rows, motion, f'{judge}_real_score'):.3f}"]
        cells += [f"{1e6 * mean_of(rows, motion, 'lve'):.1f}"]
        cells += [f"{mean_of(rows, motion, column):.2f}" for column in ("closure_rate", "false_closure_rate")]
        cells.append(", ".join(vetoes(rows, motion)) if reference is not None else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", required=True, help="a good actor, in its first style for unseen speakers")
    parser.add_argument("--adversarial", required=True, help="of benchmarks.adversarial_actor, from that start")
    parser.add_argument("--judge", action="append", required=True, help="NAME=FOLDER, once for each judge")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--utterances", type=int, default=64, help="spread evenly (default: %(default)s)")
    options = parser.parse_args(argv)
    corpus = FaceCorpus(options.corpus, split=options.split, topology=None)
    models = {name: load_scorer(path) for name, path in (each.split("=", 1) for each in options.judge)}
    scorer = Scorer(models, corpus)
    negatives = Negatives(corpus, options.start, options.adversarial)
    rows: list[Row] = []
    for index in spread(len(corpus), options.utterances):
        motions = negatives(index)
        vertices = torch.stack(list(motions.values())) + corpus[index].template
        found = measure(index, vertices, list(motions), corpus, scorer, timing=False)
        rows += [{"motion": row.pop("condition"), **row} for row in found]
    write_rows(options.out / "rows.csv", rows)
    table = markdown(rows, list(models))
    atomic_write_text(options.out / "table.md", table)
    record = [{"judge": n, "hash": model.content_hash(), **verdict(rows, n)} for n, model in models.items()]
    atomic_write_json(options.out / "record.json", record)
    print(table)
    for entry in record:
        fooled, rest = (", ".join(entry[key]) or "nothing" for key in ("fooled_by", "fooled_after_veto"))
        print(f"{entry['judge']}: fooled by {fooled}; after the veto by {rest}")


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        if mistake_line(error) is None:
            raise
        sys.exit(f"error: {mistake_line(error)}")
