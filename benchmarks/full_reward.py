"""Does the full reward's preset learn? InfoNCE of its first phase, by seed, on a few utterances and on unseen voices.

    python benchmarks/full_reward.py --corpus data/demo --out docs/results/full_reward [--seeds 0,1,2] [key=value ...]

Takes rates, weights and precision of `recipes/reward.py reward_model=full` and makes sizes such as two cores can do:
overrides go to that recipe (`reward_model.width=512`, `optimizer.lr=3e-3`). A batch is of N pairs, and chance is log N.
Writes LABEL_seedS.csv: iteration, loss on the batch, and, every 25 iterations, on pairs of validation speakers with
all of their patches. With --plot, draws what lies in --out and trains nothing.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import argparse
import csv
import math
import time
from pathlib import Path
from typing import Any

import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.evaluation.evaluate import write_rows
from s2f_rl.rewards import SpeechMeshTransformer
from s2f_rl.rewards.corruptions import chosen_corruptions
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.clips import ClipSampler
from s2f_rl.rewards.training.draw_ahead import DrawAhead
from s2f_rl.rewards.training.encoding import Encoding
from s2f_rl.rewards.training.listening import MotionReadout, draw_pairs, listening_losses, plan_pairs
from s2f_rl.rewards.training.losses import centre_features
from s2f_rl.rewards.training.projection import MeshProjection
from s2f_rl.rewards.training.recordings import MotionBank
from s2f_rl.rewards.training.speech_augmentation import SpeechAugmentation
from s2f_rl.runs import seed_everything
from s2f_rl.runs.configs import compose_config
from s2f_rl.training import StepGuard, cosine_decay

CONF = Path(__file__).resolve().parents[1] / "recipes" / "conf"
SMALLER = (
    "reward_model=full", "reward_model.width=256", "reward_model.mlp_width=1024", "speech.speeds=[1.0]",
    "listening.recordings=8", "listening.clips=4", "listening.kept_patches=0.25", "listening.iterations=250",
)  # fmt: skip
EVERY = 25


def curve(cfg: Any, seed: int, utterances: int) -> list[dict[str, float]]:
    """Train the first phase; a row for each iteration."""
    seed_everything(seed)
    train, unseen = FaceCorpus(cfg.corpus.root, "train"), FaceCorpus(cfg.corpus.root, "validation")
    few = list(range(0, len(train), max(1, len(train) // utterances)))[:utterances]
    motion = MotionSubspace.fit(train, n_components=cfg.motion_directions)
    projection = MeshProjection.fit(motion, cfg.rough_directions, torch.Generator().manual_seed(seed))
    size, options = cfg.reward_model, cfg.listening
    backbone = SpeechMeshTransformer(projection.width, size.width, size.depth, size.n_heads, size.mlp_width)
    readout = MotionReadout(backbone.width, len(motion.std))
    bank = MotionBank(train, few, speeds=list(cfg.speech.speeds))
    samplers = [
        ClipSampler(each, motion, projection, None, chosen_corruptions(), seed, **cfg.clips)
        for each in (bank, MotionBank(unseen))
    ]
    channel = SpeechAugmentation(cfg.speech.gain_db, cfg.speech.equaliser_db, cfg.speech.noise_db)
    held_out = draw_pairs(samplers[1], motion, None, options.recordings, options.clips)
    centre_features(backbone, samplers[0].draw())
    trained = [*backbone.parameters(), *readout.parameters()]
    optimizer = torch.optim.AdamW([{"params": trained, "lr_factor": 1.0}], weight_decay=cfg.optimizer.weight_decay)
    encoding, guard = Encoding(None, cfg.precision == "bfloat16"), StepGuard()
    rows = []

    def planned(_: int) -> Any:
        return plan_pairs(samplers[0], motion, channel, options.recordings, options.clips)

    with DrawAhead(samplers[0], planned, options.iterations, 1) as draws:
        for iteration in range(1, options.iterations + 1):
            started = time.perf_counter()
            losses = listening_losses(backbone, readout, draws(iteration), options.kept_patches, encoding=encoding)
            optimizer.param_groups[0]["lr_factor"] = min(1.0, iteration / max(1, cfg.optimizer.warmup))
            cosine_decay(optimizer, cfg.optimizer, iteration, options.iterations)
            loss = sum(cfg.weights[name] * term for name, term in losses.items())
            guard.step(torch.as_tensor(loss), optimizer, cfg.optimizer.max_grad_norm)
            row = {"iteration": iteration, **{name: round(float(term.detach()), 4) for name, term in losses.items()}}
            row["time_s"] = round(time.perf_counter() - started, 3)
            if iteration % EVERY == 0:
                with torch.no_grad():
                    unheard = listening_losses(backbone, readout, held_out, 1.0)
                row |= {f"unseen_{name}": round(float(term), 4) for name, term in unheard.items()}
                print(row, flush=True)
            rows.append(row)
    return rows


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
        axes[0].plot(range(10, len(loss) + 10), loss, color=colour, label=label if new else None, linewidth=1)
        told = [(int(row["iteration"]), float(row["unseen_info_nce"])) for row in rows if row["unseen_info_nce"]]
        axes[1].plot(*zip(*told, strict=True), color=colour, linewidth=1)
    for axis, title in zip(axes, ("training pairs, speech changed", "pairs of unseen voices"), strict=True):
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
    parser.add_argument("--label", default="preset", help="name of the files and of the curve")
    parser.add_argument("--utterances", type=int, default=16, help="of the training speakers")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--plot", type=Path, help="picture to draw of what lies in --out")
    parser.add_argument("overrides", nargs="*", help="of recipes/reward.py")
    options = parser.parse_args()
    cfg = compose_config(CONF, "reward", [f"corpus.root={options.corpus}", *SMALLER, *options.overrides])
    if options.plot is not None:
        plot(options.out, options.plot, math.log(cfg.listening.recordings * cfg.listening.clips))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    for seed in map(int, options.seeds.split(",")):
        write_rows(options.out / f"{options.label}_seed{seed}.csv", curve(cfg, seed, options.utterances))


if __name__ == "__main__":
    main()
