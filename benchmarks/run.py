"""A benchmark suite: every variant x start x reward x seed, its controls and references, evaluated by judges.

    python benchmarks/run.py suite=algorithms jobs=2 seeds=[0,1,2,3]

Suites are the files of ``benchmarks/suites``; every key of theirs can be overridden (Hydra's syntax, ``base.KEY=...``
for a setting of all runs, whether the suite names it or not). Killed at any moment and started
again with the same line, it goes on: runs that are done stay, half-done ones resume, failed ones are tried again.
Then: ``python benchmarks/report.py FOLDER`` with the folder named at the end. ``jobs=ray`` runs them on Ray.
"""

from __future__ import annotations

import json
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
from benchmarks.harness.rewards import reward_arguments
from benchmarks.harness.sets import EvaluatedSet, evaluated_sets
from s2f_rl.errors import UserError
from s2f_rl.runs.mistakes import mistake_line

EVALUATION = Path(__file__).resolve().parent / "evaluate.py"


def run_suite(
    suite: Mapping[str, Any], recipes: Path = matrix.RECIPES, evaluation: Path = EVALUATION
) -> tuple[Path, int]:
    """Run what is missing of a suite, evaluate, gather; returns the (first set's) results and how many jobs failed.

    Args:
        suite: what :func:`~benchmarks.harness.matrix.open_suite` returns.
        recipes, evaluation: folder of the recipe scripts, and the script that evaluates checkpoints.

    Raises:
        UserError: a preparation failed, or results of other settings are in the way.
    """
    root = Path(suite["root"])
    if recipes == matrix.RECIPES:
        matrix.check_runs(suite)
    make_corpus(suite["corpus"])
    sets = evaluated_sets(suite)
    if evaluation == EVALUATION:
        check_sets(sets, suite["open_test"])
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
    rewards = matrix.reward_settings(suite)

    def evaluate(name: str, reward: str | None, *options: str) -> tuple[Step, ...]:
        """A step for every set: of a run with that reward, or of what serves all rewards (None)."""
        found = []
        judges = [f"--judge={judge}={given if isinstance(given, str) else json.dumps(given)}"
                  for judge, given in suite["judges"].items()]  # fmt: skip
        for each in sets:
            out = root / "evaluations" / each.name / f"{name}.csv"
            key = (
                f"--corpus={each.corpus}", f"--split={each.split}", *reward_arguments(rewards, reward), *judges,
                f"--conditions={each.conditions}", f"--true-distances={suite['true_distances']}", f"--out={out}",
                *each.options(), *options,
            )  # fmt: skip
            if each.label is not None and not suite["open_test"]:
                key = (*key, "--test=closed")
            scored = rewards if reward is None else {reward: rewards[reward]}
            read = evaluation_inputs(suite, each, scored)
            command = (sys.executable, str(evaluation), *key)
            found.append(Step(command, root / "records" / each.records / f"{name}.json", key, fixed=False, inputs=read))
        return tuple(found)

    runs = matrix.runs(suite)
    references = {"truth": reference(suite, "truth", None)}
    jobs = [Job("truth", evaluate("truth", None))]
    for start, folder in suite["starts"].items():
        name = f"start/{start}"
        references[name] = reference(suite, "start", start)
        jobs.append(Job(name, evaluate(name, None, f"--checkpoint=last={folder}")))
    reads: dict[Any, Mapping[str, Any]] = {}
    for run in runs:
        command = (
            sys.executable, str(recipes / f"{run.recipe}.py"), *run.overrides, *COMMON,
            f"root={matrix.literal(str(root / 'runs'))}", f"name={run.name}",
        )  # fmt: skip
        folder = root / "runs" / run.name
        gains = [f"--gain={gain}" for gain in suite["gains"] or ()] if run.control is None else []
        checkpoints = [f"--checkpoint={label}={folder / label}.pt" for label in suite["checkpoints"]]
        place = (run.start, run.corpus, run.reward)
        if place not in reads:
            reads[place] = training_inputs(suite, suite["starts"][run.start], run.corpus, rewards.get(run.reward))
        key = (f"recipe={run.recipe}", *run.overrides)
        train = Step(command, root / "records" / "train" / f"{run.name}.json", key, inputs=reads[place])
        jobs.append(Job(run.name, (train, *evaluate(run.name, run.reward, *checkpoints, *gains))))

    def gathered() -> list[Path]:
        return [gather(suite, each, runs, references, jobs, root) for each in sets]

    try:
        if suite["jobs"] == "ray":
            with on_ray() as launch:
                failed = run_jobs(jobs, len(jobs), tell=say, launch=launch)
        else:
            failed = run_jobs(jobs, suite["jobs"], tell=say)
    except KeyboardInterrupt:
        gathered()  # what there is already can be looked at
        raise
    out = gathered()
    for folder in out:
        say(f"results in {folder}; next: python benchmarks/report.py {folder}")
    if failed:
        say(f"{failed} of {len(jobs)} jobs failed: their last lines are in the results, the same command tries again")
    return out[0], failed


COMMON = ("resume=true", "progress=false", "logger=none", "page=curves")


def make_corpus(corpus: Mapping[str, Any]) -> None:
    """Synthesise the suite's corpus unless the folder is there."""
    root = Path(corpus["root"])
    if (root / "corpus.json").exists() or corpus["synthesize"] is None:
        return
    from s2f_rl.data.synthetic import synthesize

    synthesize(root, **corpus["synthesize"], progress=False)
    say(f"corpus in {root}")


def check_sets(sets: Sequence[EvaluatedSet], open_test: bool) -> None:
    """Look for the utterances of what ``evaluate`` names: without any, that is told before the first run, not after it.

    Raises:
        UserError: no such corpus or split, or nothing in it that may be evaluated.
    """
    from benchmarks.evaluate import chosen_utterances
    from s2f_rl.data import FaceCorpus

    for each in sets:
        if each.label is not None:
            chosen_utterances(FaceCorpus(each.corpus, each.split, None), each.names, each.utterances, open_test)


def reference(suite: Mapping[str, Any], variant: str, start: str | None) -> dict[str, Any]:
    """Leading columns of a row that nothing was trained for."""
    about = {"suite": suite["name"], "variant": variant, "family": variant, "settings": {}, "control": None}
    return about | {"recipe": None, "start": start, "reward": None, "seed": None}


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
