"""A second judge, of another draw of the built-in corpus and of other negatives than the reward's.

    python -m benchmarks.second_judge checkpoints/second_judge register=benchmarks/judges.json

Makes a corpus of other faces, styles and takes (seed 2000; of its 67 training voices those of the benchmark's
validation and test speakers are left out), two actors of it that have trained too little, and a judge from the
generator's own wrong motion (:mod:`benchmarks.wrong_world`) and from those actors'. No corruption that the reward is
trained on is among its negatives; how it tells these is what auc.csv says, on voices that it has not heard. Keys:
those of recipes/judge.py. A killed run keeps the corpus and the actors that it has.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.wrong_world import WorldBank, world_corruptions
from s2f_rl.data import FaceCorpus
from s2f_rl.data.files import atomic_save_npy
from s2f_rl.data.synthetic import synthesize
from s2f_rl.errors import UserError
from s2f_rl.evaluation import predict_corpus
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.meeting import load_actor_for
from s2f_rl.provenance import package_versions, source_commit
from s2f_rl.rewards.calibration.auc import auc_summary, corruption_auc, spread_evenly, write_auc
from s2f_rl.rewards.judge.judge import Judge
from s2f_rl.rewards.judge.losses import judge_losses
from s2f_rl.rewards.judge.register import register_judge, require_register
from s2f_rl.rewards.judge.stretches import StretchSampler
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.projection import MeshProjection
from s2f_rl.runs import Progress, load_recipe, seed_everything
from s2f_rl.runs.mistakes import mistake_line
from s2f_rl.training import StepGuard, cosine_decay

CORPUS = {"subjects": 99, "sentences": 8, "vertices": 600, "seed": 2000}
LEFT_OUT = range(33, 49)
"""Speakers whose voices are those of the benchmark's validation and test speakers."""
ACTORS = {"early": 80, "late": 300}
"""Iterations of supervised training."""


def actor_motions(root: Path, train: FaceCorpus, corpus: Path, out: Path) -> None:
    """Train the actors and write their motion of every training utterance, unless it is there."""
    for name, iterations in ACTORS.items():
        folder = root / "actors" / name
        if not (folder / "last.pt").exists():
            load_recipe("supervised").run(
                [
                    f"corpus.root={corpus}", f"root={root / 'actors'}", f"name={name}", f"iterations={iterations}",
                    f"warmup_iterations={iterations // 3}", f"evaluation.every={iterations}",
                    "evaluation.conditions=[0]", "batch_size=8", "optimizer.lr=1e-3", "actor=mel", "progress=false",
                    "logger=none", "page=none", "resume=true",
                ]
            )  # fmt: skip
        actor = load_actor_for(folder / "last.pt", train)[0]
        styles = [[train.subjects.index(train[i].subject)] for i in range(len(train))]
        with torch.no_grad():
            for each in predict_corpus(actor, CachedAudio(actor.audio_encoder, train), range(len(train)), styles):
                u = train[each.utterance]
                path = out / f"{u.name}_condition_{name}.npy"
                atomic_save_npy(path, (each.displacement[0] + u.template).numpy().astype(np.float32))


def train_judge(cfg: Any, bank: WorldBank, motion: MotionSubspace) -> Judge:
    """A judge from the bank's takes, by the losses and the settings of recipes/judge.py."""
    seed_everything(cfg.seed)
    projection = MeshProjection.fit(motion, cfg.rough_directions, torch.Generator().manual_seed(cfg.seed))
    judge = Judge.of(projection, **cfg.judge_model)
    judge.fps, judge.mesh_identity = float(bank.corpus.fps), bank.corpus.mesh_identity
    sampler = StretchSampler(bank, motion, projection, None, world_corruptions(), cfg.seed, **cfg.stretches)
    optimizer = torch.optim.AdamW(
        [{"params": list(judge.parameters()), "lr_factor": 1.0}], weight_decay=cfg.optimizer.weight_decay
    )
    guard, progress = StepGuard(), Progress(cfg.iterations, 0, cfg.progress, "second judge")
    for iteration in range(1, cfg.iterations + 1):
        batch = sampler.draw()
        losses = judge_losses(judge.train(), batch)
        optimizer.param_groups[0]["lr_factor"] = min(1.0, iteration / max(1, cfg.optimizer.warmup))
        cosine_decay(optimizer, cfg.optimizer, iteration, cfg.iterations)
        guard.step(sum(cfg.weights[k] * term for k, term in losses.items()), optimizer, cfg.optimizer.max_grad_norm)
        progress.update(batch.frames.numel() // batch.frames.shape[-1], {"rank": float(losses["rank"].detach())})
    progress.close()
    return judge.frozen()


def main(arguments: Sequence[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of all that is made")
    parser.add_argument("overrides", nargs="*", help="key=value of recipes/judge.py")
    options = parser.parse_args(arguments)
    root, corpus = options.root, options.root / "corpus"
    cfg = load_recipe("judge").compose(["seed=2000", "name=second", "stretches.on_base=0", *options.overrides])
    if cfg.register is not None:
        require_register(cfg.register)
    synthesize(corpus, **CORPUS, progress=bool(cfg.progress))
    train, unheard = (FaceCorpus(corpus, split=split) for split in ("train", "test"))
    motions = root / "motions"
    actor_motions(root, train, corpus, motions)
    kept = [i for i in range(len(train)) if int(train[i].subject[1:3]) not in LEFT_OUT]
    bank = WorldBank(train, kept, policy_samples=motions)
    motion = MotionSubspace.fit(train, kept, cfg.motion_directions)
    judge = train_judge(cfg, bank, motion)
    scored = spread_evenly(len(unheard), cfg.evaluation.utterances or 32)
    rows = corruption_auc(judge, unheard, motion, bank.fit_regressor(motion), utterances=scored)
    judge.save(root)
    write_auc(root, rows, {"judge": judge.content_hash(), "corpus": "built-in, seed 2000", "split": "test"})
    if cfg.register is not None:
        about = {"subjects": sorted(set(bank.subjects)), "utterances": len(bank), "synthesis": CORPUS}
        register_judge(
            cfg.register,
            {
                "name": cfg.name, "hash": judge.content_hash(), "seed": cfg.seed, "vertices": judge.n_vertices,
                "corpus": about, "negatives": [each.name for each in world_corruptions()],
                "command": " ".join(["python", "-m", "benchmarks.second_judge", *arguments]),
                "auc": auc_summary(rows), "commit": source_commit(), "versions": package_versions(),
            },
        )  # fmt: skip
    print(f"The judge is {root / 'judge.pt'}, content hash {judge.content_hash()}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (UserError, OSError) as error:
        if mistake_line(error) is None:
            raise
        sys.exit(f"error: {mistake_line(error)}")
