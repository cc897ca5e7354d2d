"""Speed of an RL iteration at full size against a straightforward composition, by part, and against the machine.

    python benchmarks/speed/run.py [--tiny] [--results docs/results/speed/results.json] [--page docs/speed.md]

Random weights, motions and sounds (V=5023, reward 512 x 10, H=64): what is measured does not depend on them. Everything
is measured in one run, side by side, and both ways must agree. Writes the results, prints the tables, and with
``--page`` puts them into that page, between its marks, with plots beside it. Under ten minutes on two cores.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.speed import clock, measures, page  # noqa: E402
from benchmarks.speed.full_size import FULL, GROUP, TINY, Task  # noqa: E402
from s2f_rl.data import FaceCorpus  # noqa: E402
from s2f_rl.data.files import atomic_write_text  # noqa: E402
from s2f_rl.rewards import RewardModel  # noqa: E402

STRIDES = (1, 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes; the numbers mean nothing")
    parser.add_argument("--results", type=Path, default=Path("docs/results/speed/results.json"))
    parser.add_argument(
        "--processor-time", action="store_true", help="seconds of one core's work, for a machine that is not idle"
    )
    parser.add_argument("--page", type=Path, help="a page with marks to write the tables into")
    parser.add_argument("--show", action="store_true", help="measure nothing, show the results that are there")
    parser.add_argument(
        "--reward", type=Path, help="a trained reward, for the error of bfloat16; random weights without"
    )
    parser.add_argument("--corpus", type=Path, help="of that reward")
    options = parser.parse_args()
    if options.processor_time:
        os.environ[clock.PROCESSOR] = "1"
        torch.set_num_threads(1)
    if not options.show:
        options.results.parent.mkdir(parents=True, exist_ok=True)
        trained = (options.reward, options.corpus) if options.reward else None
        measured(options.results, options.tiny, trained)
    results = json.loads(options.results.read_text(encoding="utf-8"))
    print("\n\n".join(page.sections(results).values()))
    if options.page:
        page.write(options.page, results)


def measured(path: Path, tiny: bool, trained: tuple[Path, Path] | None = None) -> None:
    """Write all results by name into ``path``, each as soon as it is there.

    Args:
        trained: folders of a reward and its corpus.
    """
    began = time.perf_counter()
    size = TINY if tiny else FULL._replace(utterances=4, shortest=90, longest=110)
    task = Task(size, torch.device("cpu"))
    lanes = (GROUP, 2 * GROUP) if tiny else (8, 32)
    of_processor = bool(os.environ.get(clock.PROCESSOR))
    results: dict[str, object] = {"size": size._asdict(), "clock": "processor" if of_processor else "wall"}

    def take(name: str, function: Callable[[], object]) -> None:
        results[name] = function()
        results["seconds"] = time.perf_counter() - began
        atomic_write_text(path, json.dumps(results, indent=1) + "\n")
        print(f"{results['seconds']:5.0f} s  {name}", file=sys.stderr, flush=True)

    take("machine", lambda: measures.machine(task))
    take("reference", lambda: measures.composed(task))
    take("audio half", lambda: measures.audio_half(task, STRIDES))
    measures.hear_everything(task, STRIDES)
    take(
        "iterations",
        lambda: [
            measures.iteration(task, n, stride, bf16) for n in lanes for stride in STRIDES for bf16 in (False, True)
        ],
    )
    take("operations", lambda: [measures.operations(task, lanes[0], stride) for stride in STRIDES])
    take("update", lambda: [measures.update(task, n) for n in lanes])
    take("reward", lambda: measures.reward(task, lanes[0], 1))
    model, corpus = (
        (RewardModel.load(trained[0]), FaceCorpus(trained[1], "train")) if trained else (task.model, task.corpus)
    )
    results["rounded reward"] = "trained" if trained else "random weights"
    take("rounding", lambda: measures.rounding(model, corpus, 2 if tiny else 12))
    take("decode", lambda: measures.decode(task, (10, 20) if tiny else (100, 300, 1000, 3000)))
    if not tiny:
        axes = {
            "frames": (100, 300, 1000, 3000),
            "lanes": (4, 16, 64),
            "vertices": (642, 5023, 23370),
            "corpus": (50, 200, 800),
        }
        take("scaling", lambda: {axis: measures.scale(axis, values) for axis, values in axes.items()})


if __name__ == "__main__":
    main()
