"""PPO on speech-driven faces: clipped ratio in the motion latent, group baselines, auxiliary supervised loss.

    python recipes/ppo.py start=checkpoints/supervised reward.folder=checkpoints/reward

Schulman et al., 2017; group baselines as in RLOO (Ahmadian et al., 2024). Every run has a compute-matched control:
the same command with control=true.
"""

from __future__ import annotations

import contextlib
import time

import torch
from omegaconf import DictConfig
from torchrl.modules import set_recurrent_mode

from s2f_rl import keys
from s2f_rl.collectors import utterance_collector
from s2f_rl.losses import (
    ClipPPOLoss,
    WeightedLoss,
    check_ratio_is_one,
    discounted_returns,
    gae_advantage,
    group_relative_advantage,
    masked_standardise,
    total_loss,
)
from s2f_rl.runs import Progress, RunFolder, TrainingState, make_logger, pick_device, recipe_main, seed_everything
from s2f_rl.training import batch_statistics, clip_gradients, cosine_decay, lane_minibatches, mean_of, prepare_rl


@recipe_main("ppo")
def main(cfg: DictConfig) -> dict[str, float]:
    seed_everything(cfg.seed)
    device = pick_device(cfg.device)
    parts = prepare_rl(cfg, device)  # corpora, start actor, policy, environment, reward, critic, supervised term, KL
    policy, critic = parts.policy, parts.critic
    collector = utterance_collector(parts.env, policy)
    ppo = ClipPPOLoss(policy.actor_module, critic, clip_epsilon=cfg.clip_epsilon, critic_coeff=cfg.critic.coeff or None)
    loss = WeightedLoss({"policy": (ppo, parts.policy_weight), **parts.auxiliary}, cfg.balance)
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
            if critic is None:
                returns = discounted_returns(reward, mask, cfg.gamma)
                advantage = group_relative_advantage(returns, mask, cfg.group_size)
            else:
                with torch.no_grad(), set_recurrent_mode(True):
                    value = critic(batch.clone(False))[keys.STATE_VALUE]
                advantage, batch[keys.VALUE_TARGET] = gae_advantage(reward, value, mask, cfg.gamma, cfg.gae_lambda)
            batch[keys.ADVANTAGE] = masked_standardise(advantage, mask)
            if state.iteration == 1:
                check_ratio_is_one(policy.actor_module, batch)

            # 4 update
            cosine_decay(optimizer, cfg.optimizer, state.iteration, cfg.iterations)
            outputs = []
            for _ in range(cfg.epochs):
                for rows in lane_minibatches(batch, cfg.minibatch_lanes):
                    out = loss(rows)
                    optimizer.zero_grad()
                    total_loss(out).backward()
                    clip_gradients(optimizer, cfg.optimizer.max_grad_norm)
                    optimizer.step()
                    outputs.append(out.detach())
                    if parts.average is not None:
                        parts.average.update()
            clock.append(time.perf_counter())

            # 5 log
            row = batch_statistics(batch, policy, parts.lips, parts.train.metres_per_unit) | mean_of(outputs)
            state.frames += int(row["batch_frames"])
            parts.check_alarm(row)
            phases = zip(("collect", "reward", "update"), clock[:-1], clock[1:], strict=True)
            row |= {f"time/{phase}_s": end - start for phase, start, end in phases}
            progress.update(int(row["batch_frames"]), {k: row[k] for k in ("reward", "policy_kl_approx")})

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
