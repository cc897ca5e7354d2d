"""Train the articulation reward: a density of what the lips do, given the phones in context and the style.

    python recipes/articulation.py corpus.root=data/demo
    python recipes/articulation.py corpus.root=data/demo phones=data/demo_phones

Writes articulation.pt into the run folder, for `reward.parts.articulation={kind: articulation, folder: ...}`.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import time

import torch
from omegaconf import DictConfig

from s2f_rl.data.coefficients.rig import require_mesh
from s2f_rl.data.contract import place_of
from s2f_rl.data.units import MILLIMETRE
from s2f_rl.provenance import package_versions, source_commit
from s2f_rl.rewards.articulation.density import LipDensity
from s2f_rl.rewards.articulation.density_files import TrainedDensity
from s2f_rl.rewards.articulation.lessons import LessonSampler, describe, lessons, mean_log_density
from s2f_rl.rewards.articulation.phones import PhoneSource
from s2f_rl.rewards.calibration.auc import spread_evenly
from s2f_rl.runs import Progress, RunFolder, TrainingState, make_logger, pick_device, recipe_main, seed_everything
from s2f_rl.schemas.reward import ArticulationRun
from s2f_rl.training import StepGuard, cosine_decay, open_corpora


@recipe_main("articulation", ArticulationRun)
def main(cfg: DictConfig) -> dict[str, float]:
    seed_everything(cfg.seed)
    device = pick_device(cfg.device)
    train, validation = open_corpora(cfg.corpus.root, cfg.corpus.topology)
    require_mesh(train, "a density of lips")
    source = PhoneSource(cfg.phones)
    source.require(train)
    lips = torch.as_tensor(train.regions["lips"]).long().flatten()
    known, unseen = lessons(train, source, lips), lessons(validation, source, lips)
    unseen = [unseen[k] for k in spread_evenly(len(unseen), cfg.evaluation.utterances)]

    # the density, on the principal directions of the training lips
    frames = torch.cat([lesson.lips for lesson in known])
    frames = frames[spread_evenly(len(frames), cfg.pca_frames)]
    density = LipDensity.of(lips, frames, len(train.subjects), cfg.coefficients, cfg.width, cfg.depth).to(device)
    sampler = LessonSampler(known, train.fps, cfg.seed, batch_size=cfg.batch_size, **cfg.mistakes)
    groups = [{"params": list(density.parameters()), "lr_factor": 1.0}]
    optimizer = torch.optim.AdamW(groups, weight_decay=cfg.optimizer.weight_decay)
    guard = StepGuard()
    state = TrainingState(density=density, optimizer=optimizer, sampler=sampler, guard=guard)
    about = {"corpus": place_of(train), "phones": "the corpus's" if cfg.phones is None else cfg.phones}
    about |= {"utterances": len(known), "seed": cfg.seed, "commit": source_commit(), "versions": package_versions()}

    with RunFolder(cfg.name, root=cfg.root, config=cfg, resume=cfg.resume) as folder:
        if folder.resuming:
            state.load_state_dict(folder.load_checkpoint("last.pt"))
            folder.rows.cut_after(state.iteration)
        logger = folder.rows.feed(make_logger(cfg.logger, folder.path, cfg.name, cfg, cfg.logger_online))
        progress = Progress(cfg.iterations, state.iteration, cfg.progress, cfg.name)
        values: dict[str, float] = {}

        for iteration in range(state.iteration + 1, cfg.iterations + 1):
            state.iteration = iteration
            # 1 draw: lips and phones, with mistakes in the phones
            clock = time.perf_counter()
            batch = sampler.draw(density).to(device)
            n_frames = int(batch.mask.sum())
            state.frames += n_frames

            # 2 loss and update
            loss = -mean_log_density(density.train(), batch)
            optimizer.param_groups[0]["lr_factor"] = min(1.0, iteration / max(1, cfg.optimizer.warmup))
            lr = cosine_decay(optimizer, cfg.optimizer, iteration, cfg.iterations)
            norm = guard.step(loss, optimizer, cfg.optimizer.max_grad_norm)

            # 3 log
            row = {"loss": float(loss.detach()), "grad_norm": float(norm), "lr": lr, "skipped_steps": guard.skipped()}
            row["time/iteration_s"] = time.perf_counter() - clock
            progress.update(n_frames, {"loss": row["loss"]})

            # 4 evaluate on the validation speakers and save
            scored = iteration % cfg.evaluation.every == 0 or iteration == cfg.iterations
            if scored:
                values = describe(density.eval(), unseen, train.fps)
                row |= {f"validation/{name}": value for name, value in values.items()}
                sd_mm = describe(density, known[:: max(1, len(known) // 64)], train.fps)["sd_mm"]
                density.typical_m.fill_(sd_mm * MILLIMETRE)
                trained = TrainedDensity(density, tuple(train.subjects), train.fps, train.mesh_identity, about)
                trained.save(folder.path)
            folder.rows.append(row, iteration, state.frames)
            if scored or (folder.checkpoint_due(cfg.checkpoint_minutes) and not guard.in_row):
                folder.save_checkpoint("last.pt", state.state_dict())
        progress.close()
        logger.close()
        if cfg.progress:
            told = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
            print(f"{folder.path / 'articulation.pt'}: validation: {told}")
    return values


if __name__ == "__main__":
    main()
