"""Train an independent judge: temporal convolutions over 21 frames, which no policy is ever trained against.

    python recipes/judge.py corpus.root=data/demo
    python recipes/judge.py corpus.root=data/demo register=benchmarks/judges.json

Writes judge.pt into the run folder, and how well it tells true from spoiled motion on validation speakers (auc.csv,
auc.json).
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import shlex
import sys
import time
from typing import Any

import torch
from omegaconf import DictConfig

from s2f_rl.data.coefficients.rig import require_mesh
from s2f_rl.data.files import load_json
from s2f_rl.errors import UserError
from s2f_rl.provenance import package_versions, source_commit
from s2f_rl.rewards.calibration.auc import AucRow, auc_summary, auc_table, corruption_auc, spread_evenly, write_auc
from s2f_rl.rewards.corruptions import chosen_corruptions
from s2f_rl.rewards.judge.judge import Judge
from s2f_rl.rewards.judge.losses import judge_losses
from s2f_rl.rewards.judge.register import register_judge, require_register
from s2f_rl.rewards.judge.stretches import StretchSampler, long_enough
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.projection import MeshProjection
from s2f_rl.rewards.training.recordings import MotionBank
from s2f_rl.runs import Progress, RunFolder, TrainingState, make_logger, pick_device, recipe_main, seed_everything
from s2f_rl.schemas.reward import JudgeRun
from s2f_rl.training import StepGuard, cosine_decay, open_corpora


@recipe_main("judge", JudgeRun)
def main(cfg: DictConfig) -> dict[str, float]:
    if cfg.register is not None:
        require_register(cfg.register)
    seed_everything(cfg.seed)
    device = pick_device(cfg.device)
    train, validation = open_corpora(cfg.corpus.root, cfg.corpus.topology)
    require_mesh(train, "a judge")
    corruptions = chosen_corruptions(list(cfg.corruptions) if cfg.corruptions else None)
    long = long_enough(validation)
    if not long:
        raise UserError(f"{validation.root}: no validation utterance is as long as a judge's window of 21 frames")
    scored = [long[k] for k in spread_evenly(len(long), cfg.evaluation.utterances)]

    # what the training faces do, and what least squares would make of their speech
    bank = MotionBank(train, policy_samples=cfg.policy_samples)
    motion = MotionSubspace.fit(train, n_components=cfg.motion_directions)
    regressor = bank.fit_regressor(motion)

    # the judge on a fixed view of the mesh, which is part of its file
    draws = torch.Generator().manual_seed(cfg.seed)
    projection = MeshProjection.fit(motion, cfg.rough_directions, draws)
    judge = Judge.of(projection, **cfg.judge_model).to(device)
    judge.fps, judge.mesh_identity = float(train.fps), train.mesh_identity
    sampler = StretchSampler(bank, motion, projection, regressor, corruptions, cfg.seed, **cfg.stretches)
    trained = list(judge.parameters())
    optimizer = torch.optim.AdamW([{"params": trained, "lr_factor": 1.0}], weight_decay=cfg.optimizer.weight_decay)
    guard = StepGuard()
    state = TrainingState(judge=judge, optimizer=optimizer, sampler=sampler, projection=projection, guard=guard)

    with RunFolder(cfg.name, root=cfg.root, config=cfg, resume=cfg.resume) as folder:
        if folder.resuming:
            state.load_state_dict(folder.load_checkpoint("last.pt"))
            folder.rows.cut_after(state.iteration)
        logger = folder.rows.feed(make_logger(cfg.logger, folder.path, cfg.name, cfg, cfg.logger_online))
        progress = Progress(cfg.iterations, state.iteration, cfg.progress, cfg.name)
        values: dict[str, float] = {}

        for iteration in range(state.iteration + 1, cfg.iterations + 1):
            state.iteration = iteration
            # 1 draw: true stretches, and the same stretches spoiled weakly and strongly
            clock = [time.perf_counter()]
            batch = sampler.draw().to(device)
            n_frames = batch.frames.shape[0] * batch.frames.shape[1]
            state.frames += n_frames

            # 2 losses
            clock.append(time.perf_counter())
            losses = judge_losses(judge.train(), batch)
            loss = sum(cfg.weights[name] * term for name, term in losses.items())

            # 3 update
            optimizer.param_groups[0]["lr_factor"] = min(1.0, state.iteration / max(1, cfg.optimizer.warmup))
            lr = cosine_decay(optimizer, cfg.optimizer, state.iteration, cfg.iterations)
            norm = guard.step(loss, optimizer, cfg.optimizer.max_grad_norm)
            clock.append(time.perf_counter())

            # 4 log
            row: dict[str, Any] = {f"loss_{name}": float(term.detach()) for name, term in losses.items()}
            row |= {"grad_norm": float(norm), "lr": lr, "skipped_steps": guard.skipped()}
            row |= {"time/draw_s": clock[1] - clock[0], "time/update_s": clock[2] - clock[1]}
            progress.update(n_frames, {k: row[k] for k in ("loss_sync", "loss_rank")})

            # 5 evaluate on unseen speakers and save
            scored_now = state.iteration % cfg.evaluation.every == 0 or state.iteration == cfg.iterations
            if scored_now:
                rows = report(judge.frozen(), validation, scored, motion, regressor, folder)
                values = auc_summary(rows)
                row |= {f"validation/{k}": v for k, v in values.items()}
            folder.rows.append(row, state.iteration, state.frames)
            if scored_now or (folder.checkpoint_due(cfg.checkpoint_minutes) and not guard.in_row):
                folder.save_checkpoint("last.pt", state.state_dict())
        progress.close()
        logger.close()
        finish(cfg, Judge.load(folder.path), train, folder)
    return values


def report(judge: Judge, validation: Any, scored: list[int], motion: Any, regressor: Any, folder: Any) -> list[AucRow]:
    """Save the judge as it is, and how well it tells true from spoiled motion in the ``scored`` utterances."""
    rows = corruption_auc(judge, validation, motion, regressor, utterances=scored)  # first: refuses what has diverged
    judge.save(folder.path)
    about = {"judge": judge.content_hash(), "corpus": str(validation.root), "split": validation.split}
    write_auc(folder.path, rows, about)
    return rows


def finish(cfg: Any, judge: Judge, train: Any, folder: Any) -> None:
    """Tell what was made, and add it to the list of judges when one is named."""
    rows = load_json(folder.path / "auc.json")["rows"]
    if cfg.register is not None:
        entry = {"name": cfg.name, "hash": judge.content_hash(), "seed": cfg.seed, "vertices": judge.n_vertices}
        made = train.description.metadata.get("synthesis")
        entry["corpus"] = {"subjects": list(train.subjects), "utterances": len(train), "synthesis": made}
        entry["command"] = shlex.join(["python", *(each for each in sys.argv if not each.startswith("hydra"))])
        entry |= {"auc": auc_summary(rows), "commit": source_commit(), "versions": package_versions()}
        register_judge(cfg.register, entry)
    if cfg.progress:
        print(auc_table(rows))
        print("AUC on utterance means, * where the head ought to notice.")
        print(f"The judge is {folder.path / 'judge.pt'}, content hash {judge.content_hash()}")


if __name__ == "__main__":
    main()
