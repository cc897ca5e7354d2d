"""A supervised actor, which reinforcement learning starts from: FaceFormer (Fan et al., CVPR 2022), or one of your own.

    python recipes/supervised.py corpus.root=data/vocaset actor=wav2vec2
    python recipes/supervised.py corpus.root=data/vocaset actor=codetalker actor.codebook=checkpoints/codebook
    python recipes/supervised.py corpus.root=data/vocaset actor.kind=my_package.my_module:MyActor

Loss: squared error of positions and of frame-to-frame differences, in mm^2, on the mean motion; and the actor's own
terms, where it has any.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import contextlib
import time

import torch
from omegaconf import DictConfig
from torch.nn.functional import one_hot
from torch.nn.utils.rnn import pad_sequence

from s2f_rl import ranks
from s2f_rl.data.contract import recorded
from s2f_rl.errors import UserError
from s2f_rl.evaluation import Scorer
from s2f_rl.losses import lip_vertex_weight, motion_errors
from s2f_rl.models.actors import new_actor
from s2f_rl.models.audio_cache import CachedAudio, TrainingAudio
from s2f_rl.models.contract import ImitatesByTerms, Imitation
from s2f_rl.rewards import RewardModel
from s2f_rl.runs import (
    PolicyAverage,
    Progress,
    TrainingState,
    make_logger,
    pick_device,
    recipe_main,
    seed_everything,
    shared_run_folder,
)
from s2f_rl.schemas.supervised import SupervisedRun
from s2f_rl.training import (
    StepGuard,
    Validation,
    actor_entry,
    actor_moments,
    cosine_decay,
    frozen_encoder,
    make_optimizer,
    open_corpora,
    plain,
)


@recipe_main("supervised", SupervisedRun)
def main(cfg: DictConfig) -> dict[str, float]:
    seed_everything(cfg.seed)
    device = pick_device(cfg.device)
    train, validation = open_corpora(cfg.corpus.root, cfg.corpus.topology)
    trainable = [i for i in range(len(train)) if train.has_vertices(i)]
    if not trainable:
        raise UserError(f"corpus.root={cfg.corpus.root}: no training utterance has vertices, nothing to imitate")

    actor = new_actor(corpus=train, **plain(cfg.actor))
    actor.audio_encoder.set_trainable(cfg.train_encoder)
    actor.to(device)
    speech = (TrainingAudio if cfg.train_encoder else CachedAudio)(actor.audio_encoder, train, cfg.corpus.cache)
    weight = lip_vertex_weight(train, cfg.lip_weight)
    weight = None if weight is None else weight.to(device)
    options = cfg.optimizer
    optimizer = make_optimizer(
        [(actor.named_parameters(), 1.0)], options.lr, options.output_lr_factor, options.weight_decay,
        output_map=actor.output_map(),
    )  # fmt: skip
    average = None if cfg.ema_decay is None else PolicyAverage(actor, cfg.ema_decay)
    scorer = None
    if cfg.reward.folder is not None:
        scorer = Scorer({"train": RewardModel.load(cfg.reward.folder)}, validation, cfg.corpus.cache)
    validate = Validation(
        actor, validation, scorer, cfg.evaluation.conditions, "lve", encoder_trains=cfg.train_encoder,
        stride=cfg.evaluation.stride, styles=cfg.evaluation.styles, cache=cfg.corpus.cache,
    )  # fmt: skip
    draws = torch.Generator().manual_seed(cfg.seed)
    guard = StepGuard(average, shared=True)
    ranks.same_weights(actor.parameters())
    batch_size = ranks.share_of(cfg.batch_size, "batch_size")
    state = TrainingState(
        actor=actor, optimizer=optimizer, average=average, validation=validate, draws=draws, guard=guard
    )

    with shared_run_folder(cfg.name, cfg.root, cfg, cfg.resume) as folder:
        folder.share("encoder", frozen_encoder(actor))
        if folder.resuming:
            state.load_state_dict(folder.load_checkpoint("last.pt"))
            folder.rows.cut_after(state.iteration)
        logger = folder.rows.feed(make_logger(cfg.logger, folder.path, cfg.name, cfg, cfg.logger_online))
        progress = Progress(cfg.iterations, state.iteration, cfg.progress, "supervised")
        values: dict[str, float] = {}

        for iteration in range(state.iteration + 1, cfg.iterations + 1):
            state.iteration = iteration
            if ranks.count() > 1:  # dropout of its own for each, the same in a resumed run
                seed_everything(ranks.step_seed(cfg.seed, ranks.rank(), iteration))
            # 1 draw utterances, and take this rank's
            started = time.perf_counter()
            picks = [trainable[k] for k in torch.randint(len(trainable), (cfg.batch_size,), generator=draws).tolist()]
            picks = picks[ranks.rank() * batch_size :][:batch_size]
            utterances = [train[i] for i in picks]
            motions = [(recorded(u) - u.template)[: cfg.max_frames or None] for u in utterances]
            n_frames = [len(motion) for motion in motions]
            truth = pad_sequence(motions, True).to(device)
            mask = (torch.arange(truth.shape[1]) < torch.tensor(n_frames)[:, None]).unsqueeze(-1).to(device)
            columns = torch.tensor([train.subjects.index(u.subject) for u in utterances])
            style = one_hot(columns, len(train.subjects)).float().to(device)

            # 2 encode speech, utterance by utterance: padding would enter the encoder's normalisation over time
            actor.train()
            features = [speech.get(i).to(device) for i in picks]
            audio = pad_sequence([f[:n] for f, n in zip(features, n_frames, strict=True)], True)

            # 3 predict and compare
            forced = cfg.mode == "teacher_forced" or state.iteration <= cfg.warmup_iterations
            if isinstance(actor, ImitatesByTerms):
                imitated = actor.imitation(audio, style, truth, n_frames, forced)
            else:
                imitated = Imitation(actor.imitate(audio, style, truth, forced), {})
            position, velocity = motion_errors(imitated.displacement, truth, mask, weight)
            loss = position + cfg.velocity_weight * velocity
            for term in imitated.terms.values():
                loss = loss + term

            # 4 update
            cosine_decay(optimizer, cfg.optimizer, state.iteration, cfg.iterations)
            norm = guard.step(loss, optimizer, cfg.optimizer.max_grad_norm)

            # 5 log
            n_seen = int(ranks.total(mask.sum()))
            state.frames += n_seen
            row = {
                "loss": ranks.mean(loss),
                "loss_position_mm2": ranks.mean(position),
                "loss_velocity_mm2": ranks.mean(velocity),
                **{f"loss_{name}": ranks.mean(term) for name, term in imitated.terms.items()},
                "grad_norm": norm,
                "skipped_steps": guard.skipped(),
                "time/iteration_s": time.perf_counter() - started,
            }
            progress.update(n_seen, {"loss": loss})

            # 6 evaluate and save
            due = state.iteration % cfg.evaluation.every == 0 or state.iteration == cfg.iterations
            if not due and not (folder.checkpoint_due(cfg.checkpoint_minutes) and not guard.in_row):
                folder.rows.append(row, state.iteration, state.frames)
                continue
            if due:
                with average.swapped_in() if average is not None else contextlib.nullcontext():
                    values = ranks.alone(validate)
                row |= {f"validation/{k}": v for k, v in values.items()}
            # what a run starts from; it shares memory with the state, so last.pt holds it once
            found = {"actor": actor_entry(actor, train, average), "moments": actor_moments(optimizer, actor)}
            value = validate.value(values) if due else None
            if value is not None and (state.best is None or value > state.best):
                state.best = value
                folder.save_checkpoint("best.pt", {**found, "iteration": state.iteration, "validation": values})
            folder.rows.append(row, state.iteration, state.frames)
            found["moments"] = actor_moments(optimizer, actor, whole=True)
            folder.save_checkpoint("last.pt", {**state.state_dict(), **found})
        progress.close()
        logger.close()
    return values


if __name__ == "__main__":
    main()
