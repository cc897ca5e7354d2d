"""Train the perceptual reward: speech-mesh features by InfoNCE, lip and real scores by ranking spoiled motion.

    python recipes/reward.py corpus.root=data/demo
    python recipes/reward.py corpus.root=data/vocaset reward_model=full backbone=published/model_loss.pth

Writes model_loss.pth and v4_best.pt into the run folder, the same as a hub-style folder (pretrained/), and how well
they tell true from spoiled motion on validation speakers (auc.csv, auc.json; report=true for the whole report).
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import time
from typing import Any

import torch
from omegaconf import DictConfig

from s2f_rl import ranks
from s2f_rl.data.coefficients.rig import require_mesh
from s2f_rl.data.mel import CLIP_FRAMES
from s2f_rl.evaluation.evaluate import predict_own_styles
from s2f_rl.models.actors import use_actor
from s2f_rl.models.meeting import load_actor_for
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from s2f_rl.rewards.calibration.auc import (
    AucRow,
    auc_summary,
    auc_table,
    corruption_auc,
    spread_evenly,
    warn_of_unnoticed,
    write_auc,
)
from s2f_rl.rewards.calibration.report import reward_report
from s2f_rl.rewards.corruptions import chosen_corruptions
from s2f_rl.rewards.model.meeting import refuse_other_corpus
from s2f_rl.rewards.model.speech_mesh import N_PATCHES
from s2f_rl.rewards.motion.subspace import MotionSubspace, with_vertices
from s2f_rl.rewards.training.adversaries import Hardening
from s2f_rl.rewards.training.clips import ClipSampler
from s2f_rl.rewards.training.draw_ahead import DrawAhead, Planned
from s2f_rl.rewards.training.encoding import Encoding, clip_bytes
from s2f_rl.rewards.training.listening import MotionReadout, listening_losses, plan_pairs
from s2f_rl.rewards.training.losses import AudioFeatures, centre_features, finished_reward, reward_losses
from s2f_rl.rewards.training.memory import MemoryPlan
from s2f_rl.rewards.training.policy_samples import PolicySamples
from s2f_rl.rewards.training.projection import MeshProjection
from s2f_rl.rewards.training.recordings import MotionBank
from s2f_rl.rewards.training.speech_augmentation import SpeechAugmentation
from s2f_rl.runs import (
    Progress,
    TrainingState,
    make_logger,
    pick_device,
    recipe_main,
    seed_everything,
    shared_run_folder,
)
from s2f_rl.schemas.reward import RewardRun
from s2f_rl.training import StepGuard, cosine_decay, open_corpora


@recipe_main("reward", RewardRun)
def main(cfg: DictConfig) -> dict[str, float]:
    seed_everything(cfg.seed)
    device = pick_device(cfg.device)
    train, validation = open_corpora(cfg.corpus.root, cfg.corpus.topology)
    require_mesh(train, "a reward")
    use_actor(cfg.actor.kind)
    corruptions = chosen_corruptions(list(cfg.corruptions) if cfg.corruptions else None, cfg.leave_out)

    # backbone and head: either both from scratch on a projected mesh, or a head on a given backbone
    listening = cfg.listening.iterations if cfg.backbone is None else 0
    motion = MotionSubspace.fit(train, n_components=cfg.motion_directions)
    projection = None
    if cfg.backbone is None:
        directions = torch.Generator().manual_seed(cfg.seed)
        projection = MeshProjection.fit(motion, cfg.rough_directions, directions)
        size = cfg.reward_model
        backbone = SpeechMeshTransformer(projection.width, size.width, size.depth, size.n_heads, size.mlp_width)
    else:
        given = RewardModel.load(cfg.backbone)
        refuse_other_corpus(given, train, f"backbone={cfg.backbone}")
        backbone = given.backbone
    head = ScoreHead(backbone.width, backbone.width, cfg.reward_model.head_hidden, cfg.reward_model.dropout)
    readout = MotionReadout(backbone.width, len(motion.std))
    backbone, head, readout = backbone.to(device), head.to(device), readout.to(device)
    modules = (backbone, head, readout) if cfg.backbone is None else (head,)
    trained = [p for module in modules for p in module.parameters()]

    # what the training faces do, and what least squares would make of their speech
    speeds = list(cfg.speech.speeds) if listening else [1.0]
    plan = memory_plan(cfg, train, backbone, trained, speeds)
    bank = MotionBank(train, None, plan.recordings / 2**20, speeds, cfg.policy_samples)
    regressor = bank.fit_regressor(motion)
    # of several ranks each draws its part of a batch
    stretches = ranks.share_of(cfg.clips.n_stretches, "clips.n_stretches")
    recordings = ranks.share_of(cfg.listening.recordings, "listening.recordings") if listening else 0
    clips = {**cfg.clips, "n_stretches": stretches}
    sampler = ClipSampler(bank, motion, projection, regressor, corruptions, cfg.seed, **clips)
    encoding = Encoding(plan.step / 2 if device.type == "cpu" else None, cfg.precision == "bfloat16")
    audio_features = AudioFeatures(backbone, bank, plan.features, encoding)
    channel = SpeechAugmentation(cfg.speech.gain_db, cfg.speech.equaliser_db, cfg.speech.noise_db)

    def planned(iteration: int) -> Planned[Any, Any]:
        sampler.begin(iteration, recordings if iteration <= listening else stretches)
        if iteration <= listening:
            return plan_pairs(sampler, motion, channel, recordings, cfg.listening.clips)
        return sampler.plan()

    draws = DrawAhead(sampler, planned, cfg.iterations, cfg.draw_threads)
    optimizer = torch.optim.AdamW([{"params": trained, "lr_factor": 1.0}], weight_decay=cfg.optimizer.weight_decay)
    guard = StepGuard(shared=True)
    state = TrainingState(
        backbone=backbone, head=head, readout=readout, optimizer=optimizer, sampler=draws, projection=projection,
        guard=guard,
    )  # fmt: skip

    met = [] if cfg.policy is None else [cfg.policy] if isinstance(cfg.policy, str) else list(cfg.policy)
    actors = [load_actor_for(path, train, f"policy={path}")[0].to(device) for path in met]

    with shared_run_folder(cfg.name, cfg.root, cfg, cfg.resume) as folder, draws:
        if actors:
            place = folder / "policy_samples"
            places = [place] if len(actors) == 1 else [place / str(k) for k in range(len(actors))]
            samples = ranks.alone(
                lambda: [
                    str(predict_own_styles(actor, train, own, cfg.corpus.cache))
                    for actor, own in zip(actors, places, strict=True)
                ]
            )
            bank.policy = PolicySamples(samples, train.n_vertices)
        if folder.resuming:
            state.load_state_dict(folder.load_checkpoint("last.pt"))
            folder.rows.cut_after(state.iteration)
        elif cfg.backbone is None:
            sampler.begin(0, stretches)
            centre_features(backbone, sampler.draw().to(device))
        for module in (backbone, head, readout):
            ranks.same_weights(module.parameters())
        hardening = None  # a given backbone sees raw vertices, in which nothing is known of how far a change is
        if projection is not None and cfg.hardening.steps:
            hardening = Hardening(projection, motion, cfg.hardening.radii_mm, cfg.hardening.steps, cfg.hardening.hold)
        logger = folder.rows.feed(make_logger(cfg.logger, folder.path, cfg.name, cfg, cfg.logger_online))
        progress = Progress(cfg.iterations, state.iteration, cfg.progress, cfg.name)
        values: dict[str, float] = {}

        for iteration in range(state.iteration + 1, cfg.iterations + 1):
            state.iteration = iteration
            # 1 draw, begun an iteration ago: true pairs for the audio half; later true clips, and the same ones spoiled
            clock = [time.perf_counter()]
            first = state.iteration <= listening
            batch = draws(iteration).to(device)
            n_clips = len(batch.clips)
            state.frames += CLIP_FRAMES * n_clips * ranks.count()
            if ranks.count() > 1:  # dropout, and the patches that are looked at
                torch.manual_seed(ranks.step_seed(cfg.seed, ranks.rank(), iteration))

            # 2 features and losses
            clock.append(time.perf_counter())
            if first:
                losses = listening_losses(backbone, readout, batch, cfg.listening.kept_patches, encoding=encoding)
            else:
                heard = audio_features(batch)
                losses = reward_losses(backbone, head, batch, heard, encoding=encoding)
                if hardening is not None:
                    climbs = torch.Generator().manual_seed(batch.seed)
                    losses["hardening"] = hardening(backbone, head, batch, heard, climbs, encoding)
            loss = sum(cfg.weights[name] * term for name, term in losses.items())

            # 3 update
            done, of = (iteration, listening) if first else (iteration - listening, cfg.iterations - listening)
            optimizer.param_groups[0]["lr_factor"] = min(1.0, done / max(1, cfg.optimizer.warmup))
            lr = cosine_decay(optimizer, cfg.optimizer, done, of)
            norm = guard.step(loss, optimizer, cfg.optimizer.max_grad_norm)
            clock.append(time.perf_counter())

            # 4 log
            row: dict[str, Any] = {f"loss_{name}": float(ranks.mean(term.detach())) for name, term in losses.items()}
            row |= {"grad_norm": float(norm), "lr": lr, "skipped_steps": guard.skipped()}
            row |= {"time/draw_s": clock[1] - clock[0], "time/update_s": clock[2] - clock[1]}
            progress.update(n_clips, {k: row[k] for k in ("loss_info_nce", "loss_predict", "loss_rank") if k in row})

            # 5 evaluate on unseen speakers and save
            at_rest = state.iteration % cfg.evaluation.every == 0 or state.iteration == cfg.iterations
            if at_rest and not first:
                finished, limit_mb = finished_reward(backbone, head, projection), plan.step / 2**20
                rows = ranks.alone(
                    lambda: score(cfg, finished, validation, motion, regressor, folder, limit_mb)  # noqa: B023
                )
                values = auc_summary(rows)
                row |= {f"validation/{k}": v for k, v in values.items()}
            folder.rows.append(row, state.iteration, state.frames)
            due = at_rest or folder.checkpoint_due(cfg.checkpoint_minutes)
            if due and not ((first or not at_rest) and guard.in_row):  # where no score says that it is sound
                folder.save_checkpoint("last.pt", state.state_dict())
        progress.close()
        logger.close()
        if cfg.progress and values and ranks.is_first():
            print(auc_table(rows))
            print(f"AUC on utterance means, * where the head ought to notice. The reward is in {folder.path}")
        if values and ranks.is_first():
            warn_of_unnoticed(rows)
        if cfg.report and ranks.is_first():
            where = folder.path / "report"
            reward_report(folder.path, cfg.corpus.root, where, topology=cfg.corpus.topology, device=str(device))
    return values


def memory_plan(cfg: Any, train: Any, backbone: SpeechMeshTransformer, trained: list[Any], speeds: Any) -> MemoryPlan:
    """Share ``memory_limit_mb`` between the caches and an update, by what each would take."""
    n_frames = sum(train.n_frames(i) for i in with_vertices(train)) * sum(1 / speed for speed in speeds)
    clips, listening = cfg.clips, cfg.listening
    pairs = listening.recordings * listening.clips
    mesh = clip_bytes(backbone, CLIP_FRAMES)
    first = pairs * max(mesh, clip_bytes(backbone, round(listening.kept_patches * N_PATCHES)))
    later = clips.n_stretches * clips.n_windows * (1 + 3 * clips.n_corruptions) * mesh
    n_trained = sum(p.numel() for p in trained)
    frozen = 0 if cfg.backbone is None else sum(p.numel() for p in backbone.parameters())
    return MemoryPlan.within(
        cfg.memory_limit_mb, n_trained, frozen, int(4 * backbone.width * n_frames), 2 * max(first, later)
    )


def score(
    cfg: Any, reward: RewardModel, validation: Any, motion: Any, regressor: Any, folder: Any, memory_mb: float
) -> list[AucRow]:
    """Save the reward as it is, and how well it tells true from spoiled motion of validation speakers."""
    reward.fps, reward.mesh_identity = float(validation.fps), validation.mesh_identity
    chosen = spread_evenly(len(validation), cfg.evaluation.utterances)  # over all speakers
    rows = corruption_auc(  # first: refuses what has diverged
        reward, validation, motion, regressor, utterances=chosen, memory_limit_mb=memory_mb
    )
    reward.save(folder.path)
    reward.save_pretrained(folder.path / "pretrained")
    about = {"reward": reward.content_hash(), "corpus": str(validation.root), "split": validation.split}
    write_auc(folder.path, rows, about)
    return rows


if __name__ == "__main__":
    main()
