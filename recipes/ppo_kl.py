"""PPO with a KL penalty instead of a clipped ratio; the penalty follows the KL of old and new policy.

    python recipes/ppo_kl.py start=checkpoints/supervised reward.folder=checkpoints/reward

Schulman et al., 2017, section 4. The penalty holds each update near the policy that collected; kl=fixed or kl=adaptive
adds the KL to the start. Every run has a compute-matched control: the same command with control=true.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import torch
from omegaconf import DictConfig

from s2f_rl import ranks
from s2f_rl.losses import (
    BaselineAdvantage,
    KLPenaltyPPOLoss,
    PenaltyCoefficient,
    WeightedLoss,
    check_ratio_is_one,
)
from s2f_rl.runs import pick_device, recipe_main, seed_everything
from s2f_rl.schemas.rl import PPOKL
from s2f_rl.training import RLRun, cosine_decay, gradient_step, lane_minibatches, make_collector, prepare_rl


@recipe_main("ppo_kl", PPOKL)
def main(cfg: DictConfig) -> dict[str, float]:
    seed_everything(cfg.seed)
    device = pick_device(cfg.device)
    # corpora, start actor, policy, environment, reward, critic, supervised term, KL, constraint
    parts = prepare_rl(cfg, device)
    policy, critic = parts.policy, parts.critic
    collector = make_collector(cfg, parts)
    estimate = BaselineAdvantage(
        critic, cfg.group_size, parts.credit, cfg.gamma, cfg.gae_lambda, cfg.normalise_advantage
    )
    penalty = PenaltyCoefficient(cfg.penalty.beta, cfg.penalty.target)
    critic_coeff = cfg.critic.coeff if critic is not None else None
    ppo = KLPenaltyPPOLoss(policy.actor_module, critic, beta=penalty, critic_coeff=critic_coeff)
    loss = WeightedLoss({"policy": (ppo, parts.policy_weight), **parts.auxiliary}, cfg.balance, hearing=parts.hearing)
    optimizer = parts.make_optimizer(loss)

    with RLRun(cfg, parts, optimizer, collector, anchor=loss.anchor_norm, penalty=penalty) as run:
        for iteration in run:
            # 1 collect: whole utterances, [B, T]
            with run.clock("collect"):
                batch = collector.next()

            # 2 reward
            with run.clock("reward"):
                batch = run.guard.checked(parts.reward(batch))

            # 3 advantage
            with run.clock("advantage"):
                batch = estimate(batch, parts.signal(batch))
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
                # The KL of the policies before and after the update, over the whole batch.
                with torch.no_grad():
                    figures["kl_update"] = float(ranks.mean(ppo(batch)["kl"]))
                penalty.update(figures["kl_update"])
                figures |= parts.adapt_kl(outputs)

            # 5 log
            run.log(batch, outputs, figures)

            # 6 evaluate and save
            run.evaluate_and_save()
    return run.values


if __name__ == "__main__":
    main()
