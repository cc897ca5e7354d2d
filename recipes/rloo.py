"""RLOO on speech-driven faces: each sample against the mean of the others of its utterance; no critic, no ratio.

    python recipes/rloo.py start=checkpoints/supervised reward.folder=checkpoints/reward

Kool et al., 2019; Ahmadian et al., 2024. Returns are per frame, the baseline is the others' at the same frame.
Every run has a compute-matched control: the same command with control=true.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

from omegaconf import DictConfig

from s2f_rl import keys
from s2f_rl.losses import (
    ReinforceLoss,
    WeightedLoss,
    check_ratio_is_one,
    credited_returns,
    group_relative_advantage,
    masked_standardise,
)
from s2f_rl.runs import pick_device, recipe_main, seed_everything
from s2f_rl.schemas.rl import RLOO
from s2f_rl.training import RLRun, cosine_decay, gradient_step, make_collector, prepare_rl


@recipe_main("rloo", RLOO)
def main(cfg: DictConfig) -> dict[str, float]:
    seed_everything(cfg.seed)
    device = pick_device(cfg.device)
    # corpora, start actor, policy, environment, reward, critic, supervised term, KL, constraint
    parts = prepare_rl(cfg, device)
    policy = parts.policy
    collector = make_collector(cfg, parts)
    reinforce = ReinforceLoss(policy.actor_module)
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
                mask = batch[keys.FRAME_MASK]
                returns = credited_returns(parts.signal(batch), mask, parts.credit, cfg.gamma)
                advantage = group_relative_advantage(returns, mask, cfg.group_size, leave_one_out=True)
                batch[keys.ADVANTAGE] = masked_standardise(advantage, mask) if cfg.normalise_advantage else advantage
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
