"""The perceptual reward: speech-mesh features by InfoNCE, lip and real heads on graded corruptions.

    python recipes/reward.py corpus.root=data/vocaset backbone=full

Chae-Yeon et al., CVPR 2025 for the backbone. A reward is as good as its negatives: corruptions on both sides of every
axis, in weak and strong versions, less corrupted ranked above more corrupted. Writes `model_loss.pth` and `v4_best.pt`
into the run folder, and `corruptions.csv`: how well unseen speakers' true motion is told from every corruption.
A judge is the same recipe with another seed and name.
"""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import torch
from omegaconf import DictConfig

from s2f_rl.errors import UserError
from s2f_rl.evaluation import write_rows
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from s2f_rl.rewards.bank import MotionBank
from s2f_rl.rewards.corruptions import CORRUPTIONS
from s2f_rl.rewards.motion import MotionStatistics
from s2f_rl.rewards.projection import MeshProjection
from s2f_rl.rewards.report import auc_table, corruption_auc
from s2f_rl.rewards.training import AudioFeatures, ClipSampler, reward_losses
from s2f_rl.runs import Progress, RunFolder, TrainingState, make_logger, pick_device, recipe_main, seed_everything
from s2f_rl.training import open_corpora

logger = logging.getLogger(__name__)


@recipe_main("reward")
def main(cfg: DictConfig) -> list[dict[str, Any]]:
    names = list(CORRUPTIONS) if cfg.corruptions == "all" else list(cfg.corruptions)
    unknown = [name for name in names if name not in CORRUPTIONS]
    if unknown:
        raise UserError(f"corruptions: {unknown[0]!r} is unknown; use all, or names among {', '.join(CORRUPTIONS)}")
    seed_everything(cfg.seed)
    device = pick_device(cfg.device)
    train, validation = open_corpora(cfg.corpus.root, cfg.corpus.topology)

    # what is normal in this corpus: motion, identity, and the motion that speech alone predicts
    bank = MotionBank(train)
    motion = MotionStatistics.fit(train, n_components=cfg.motion_components)
    draws = torch.Generator().manual_seed(cfg.seed)
    projection = MeshProjection.fit(motion, cfg.jitter_directions, draws)
    regressor = bank.fit_regressor(motion)
    options = cfg.sampler
    sampler = ClipSampler(
        bank, motion, projection, regressor, [CORRUPTIONS[name] for name in names], cfg.seed,
        options.n_stretches, options.n_windows, n_corruptions=options.n_corruptions, on_base=options.on_base,
        identity_spread=options.identity_spread, scale_range=options.scale_range,
    )  # fmt: skip

    size = cfg.backbone
    backbone = SpeechMeshTransformer(projection.width, size.width, size.depth, size.n_heads).to(device)
    head = ScoreHead(size.width, size.width, size.head_hidden, cfg.dropout, cfg.out_activation).to(device)
    centre_features(backbone, sampler, device)
    parameters = [*backbone.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=cfg.optimizer.lr, weight_decay=cfg.optimizer.weight_decay)
    known_audio = AudioFeatures(backbone, bank)
    state = TrainingState(backbone=backbone, head=head, optimizer=optimizer, sampler=sampler)

    with RunFolder(cfg.name, root=cfg.root, config=cfg, resume=cfg.resume) as folder:
        if folder.resuming:
            state.load_state_dict(folder.load_checkpoint("last.pt"))
            folder.rows.cut_after(state.iteration)
        if state.iteration == cfg.iterations and (folder / "corruptions.csv").exists():
            logger.info("%s: trained already", folder.path)
            return []
        log = make_logger(cfg.logger, folder.path, cfg.name, cfg, cfg.logger_online, state.iteration)
        progress = Progress(cfg.iterations, state.iteration, cfg.progress, cfg.name)
        head.train()

        for iteration in range(state.iteration + 1, cfg.iterations + 1):
            state.iteration = iteration
            # 1 draw true clips, other clips of the same utterance, and corruptions of them
            started = time.perf_counter()
            audio_trains = iteration <= cfg.audio_iterations
            if not audio_trains:
                sampler.n_stretches, sampler.n_windows = options.late_n_stretches, options.late_n_windows
            batch = sampler.draw().to(device)

            # 2 losses
            losses = reward_losses(backbone, head, batch, None if audio_trains else known_audio(batch))
            weight = cfg.info_nce_weight if audio_trains else cfg.late_info_nce_weight
            loss = weight * losses["info_nce"] + losses["rank"] + losses["classify"] + losses["value"]

            # 3 update
            share = (1 + math.cos(math.pi * (iteration - 1) / cfg.iterations)) / 2
            rate = min(1.0, iteration / cfg.optimizer.warmup_iterations) * (0.02 + 0.98 * share)
            optimizer.param_groups[0]["lr"] = cfg.optimizer.lr * rate
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, cfg.optimizer.max_grad_norm)
            optimizer.step()

            # 4 log and save
            state.frames += len(batch.clips)
            row = {"loss": loss, **losses, "grad_norm": norm, "time/iteration_s": time.perf_counter() - started}
            folder.rows.append(row, iteration, state.frames)
            progress.update(len(batch.clips), {"loss": loss, "rank": losses["rank"]})
            if iteration % cfg.save_every == 0 or iteration == cfg.iterations:
                log.log_scalars(row, iteration)
                folder.save_checkpoint("last.pt", state.state_dict())
        progress.close()
        log.close()

        # 5 the reward on raw vertices, in the published layout
        reward = RewardModel(projection.fold(backbone), head)
        reward.save(folder.path)

        # 6 how well it tells true from corrupted motion, on speakers it has not seen
        rows = corruption_auc(reward, validation, motion, regressor, [CORRUPTIONS[n] for n in names], seed=cfg.seed + 1)
        write_rows(folder / "corruptions.csv", rows)
        logger.info("AUC of true against corrupted motion on validation speakers\n%s", auc_table(rows))
    return rows


@torch.no_grad()
def centre_features(backbone: SpeechMeshTransformer, sampler: ClipSampler, device: torch.device) -> None:
    """Start with pooled features of mean zero: a common offset would make all cosines 1 and InfoNCE slow to start."""
    state = sampler.state_dict()
    batch = sampler.draw().to(device)
    sampler.load_state_dict(state)
    mesh = backbone.pool_mesh(backbone.embed_frames(batch.clips[: len(batch.mel)]))
    backbone.encoder.norm.bias -= mesh.mean(0)
    backbone.encoder_audio.norm.bias -= backbone.pool_audio(batch.mel).mean(0)


if __name__ == "__main__":
    main()
