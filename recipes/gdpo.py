"""GDPO on speech-driven faces: every reward term normalised within its group, then weighted and summed.

    python recipes/gdpo.py start=checkpoints/supervised reward.folder=checkpoints/reward

Liu et al., 2026 (arXiv:2601.05242), with per-frame returns; GDPO-Listener (arXiv:2603.25020) uses it for faces. It
differs from recipes/grpo.py in the advantage alone, so that both have the same control.
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
    group_decoupled_advantage,
)
from s2f_rl.runs import pick_device, recipe_main, seed_everything
from s2f_rl.schemas.rl import GDPO
from s2f_rl.training import RLRun, cosine_decay, gradient_step, lane_minibatches, make_collector, prepare_rl


@recipe_main("gdpo", GDPO)
def main(cfg: DictConfig) -> dict[str, float]:
    seed_everything(cfg.seed)
    device = pick_device(cfg.device)
    # corpora, start actor, policy, environment, reward, critic, supervised term, KL, constraint
    parts = prepare_rl(cfg, device)
    policy = parts.policy
    collector = make_collector(cfg, parts)
    gdpo = ClipPPOLoss(policy.actor_module, clip_epsilon=cfg.clip_epsilon)
    loss = WeightedLoss({"policy": (gdpo, parts.policy_weight), **parts.auxiliary}, cfg.balance, hearing=parts.hearing)
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
                returns = {
                    name: credited_returns(term, mask, parts.credit, cfg.gamma)
                    for name, term in parts.signal.by_name(batch).items()
                }
                batch[keys.ADVANTAGE] = group_decoupled_advantage(
                    returns, parts.reward.weights, mask, cfg.group_size, cfg.normalise_advantage
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
