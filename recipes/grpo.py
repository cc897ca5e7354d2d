"""GRPO on speech-driven faces: returns normalised within a group, clipped ratio, KL to the start.

    python recipes/grpo.py start=checkpoints/supervised reward.folder=checkpoints/reward

Shao et al., 2024, with per-frame returns (their process supervision). The KL is the closed form of the two Gaussians
instead of the paper's one-sample estimate. normalise_advantage=false does not divide by the deviation (Dr. GRPO).
Every run has a compute-matched control: the same command with control=true.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

from omegaconf import DictConfig

from s2f_rl import keys
from s2f_rl.losses import (
    ClipPPOLoss,
    WeightedLoss,
    check_ratio_is_one,
    credited_returns,
    group_normalised_advantage,
)
from s2f_rl.runs import pick_device, recipe_main, seed_everything
from s2f_rl.schemas.rl import GRPO
from s2f_rl.training import RLRun, cosine_decay, gradient_step, lane_minibatches, make_collector, prepare_rl


@recipe_main("grpo", GRPO)
def main(cfg: DictConfig) -> dict[str, float]:
    seed_everything(cfg.seed)
    device = pick_device(cfg.device)
    # corpora, start actor, policy, environment, reward, critic, supervised term, KL, constraint
    parts = prepare_rl(cfg, device)
    policy = parts.policy
    collector = make_collector(cfg, parts)
    grpo = ClipPPOLoss(policy.actor_module, clip_epsilon=cfg.clip_epsilon)
    loss = WeightedLoss({"policy": (grpo, parts.policy_weight), **parts.auxiliary}, cfg.balance, hearing=parts.hearing)
    optimizer = parts.make_optimizer(loss)

    with RLRun(cfg, parts, optimizer, collector, anchor=loss.anchor_norm) as run:
        for iteration in run:
            # 1 collect: whole utterances, [B, T]
            with run.clock("collect"):
                batch = collector.next()

            # 2 reward
            with run.clock("reward"):
                batch = run.guard.checked(parts.reward(batch))

            # 3 advantage
            with run.clock("advantage"):
                mask = batch[keys.FRAME_MASK]
                returns = credited_returns(parts.signal(batch), mask, parts.credit, cfg.gamma)
                batch[keys.ADVANTAGE] = group_normalised_advantage(
                    returns, mask, cfg.group_size, scale=cfg.normalise_advantage
                )
                figures = parts.measure_constraint(batch)
                if iteration == 1:
                    check_ratio_is_one(policy.actor_module, parts.heard(batch))

            # 4 update
            with run.clock("update"):
                cosine_decay(optimizer, cfg.optimizer, iteration, cfg.iterations)
                outputs = []
                for _ in range(cfg.epochs):
                    for rows in lane_minibatches(batch, cfg.minibatch_lanes):
                        outputs.append(gradient_step(loss, rows, optimizer, cfg.optimizer.max_grad_norm, run.guard))
                figures |= parts.adapt_kl(outputs)

            # 5 log
            run.log(batch, outputs, figures)

            # 6 evaluate and save
            run.evaluate_and_save()
    return run.values


if __name__ == "__main__":
    main()
