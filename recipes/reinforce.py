"""REINFORCE on speech-driven faces: the whole return minus a baseline, one update for each batch.

    python recipes/reinforce.py start=checkpoints/supervised reward.folder=checkpoints/reward

Williams, 1992. The baseline is a critic, or with critic=none group_size=4 the other samples of the utterance.
Every run has a compute-matched control: the same command with control=true.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

from omegaconf import DictConfig

from s2f_rl.losses import (
    BaselineAdvantage,
    ReinforceLoss,
    WeightedLoss,
    check_ratio_is_one,
)
from s2f_rl.runs import pick_device, recipe_main, seed_everything
from s2f_rl.schemas.rl import ActorCritic
from s2f_rl.training import RLRun, cosine_decay, gradient_step, make_collector, prepare_rl


@recipe_main("reinforce", ActorCritic)
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
    reinforce = ReinforceLoss(policy.actor_module, critic, critic_coeff=cfg.critic.coeff)
    loss = WeightedLoss(
        {"policy": (reinforce, parts.policy_weight), **parts.auxiliary}, cfg.balance, hearing=parts.hearing
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
                batch = estimate(batch, parts.signal(batch))
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
