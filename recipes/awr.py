"""AWR on speech-driven faces: stored rollouts, imitated the more the better they were; off-policy, no ratio.

    python recipes/awr.py start=checkpoints/supervised reward.folder=checkpoints/reward

Peng et al., 2019. Whole utterances go into a replay buffer with their advantages; with a critic these are taken against
the value as it is now. Every run has a compute-matched control: the same command with control=true.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import torch
from omegaconf import DictConfig
from torchrl.modules import set_recurrent_mode

from s2f_rl import keys
from s2f_rl.losses import (
    AdvantageWeightedLoss,
    BaselineAdvantage,
    WeightedLoss,
    check_ratio_is_one,
    masked_standardise,
)
from s2f_rl.runs import pick_device, recipe_main, seed_everything
from s2f_rl.schemas.rl import AWR
from s2f_rl.training import RLRun, UtteranceBuffer, cosine_decay, gradient_step, make_collector, prepare_rl


@recipe_main("awr", AWR)
def main(cfg: DictConfig) -> dict[str, float]:
    seed_everything(cfg.seed)
    device = pick_device(cfg.device)
    # corpora, start actor, policy, environment, reward, critic, supervised term, KL, constraint
    parts = prepare_rl(cfg, device)
    policy, critic = parts.policy, parts.critic
    collector = make_collector(cfg, parts)
    estimate = BaselineAdvantage(critic, cfg.group_size, parts.credit, cfg.gamma, cfg.gae_lambda, normalise=False)
    buffer = UtteranceBuffer(cfg.replay.capacity, parts.env.horizon, device, policy.core.out_keys)
    awr = AdvantageWeightedLoss(
        policy.actor_module,
        critic,
        temperature=cfg.temperature,
        max_weight=cfg.max_weight,
        critic_coeff=cfg.critic.coeff,
    )
    loss = WeightedLoss({"policy": (awr, parts.policy_weight), **parts.auxiliary}, cfg.balance, hearing=parts.hearing)
    optimizer = parts.make_optimizer(loss)

    with RLRun(cfg, parts, optimizer, collector, anchor=loss.anchor_norm, replay=buffer) as run:
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
                buffer.extend(batch)
                figures = parts.measure_constraint(batch)
                if iteration == 1:
                    check_ratio_is_one(policy.actor_module, parts.heard(batch))

            # 4 update
            with run.clock("update"):
                cosine_decay(optimizer, cfg.optimizer, iteration, cfg.iterations)
                outputs = []
                for _ in range(cfg.updates):
                    rows = buffer.sample(cfg.minibatch_lanes)
                    if critic is not None:
                        with torch.no_grad(), set_recurrent_mode(True):
                            value = critic(parts.heard(rows))[keys.STATE_VALUE]
                        rows[keys.ADVANTAGE] = rows[keys.VALUE_TARGET] - value
                    if cfg.normalise_advantage:
                        rows[keys.ADVANTAGE] = masked_standardise(rows[keys.ADVANTAGE], rows[keys.FRAME_MASK])
                    outputs.append(gradient_step(loss, rows, optimizer, cfg.optimizer.max_grad_norm, run.guard))
                figures |= parts.adapt_kl(outputs)

            # 5 log
            run.log(batch, outputs, figures)

            # 6 evaluate and save
            run.evaluate_and_save()
    return run.values


if __name__ == "__main__":
    main()
