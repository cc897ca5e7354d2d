"""Reward gradient: back-propagation through the frozen reward and the rollout, the perceptual-loss baseline.

    python recipes/reward_gradient.py start=checkpoints/supervised reward.folder=checkpoints/reward

What a policy gradient is compared with: it needs a differentiable reward and about twice the compute, and follows that
reward's own flaws more closely. Every run has a compute-matched control: the same command with control=true.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

from omegaconf import DictConfig

from s2f_rl.losses import (
    RewardGradientLoss,
    WeightedLoss,
    check_ratio_is_one,
)
from s2f_rl.runs import pick_device, recipe_main, seed_everything
from s2f_rl.schemas.rl import RewardGradient
from s2f_rl.training import RLRun, cosine_decay, gradient_step, make_collector, prepare_rl


@recipe_main("reward_gradient", RewardGradient)
def main(cfg: DictConfig) -> dict[str, float]:
    seed_everything(cfg.seed)
    device = pick_device(cfg.device)
    # corpora, start actor, policy, environment, reward, critic, supervised term, KL, constraint
    parts = prepare_rl(cfg, device)
    policy = parts.policy
    collector = make_collector(cfg, parts)
    score, trained = parts.signal.score, cfg.train_output_map
    objective = RewardGradientLoss(
        policy.actor_module, score, cfg.sampled, trained, reads_latents=True, reads_style=True
    )
    loss = WeightedLoss(
        {"policy": (objective, parts.policy_weight), **parts.auxiliary}, cfg.balance, hearing=parts.hearing
    )
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
                parts.signal(batch)  # its running moments; the update scores the motion anew, with a gradient
                figures = parts.measure_constraint(batch)
                if iteration == 1:
                    check_ratio_is_one(policy.actor_module, parts.heard(batch))

            # 4 update
            with run.clock("update"):
                cosine_decay(optimizer, cfg.optimizer, iteration, cfg.iterations)
                outputs = [gradient_step(loss, batch, optimizer, cfg.optimizer.max_grad_norm, run.guard)]
                figures |= parts.adapt_kl(outputs)

            # 5 log
            run.log(batch, outputs, figures)

            # 6 evaluate and save
            run.evaluate_and_save()
    return run.values


if __name__ == "__main__":
    main()
