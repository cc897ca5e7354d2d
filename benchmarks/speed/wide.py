"""One process against workers, Ray and ranks: frames per second of PPO by part; whether two ranks take one's steps.

    python benchmarks/speed/wide.py --corpus data/demo --start checkpoints/demo/supervised \\
        --reward checkpoints/demo/reward

Every kind is run ``--rounds`` times in turn, so that what else the machine does meets all alike; the median is told.
The first iteration, which fills caches, does not count. Ray is left out where the extra is not installed.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
PARTS = ("collect", "reward", "advantage", "update")


def command(recipe: str, n_ranks: int) -> list[str]:
    """How a recipe is started, alone or as several ranks."""
    script = str(RECIPES / f"{recipe}.py")
    if n_ranks == 1:
        return [sys.executable, script]
    return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(n_ranks), script]


def rows(recipe: str, n_ranks: int, overrides: Sequence[str], root: Path, name: str) -> list[dict[str, float]]:
    """Run a recipe to its end; its rows from iteration 1."""
    # as many threads for all processes together as there are cores
    threads = max(1, len(os.sched_getaffinity(0)) // n_ranks) if hasattr(os, "sched_getaffinity") else 1
    words = [*command(recipe, n_ranks), *overrides, f"root={root}", f"name={name}", "progress=false", "logger=none"]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    lines = (root / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["iteration"]]


def main(arguments: Sequence[str]) -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--start", required=True)
    parser.add_argument("--reward", required=True)
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--lanes", type=int, nargs="+", default=[8, 32])
    options = parser.parse_args(arguments)
    kinds = {"none": ("none", 1), "2 workers": ("workers", 1), "2 ranks": ("ddp", 2)}
    if importlib.util.find_spec("ray"):
        kinds["2 Ray workers"] = ("ray", 1)
    ending = [f"iterations={options.iterations}", f"evaluation.every={options.iterations}"]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        print("| lanes | parallel | frames/s | to one process | " + " | ".join(f"{part} s" for part in PARTS) + " |")
        print("|---|---|---|---|" + "---|" * len(PARTS))
        for lanes in options.lanes:
            found: dict[str, list[list[float]]] = {label: [] for label in kinds}
            for k in range(options.rounds):
                for label, (kind, n_ranks) in kinds.items():
                    overrides = [
                        f"corpus.root={options.corpus}", f"start={options.start}", f"reward.folder={options.reward}",
                        f"parallel={kind}", f"lanes={lanes}", f"minibatch_lanes={lanes}", "group_size=2", *ending,
                    ]  # fmt: skip
                    for row in rows("ppo", n_ranks, overrides, root, f"{lanes}_{kind}_{k}")[1:]:
                        times = [row[f"time/{part}_s"] for part in PARTS]
                        found[label].append([row["batch_frames"] / sum(times), *times])
            medians = {label: list(map(statistics.median, zip(*own, strict=True))) for label, own in found.items()}
            for label, (speed, *times) in medians.items():
                told = [f"{lanes}", label, f"{speed:.0f}", f"{speed / medians['none'][0]:.2f}"]
                print("| " + " | ".join(told + [f"{each:.3f}" for each in times]) + " |", flush=True)
        common = [f"corpus.root={options.corpus}", "actor.dropout=0", "batch_size=8", "optimizer.lr=1e-3", *ending]
        one = rows("supervised", 1, common, root, "one")
        both = rows("supervised", 2, [*common, "parallel=ddp"], root, "both")
        print(
            "\n| supervised, iteration | loss of one process | of two ranks | relative difference |\n|---|---|---|---|"
        )
        for a, b in zip(one, both, strict=True):
            difference = abs(a["loss"] - b["loss"]) / a["loss"]
            print(f"| {a['iteration']} | {a['loss']:.6f} | {b['loss']:.6f} | {difference:.1e} |")
        speeds = [statistics.median(row["time/iteration_s"] for row in own[1:]) for own in (one, both)]
        told = f"{speeds[0]:.3f} s and {speeds[1]:.3f} s an iteration"
        print(f"\nsupervised, one process and two ranks: {told}, {speeds[0] / speeds[1]:.2f} times as fast")


if __name__ == "__main__":
    main(sys.argv[1:])
