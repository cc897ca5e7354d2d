"""Does the full reward's preset learn? InfoNCE of its first phase, by seed, on a few utterances and on unseen voices.

    python benchmarks/full_reward.py --corpus data/demo [--out FOLDER] [--cases preset,few] [key=value ...]

Takes rates, weights and precision of `recipes/reward.py reward_model=full` and makes sizes such as two cores can do:
overrides go to that recipe (`reward_model.width=512`, `optimizer.lr=3e-3`). A batch is of N pairs, and chance is log N.
Writes CASE_seedS.csv: iteration, loss on the batch, and, every 25 iterations, on pairs of validation speakers with
all of their patches. With --plot, draws what lies in --out and trains nothing. With --time N, trains nothing either:
times N draws and updates at the published size and writes times.csv.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import argparse
import csv
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.evaluation.evaluate import write_rows
from s2f_rl.rewards import ScoreHead, SpeechMeshTransformer
from s2f_rl.rewards.corruptions import chosen_corruptions
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.clips import ClipBatch, ClipSampler
from s2f_rl.rewards.training.draw_ahead import DrawAhead
from s2f_rl.rewards.training.encoding import Encoding
from s2f_rl.rewards.training.listening import MotionReadout, PairBatch, draw_pairs, listening_losses, plan_pairs
from s2f_rl.rewards.training.losses import AudioFeatures, centre_features, reward_losses
from s2f_rl.rewards.training.projection import MeshProjection
from s2f_rl.rewards.training.recordings import MotionBank
from s2f_rl.rewards.training.speech_augmentation import SpeechAugmentation
from s2f_rl.runs import seed_everything
from s2f_rl.runs.configs import compose_config
from s2f_rl.training import StepGuard, cosine_decay

CONF = Path(__file__).resolve().parents[1] / "recipes" / "conf"
SMALLER = (
    "reward_model=full", "reward_model.width=256", "reward_model.mlp_width=1024", "speech.speeds=[1.0]",
    "listening.recordings=8", "listening.clips=4", "listening.kept_patches=0.25", "listening.iterations=400",
)  # fmt: skip
CASES = {
    "preset": (16, ()),
    "few": (4, ("speech.gain_db=0", "speech.equaliser_db=0", "speech.noise_db=0", "clips.identity_spread=0",
                "listening.recordings=4", "listening.clips=8")),
    "small_rate": (16, ("optimizer.lr=3e-3", "optimizer.final_lr=6e-5", "weights.info_nce=0.1")),
}  # fmt: skip
"""Training utterances and overrides: the preset; speech and faces as they are; the small model's rate and weight."""
EVERY = 25


@dataclass
class Parts:
    """What a training is made of; ``unseen`` draws from validation speakers."""

    backbone: SpeechMeshTransformer
    head: ScoreHead
    readout: MotionReadout
    motion: MotionSubspace
    bank: MotionBank
    sampler: ClipSampler
    unseen: ClipSampler
    optimizer: torch.optim.Optimizer
    channel: SpeechAugmentation


def parts_of(cfg: Any, seed: int, utterances: int) -> Parts:
    """As recipes/reward.py makes them, of a few utterances."""
    seed_everything(seed)
    train, unseen = FaceCorpus(cfg.corpus.root, "train"), FaceCorpus(cfg.corpus.root, "validation")
    few = list(range(0, len(train), max(1, len(train) // utterances)))[:utterances]
    motion = MotionSubspace.fit(train, n_components=cfg.motion_directions)
    projection = MeshProjection.fit(motion, cfg.rough_directions, torch.Generator().manual_seed(seed))
    size = cfg.reward_model
    backbone = SpeechMeshTransformer(projection.width, size.width, size.depth, size.n_heads, size.mlp_width)
    head = ScoreHead(backbone.width, backbone.width, size.head_hidden, size.dropout)
    readout = MotionReadout(backbone.width, len(motion.std))
    bank = MotionBank(train, few, speeds=list(cfg.speech.speeds))
    regressor = bank.fit_regressor(motion)
    seen, heldout = (
        ClipSampler(each, motion, projection, regressor, chosen_corruptions(), seed, **cfg.clips)
        for each in (bank, MotionBank(unseen))
    )
    trained = [p for module in (backbone, head, readout) for p in module.parameters()]
    optimizer = torch.optim.AdamW([{"params": trained, "lr_factor": 1.0}], weight_decay=cfg.optimizer.weight_decay)
    channel = SpeechAugmentation(cfg.speech.gain_db, cfg.speech.equaliser_db, cfg.speech.noise_db)
    return Parts(backbone, head, readout, motion, bank, seen, heldout, optimizer, channel)


def curve(cfg: Any, seed: int, utterances: int) -> list[dict[str, float]]:
    """Train the first phase; a row for each iteration."""
    parts, options = parts_of(cfg, seed, utterances), cfg.listening
    held_out = draw_pairs(parts.unseen, parts.motion, None, options.recordings, options.clips)
    centre_features(parts.backbone, parts.sampler.draw())
    encoding, guard = Encoding(None, cfg.precision == "bfloat16"), StepGuard()
    rows = []

    def planned(_: int) -> Any:
        return plan_pairs(parts.sampler, parts.motion, parts.channel, options.recordings, options.clips)

    def terms(batch: PairBatch, kept: float, encoding: Encoding | None) -> dict[str, torch.Tensor]:
        return listening_losses(parts.backbone, parts.readout, batch, kept, encoding=encoding)

    with DrawAhead(parts.sampler, planned, options.iterations, 1) as draws:
        for iteration in range(1, options.iterations + 1):
            started = time.perf_counter()
            losses = terms(draws(iteration), options.kept_patches, encoding)
            parts.optimizer.param_groups[0]["lr_factor"] = min(1.0, iteration / max(1, cfg.optimizer.warmup))
            cosine_decay(parts.optimizer, cfg.optimizer, iteration, options.iterations)
            loss = sum(cfg.weights[name] * term for name, term in losses.items())
            guard.step(torch.as_tensor(loss), parts.optimizer, cfg.optimizer.max_grad_norm)
            row = {"iteration": iteration, **{name: round(float(term.detach()), 4) for name, term in losses.items()}}
            row["time_s"] = round(time.perf_counter() - started, 3)
            if iteration % EVERY == 0:
                with torch.no_grad():
                    unheard = terms(held_out, 1.0, None)
                row |= {f"unseen_{name}": round(float(term), 4) for name, term in unheard.items()}
                print(row, flush=True)
            rows.append(row)
    return rows


def times(cfg: Any, utterances: int, repeats: int) -> list[dict[str, Any]]:
    """Seconds of draws and updates in both phases and precisions, in alternation: median and least."""
    parts, options = parts_of(cfg, 0, utterances), cfg.listening
    known = AudioFeatures(parts.backbone, parts.bank, encoding=Encoding(None, bfloat16=True))
    found: dict[str, list[tuple[float, float]]] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        clocks = time.perf_counter(), time.process_time()
        result = work()
        spent = time.perf_counter() - clocks[0], time.process_time() - clocks[1]
        found.setdefault(name, []).append(spent)
        return result

    def update(losses: dict[str, torch.Tensor]) -> None:
        parts.optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        parts.optimizer.step()

    def heard(batch: PairBatch, how: Encoding) -> None:
        update(listening_losses(parts.backbone, parts.readout, batch, options.kept_patches, encoding=how))

    def spoiled(batch: ClipBatch, audio: torch.Tensor, how: Encoding) -> None:
        update(reward_losses(parts.backbone, parts.head, batch, audio, encoding=how))

    size = options.recordings, options.clips
    for _ in range(repeats):
        pairs = timed("draw, listening", lambda: draw_pairs(parts.sampler, parts.motion, parts.channel, *size))
        batch = timed("draw, spoiled clips", parts.sampler.draw)
        audio = known(batch)
        for precision in ("float32", "bfloat16"):
            how = Encoding(None, precision == "bfloat16")
            timed(f"update, listening, {precision}", lambda: heard(pairs, how))  # noqa: B023 (called at once)
            timed(f"update, spoiled clips, {precision}", lambda: spoiled(batch, audio, how))  # noqa: B023
    return [
        {"what": name, "wall_s": statistics.median(w for w, _ in spent), "wall_least_s": min(w for w, _ in spent),
         "cpu_s": statistics.median(c for _, c in spent)}
        for name, spent in found.items()
    ]  # fmt: skip


def plot(folder: Path, picture: Path, chance: float) -> None:
    """Curves of all files in a folder, a running mean of 10 iterations; seeds of a label share a colour."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    colours: dict[str, str] = {}
    for path in sorted(folder.glob("*_seed*.csv")):
        label = path.stem.partition("_seed")[0]
        new = label not in colours
        colour = colours.setdefault(label, f"C{len(colours)}")
        with open(path, encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        loss = torch.tensor([float(row["info_nce"]) for row in rows]).unfold(0, 10, 1).mean(1)
        at = [int(row["iteration"]) for row in rows][9:]
        axes[0].plot(at, loss, color=colour, label=label if new else None, linewidth=1)
        told = [(int(row["iteration"]), float(row["unseen_info_nce"])) for row in rows if row["unseen_info_nce"]]
        axes[1].plot(*zip(*told, strict=True), color=colour, linewidth=1)
    for axis, title in zip(axes, ("training pairs", "pairs of unseen voices"), strict=True):
        axis.axhline(chance, color="black", linestyle=":", linewidth=1)
        axis.set(xlabel="iteration", title=title)
    axes[0].set_ylabel("InfoNCE, nats")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(picture, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="data/demo")
    parser.add_argument("--out", type=Path, default=Path("docs/results/full_reward"))
    parser.add_argument("--cases", default="preset,few", help=f"some of {', '.join(CASES)}")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--time", type=int, metavar="N", help="seconds of draws and updates instead, N of each")
    parser.add_argument("--plot", type=Path, help="picture to draw of what lies in --out")
    parser.add_argument("overrides", nargs="*", help="of recipes/reward.py")
    options = parser.parse_args()
    root = f"corpus.root={options.corpus}"
    options.out.mkdir(parents=True, exist_ok=True)
    if options.plot is not None:
        cfg = compose_config(CONF, "reward", [root, *SMALLER, *options.overrides])
        plot(options.out, options.plot, math.log(cfg.listening.recordings * cfg.listening.clips))
    elif options.time:
        rows = times(compose_config(CONF, "reward", [root, "reward_model=full", *options.overrides]), 16, options.time)
        write_rows(options.out / "times.csv", rows)
        for row in rows:
            print(" ".join(f"{key}={value:.3f}" if key != "what" else f"{value}:" for key, value in row.items()))
    else:
        for case in options.cases.split(","):
            utterances, changes = CASES[case]
            cfg = compose_config(CONF, "reward", [root, *SMALLER, *changes, *options.overrides])
            for seed in map(int, options.seeds.split(",")):
                write_rows(options.out / f"{case}_seed{seed}.csv", curve(cfg, seed, utterances))


if __name__ == "__main__":
    main()
