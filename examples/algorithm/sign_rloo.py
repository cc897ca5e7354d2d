"""An algorithm of one's own: a frame counts +1 or -1, whether its sample is better or worse than its group.

python examples/algorithm/sign_rloo.py start=checkpoints/supervised reward.folder=checkpoints/reward
"""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig

from s2f_rl import keys
from s2f_rl.losses import ReinforceLoss, WeightedLoss, credited_returns, group_relative_advantage
from s2f_rl.runs import pick_device, recipe_main, seed_everything
from s2f_rl.runs.schema import NonNegative, key
from s2f_rl.schemas.rl import RLOO
from s2f_rl.training import RLRun, cosine_decay, gradient_step, make_collector, prepare_rl


@dataclass
class SignRLOO(RLOO):
    """The keys of RLOO, and one more."""

    margin: NonNegative = key("an advantage below this counts nothing")


@recipe_main("sign_rloo", SignRLOO, shipped_groups=True)
def main(cfg: DictConfig) -> dict[str, float]:
    seed_everything(cfg.seed)
    parts = prepare_rl(cfg, pick_device(cfg.device))
    collector = make_collector(cfg, parts)
    reinforce = ReinforceLoss(parts.policy.actor_module)
    loss = WeightedLoss(
        {"policy": (reinforce, parts.policy_weight), **parts.auxiliary}, cfg.balance, hearing=parts.hearing
    )
    optimizer = parts.make_optimizer(loss)
    with RLRun(cfg, parts, optimizer, collector, anchor=loss.anchor_norm) as run:
        for iteration in run:
            # 1 collect, 2 reward
            batch = run.guard.checked(parts.reward(collector.next()))
            # 3 advantage
            mask = batch[keys.FRAME_MASK]
            returns = credited_returns(parts.signal(batch), mask, parts.credit, cfg.gamma)
            better = group_relative_advantage(returns, mask, cfg.group_size)
            batch[keys.ADVANTAGE] = better.sign() * (better.abs() > cfg.margin)
            figures = parts.measure_constraint(batch)
            # 4 update
            cosine_decay(optimizer, cfg.optimizer, iteration, cfg.iterations)
            outputs = [gradient_step(loss, batch, optimizer, cfg.optimizer.max_grad_norm, run.guard)]
            # 5 log, 6 evaluate and save
            run.log(batch, outputs, figures | parts.adapt_kl(outputs))
            run.evaluate_and_save()
    return run.values


if __name__ == "__main__":
    main()
