"""A2C on speech-driven faces: one update for each batch, a critic or group baselines, auxiliary supervised loss.

    python recipes/a2c.py start=checkpoints/supervised reward.folder=checkpoints/reward

Mnih et al., 2016. Every run has a compute-matched control: the same command with control=true. The original project's
objective is a config of this recipe: +experiment=original.
"""

from __future__ import annotations

import contextlib
import time

import torch
from omegaconf import DictConfig
from torchrl.modules import set_recurrent_mode

from s2f_rl import keys
from s2f_rl.collectors import utterance_collector
from s2f_rl.errors import UserError
from s2f_rl.losses import (
    A2CLoss,
    WeightedLoss,
    check_ratio_is_one,
    gae_advantage,
    masked_standardise,
    total_loss,
)
from s2f_rl.runs import Progress, RunFolder, TrainingState, make_logger, pick_device, recipe_main, seed_everything
from s2f_rl.training import batch_statistics, clip_gradients, cosine_decay, mean_of, prepare_rl


@recipe_main("a2c")
def main(cfg: DictConfig) -> dict[str, float]:
    seed_everything(cfg.seed)
    device = pick_device(cfg.device)
    parts = prepare_rl(cfg, device)  # corpora, start actor, policy, environment, reward, critic, supervised term, KL
    policy, critic = parts.policy, parts.critic
    if critic is None:
        raise UserError("critic=none: A2C needs a critic, use critic=decoder or critic=backbone (ppo.py does without)")
    collector = utterance_collector(parts.env, policy)
    a2c = A2CLoss(policy.actor_module, critic, critic_coeff=cfg.critic.coeff, loss_critic_type="l2")
    loss = WeightedLoss({"policy": (a2c, parts.policy_weight), **parts.auxiliary}, cfg.balance)
    optimizer = parts.make_optimizer(loss)
    state = TrainingState(
        policy=policy, critic=critic, optimizer=optimizer, collector=collector,
        average=parts.average, validation=parts.validation, alarm=parts.alarm,
    )  # fmt: skip

    with RunFolder(cfg.name, root=cfg.root, config=cfg, resume=cfg.resume) as folder, collector:
        if folder.resuming:
            state.load_state_dict(folder.load_checkpoint("last.pt"))
            folder.rows.cut_after(state.iteration)
        else:
            parts.record_start(folder, state)
        logger = make_logger(cfg.logger, folder.path, cfg.name, cfg, cfg.logger_online, state.iteration)
        progress = Progress(cfg.iterations, state.iteration, cfg.progress, cfg.name)
        values: dict[str, float] = {}

        for iteration in range(state.iteration + 1, cfg.iterations + 1):
            state.iteration = iteration
            # 1 collect: whole utterances, [B, T]
            clock = [time.perf_counter()]
            batch = collector.next()

            # 2 reward
            clock.append(time.perf_counter())
            batch = parts.reward(batch)

            # 3 advantage
            clock.append(time.perf_counter())
            mask, reward = batch[keys.FRAME_MASK], batch["next", keys.REWARD]
            with torch.no_grad(), set_recurrent_mode(True):
                value = critic(batch.clone(False))[keys.STATE_VALUE]
            advantage, batch[keys.VALUE_TARGET] = gae_advantage(reward, value, mask, cfg.gamma, cfg.gae_lambda)
            batch[keys.ADVANTAGE] = masked_standardise(advantage, mask) if cfg.normalise_advantage else advantage
            if state.iteration == 1:
                check_ratio_is_one(policy.actor_module, batch)

            # 4 update
            cosine_decay(optimizer, cfg.optimizer, state.iteration, cfg.iterations)
            out = loss(batch)
            optimizer.zero_grad()
            total_loss(out).backward()
            clip_gradients(optimizer, cfg.optimizer.max_grad_norm)
            optimizer.step()
            if parts.average is not None:
                parts.average.update()
            clock.append(time.perf_counter())

            # 5 log
            row = batch_statistics(batch, policy, parts.lips, parts.train.metres_per_unit) | mean_of([out.detach()])
            state.frames += int(row["batch_frames"])
            parts.check_alarm(row)
            phases = zip(("collect", "reward", "update"), clock[:-1], clock[1:], strict=True)
            row |= {f"time/{phase}_s": end - start for phase, start, end in phases}
            progress.update(int(row["batch_frames"]), {k: row[k] for k in ("reward", "loss_policy")})

            # 6 evaluate and save
            if state.iteration % cfg.evaluation.every == 0 or state.iteration == cfg.iterations:
                with parts.average.swapped_in() if parts.average is not None else contextlib.nullcontext():
                    values = parts.validation()
                    parts.save_best(folder, state, values)
                row |= {f"validation/{k}": v for k, v in values.items()}
                folder.rows.append(row, state.iteration, state.frames)
                folder.save_checkpoint("last.pt", {**state.state_dict(), "actor": parts.actor_entry()})
            else:
                folder.rows.append(row, state.iteration, state.frames)
            logger.log_scalars(row, state.iteration)
        progress.close()
        logger.close()
    return values


if __name__ == "__main__":
    main()
