"""The frame loop with other processes beside it: wall and CPU seconds, idle and with 1, 2 and 4 busy ones.

    python benchmarks/speed/frame_loop.py [--against CHECKOUT] [--busy 0 1 2 4] [--rounds 7] [--limit 40]

Measures collecting 8 utterances, ``generate`` on as many frames, and one PPO iteration (collecting, a small reward, two
epochs of updates), V=5023. ``--against`` is a checkout to compare with, for example a ``git worktree`` of an older
commit: both are loaded at once, in processes of their own, and take turns. This tree runs as a recipe does and as a
library (without ``s2f_rl.patient``). Busy processes are started here and ended here; ``--limit`` bounds the seconds at
each load, though every measurement is made at least once.

Prints medians as a Markdown table; ``x`` is against the idle median of the other checkout, or of this tree's recipe.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TASKS = ("collect", "generate", "ppo")
BUSY = "while True: pass"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path)
    parser.add_argument("--corpus", help="any corpus in the VOCASET layout; else a synthetic one with V=5023 is made")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--limit", type=float, default=40.0, help="seconds at each load")
    parser.add_argument("--lanes", type=int, default=8)
    parser.add_argument("--worker", choices=["recipe", "library"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        if not options.corpus:
            make = f"from s2f_rl.data.synthetic import synthesize; synthesize({folder!r}, 6, 4, vertices=5023)"
            subprocess.run([sys.executable, "-c", make], check=True, env=environment(ROOT))
            options.corpus = folder
        compare(options)


# -- measuring ---------------------------------------------------------------------------------------------------------


def environment(tree: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(tree)}


class Worker:
    """A process that holds one tree and runs a task when told."""

    def __init__(self, tree: Path, kind: str, options: argparse.Namespace) -> None:
        command = [
            sys.executable,
            __file__,
            "--worker",
            kind,
            "--corpus",
            options.corpus,
            "--lanes",
            str(options.lanes),
        ]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment(tree))

    def ask(self, task: str) -> dict[str, float]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{task}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def compare(options: argparse.Namespace) -> None:
    trees = {"recipe": (ROOT, "recipe"), "library": (ROOT, "library")}
    if options.against:
        trees = {"before": (options.against.resolve(), "library"), **trees}
    print(f"{len(os.sched_getaffinity(0))} cores, load before the start {os.getloadavg()[0]:.1f}", flush=True)
    workers = {name: Worker(tree, kind, options) for name, (tree, kind) in trees.items()}
    rows: dict[tuple[str, int, str], list[dict[str, float]]] = {}
    try:
        for worker in workers.values():
            for task in TASKS:
                worker.ask(task)  # warm
        for n_busy in options.busy:
            measure(workers, n_busy, options, rows)
    finally:
        for worker in workers.values():
            worker.process.kill()
    reference = next(iter(workers))
    print("| | busy | " + " | ".join(f"{name}: wall, x | CPU, x" for name in workers) + " |")
    print("|---" * (2 + 2 * len(workers)) + "|")
    idle = {task: median(rows[task, options.busy[0], reference]) for task in TASKS}
    for task in TASKS:
        for n_busy in options.busy:
            cells = []
            for name in workers:
                now = median(rows[task, n_busy, name])
                cells += [f"{now[key]:.3f}, {now[key] / idle[task][key]:.2f}" for key in ("wall", "cpu")]
            print(f"| {task} | {n_busy} | " + " | ".join(cells) + " |")


def measure(workers: dict[str, Worker], n_busy: int, options: argparse.Namespace, rows: dict) -> None:
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(n_busy)]
    began = time.perf_counter()
    try:
        for n in range(options.rounds):
            for task in TASKS:
                for name in list(workers) if n % 2 else reversed(workers):
                    if n == 0 or time.perf_counter() - began < options.limit:
                        rows.setdefault((task, n_busy, name), []).append(workers[name].ask(task))
    finally:
        for process in busy:
            process.kill()
        for process in busy:
            process.wait()


def median(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(row[key] for row in rows) for key in ("wall", "cpu")}


# -- in a worker's process ---------------------------------------------------------------------------------------------


def work(options: argparse.Namespace) -> None:
    if options.worker == "recipe":
        with suppress(ImportError):  # another tree may have none
            import s2f_rl.patient  # noqa: F401
    tasks = make_tasks(options)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), cpu_seconds()
        tasks[line.strip()]()
        answer = {"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu}
        print(json.dumps(answer), flush=True)


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def make_tasks(options: argparse.Namespace) -> dict[str, Callable[[], None]]:
    import torch

    from s2f_rl import keys
    from s2f_rl.collectors import utterance_collector
    from s2f_rl.data import FaceCorpus
    from s2f_rl.envs import FrozenRewardTransform, SpeechToFaceEnv
    from s2f_rl.losses import (
        ClipPPOLoss,
        SupervisedLoss,
        WeightedLoss,
        discounted_returns,
        masked_standardise,
        total_loss,
    )
    from s2f_rl.models import FaceFormer, FaceFormerPolicy, MelAudioEncoder
    from s2f_rl.models.audio_cache import CachedAudio
    from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer

    torch.manual_seed(0)
    corpus = FaceCorpus(options.corpus, split="train")
    actor = FaceFormer(MelAudioEncoder(), corpus.n_vertices, n_subjects=len(corpus.subjects)).eval()
    torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=2e-4)
    backbone = SpeechMeshTransformer(3 * corpus.n_vertices, width=64, depth=2, n_heads=4)
    policy = FaceFormerPolicy(actor, noise_vertices=corpus.regions["lips"])
    env = SpeechToFaceEnv(corpus, CachedAudio(actor.audio_encoder, corpus), options.lanes)
    reward = FrozenRewardTransform(RewardModel(backbone, ScoreHead(64, 64)), corpus)
    supervised = SupervisedLoss(policy.actor_module, corpus)
    terms = {"policy": (ClipPPOLoss(policy.actor_module), 0.5), "supervised": (supervised, 1.0)}
    loss = WeightedLoss(terms, balance="grad_norm")
    optimizer = torch.optim.Adam([p for p in loss.parameters() if p.requires_grad], lr=1e-6)
    collector = utterance_collector(env, policy)
    draws = env.draw_state()

    def collect() -> torch.Tensor:
        env.load_draw_state(draws)  # the same utterances every time
        return collector.next()

    first = collect()
    audio, style = first[keys.AUDIO].clone(), first[keys.STYLE][:, 0].clone()

    @torch.no_grad()
    def generate() -> None:
        actor.generate(audio, style)

    def ppo() -> None:
        batch = reward(collect())
        mask = batch[keys.FRAME_MASK]
        batch[keys.ADVANTAGE] = masked_standardise(discounted_returns(batch["next", "reward"], mask, 0.7), mask)
        for _ in range(2):
            optimizer.zero_grad()
            total_loss(loss(batch)).backward()
            optimizer.step()

    return {"collect": lambda: (collect(), None)[1], "generate": generate, "ppo": ppo}


if __name__ == "__main__":
    main()
