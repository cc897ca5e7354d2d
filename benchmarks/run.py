"""A benchmark suite: every variant x start x seed, its controls and references, evaluated by judges.

    python benchmarks/run.py suite=algorithms jobs=2 seeds=[0,1,2,3]

Suites are the files of ``benchmarks/suites``; every key of theirs can be overridden (Hydra's syntax, ``base.KEY=...``
for a setting of all runs, whether the suite names it or not). Killed at any moment and started
again with the same line, it goes on: runs that are done stay, half-done ones resume, failed ones are tried again.
Then: ``python benchmarks/report.py FOLDER`` with the folder named at the end. ``jobs=ray`` runs them on Ray.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.harness import matrix
from benchmarks.harness.cluster import on_ray
from benchmarks.harness.gather import gather
from benchmarks.harness.inputs import evaluation_inputs, training_inputs
from benchmarks.harness.judge_notes import notes
from benchmarks.harness.pool import Job, Step, run_jobs
from s2f_rl.errors import UserError
from s2f_rl.runs.mistakes import mistake_line

EVALUATION = Path(__file__).resolve().parent / "evaluate.py"


def run_suite(
    suite: Mapping[str, Any], recipes: Path = matrix.RECIPES, evaluation: Path = EVALUATION
) -> tuple[Path, int]:
    """Run what is missing of a suite, evaluate, gather; returns the folder of the results and how many jobs failed.

    Args:
        suite: what :func:`~benchmarks.harness.matrix.open_suite` returns.
        recipes, evaluation: folder of the recipe scripts, and the script that evaluates checkpoints.

    Raises:
        UserError: a preparation failed, or results of other settings are in the way.
    """
    root = Path(suite["root"])
    split = matrix.evaluated_split(suite)
    places = {"runs": root / "runs", "records": root / "records", "evaluations": root / "evaluations" / split}
    if recipes == matrix.RECIPES:
        matrix.check_runs(suite)
    make_corpus(suite["corpus"])
    for stage in matrix.stages(suite):
        # one after the other and alone: a later stage may need an earlier one
        command = (sys.executable, str(recipes / f"{stage.recipe}.py"), *stage.overrides, *COMMON)
        key = (f"recipe={stage.recipe}", *stage.overrides)
        record = Path(suite["setup_root"]) / "records" / f"{stage.name}.json"
        step = Step(command, record, key, inputs=training_inputs(suite))
        if run_jobs([Job(f"stage {stage.name}", (step,))], tell=say):
            raise UserError(f"{step.log}: the preparation {stage.name} failed; mend what its last lines say")

    for note in notes(suite["judges"]):
        say(note)
    read = evaluation_inputs(suite, split)
    records = places["records"] / ("train_speakers" if split == "train" else split)  # train/ has those of the runs

    def evaluate(name: str, *options: str) -> Step:
        out = places["evaluations"] / f"{name}.csv"
        judges = [f"--judge={judge}={path}" for judge, path in suite["judges"].items()]
        # training speakers have a style of their own; the key `conditions` stays as it is, since runs validate in it
        conditions = "own" if split == "train" else suite["conditions"]
        some = [] if suite["utterances"] is None else [f"--utterances={suite['utterances']}"]
        key = (
            f"--corpus={suite['corpus']['root']}", f"--split={split}", f"--reward={suite['reward']}", *judges,
            f"--conditions={conditions}", f"--true-distances={suite['true_distances']}", f"--out={out}",
            *some, *options,
        )  # fmt: skip
        command = (sys.executable, str(evaluation), *key)
        return Step(command, records / f"{name}.json", key, fixed=False, inputs=read)

    runs = matrix.runs(suite)
    reads = {start: training_inputs(suite, folder) for start, folder in suite["starts"].items()}
    jobs, references = [], {"truth": (reference(suite, "truth", None), places["evaluations"] / "truth.csv")}
    jobs.append(Job("truth", (evaluate("truth"),)))
    for start, folder in suite["starts"].items():
        name = f"start/{start}"
        references[name] = (reference(suite, "start", start), places["evaluations"] / f"{name}.csv")
        jobs.append(Job(name, (evaluate(name, f"--checkpoint=last={folder}"),)))
    for run in runs:
        command = (
            sys.executable, str(recipes / f"{run.recipe}.py"), *run.overrides, *COMMON,
            f"root={matrix.literal(str(places['runs']))}", f"name={run.name}",
        )  # fmt: skip
        folder = places["runs"] / run.name
        gains = [f"--gain={gain}" for gain in suite["gains"] or ()] if run.control is None else []
        checkpoints = [f"--checkpoint={label}={folder / label}.pt" for label in ("last", "best")]
        key = (f"recipe={run.recipe}", *run.overrides)
        train = Step(command, places["records"] / "train" / f"{run.name}.json", key, inputs=reads[run.start])
        jobs.append(Job(run.name, (train, evaluate(run.name, *checkpoints, *gains))))
    out = root / "results" / split
    try:
        if suite["jobs"] == "ray":
            with on_ray() as launch:
                failed = run_jobs(jobs, len(jobs), tell=say, launch=launch)
        else:
            failed = run_jobs(jobs, suite["jobs"], tell=say)
    except KeyboardInterrupt:
        gather(suite, runs, places, references, jobs, out)  # what there is already can be looked at
        raise
    gather(suite, runs, places, references, jobs, out)
    say(f"results in {out}; next: python benchmarks/report.py {out}")
    if failed:
        say(f"{failed} of {len(jobs)} jobs failed: their last lines are in the results, the same command tries again")
    return out, failed


COMMON = ("resume=true", "progress=false", "logger=none")


def make_corpus(corpus: Mapping[str, Any]) -> None:
    """Synthesise the suite's corpus unless the folder is there."""
    root = Path(corpus["root"])
    if (root / "corpus.json").exists() or corpus["synthesize"] is None:
        return
    from s2f_rl.data.synthetic import synthesize

    synthesize(root, **corpus["synthesize"], progress=False)
    say(f"corpus in {root}")


def reference(suite: Mapping[str, Any], variant: str, start: str | None) -> dict[str, Any]:
    """Leading columns of a row that nothing was trained for."""
    about = {"suite": suite["name"], "variant": variant, "family": variant, "settings": {}, "control": None}
    return about | {"recipe": None, "start": start, "seed": None}


def say(line: str) -> None:
    """One line with the time of day."""
    print(f"[{time.strftime('%H:%M:%S')}] {line}", flush=True)


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit code: 0, 2 (a mistake), 3 (some runs failed) or 130 (stopped)."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{__doc__}\nsuites: {', '.join(matrix.suite_names())}")
        return 0 if arguments else 2
    try:
        suite = matrix.open_suite(arguments)
        _, failed = run_suite(suite)
    except KeyboardInterrupt:
        print("error: stopped; the same command goes on", file=sys.stderr)
        return 130
    except (UserError, OSError) as error:
        if mistake_line(error) is None:
            raise
        print(f"error: {mistake_line(error)}", file=sys.stderr)
        return 2
    return 3 if failed else 0


if __name__ == "__main__":
    # a scheduler ends a job by SIGTERM, and a shell's background job ignores SIGINT: both end the runs as Ctrl-C does
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
