"""Loss modules, advantages and adaptive coefficients on [B, T] rows with masks.

Floor plan:

- what is descended: ``policy_gradient`` (TorchRL's losses on padded rows), ``advantage_weighted``, ``reward_gradient``
  (through the frozen reward), ``supervised``, ``reference_kl``, and ``weighted``, the sum of named terms
- ``projected_truth``: what ``supervised`` compares latents with, so that it never decodes them
- where they read a batch: ``batch_keys``
- what a frame is credited with: ``advantages``
- coefficients that follow a measurement: ``controllers``

Not here: the reward itself (:mod:`s2f_rl.envs`), optimizers and guarded steps (:mod:`s2f_rl.training`), what trains a
reward (:mod:`s2f_rl.rewards`).
"""

from s2f_rl.losses.advantage_weighted import AdvantageWeightedLoss, advantage_weights
from s2f_rl.losses.advantages import (
    BaselineAdvantage,
    around_returns,
    credit_of,
    credited_returns,
    discounted_returns,
    gae_advantage,
    group_decoupled_advantage,
    group_normalised_advantage,
    group_relative_advantage,
    masked_standardise,
    utterance_returns,
    window_returns,
)
from s2f_rl.losses.controllers import AdaptiveKL, LagrangeMultiplier, PenaltyCoefficient
from s2f_rl.losses.policy_gradient import (
    A2CLoss,
    ClipPPOLoss,
    KLPenaltyPPOLoss,
    KLPENPPOLoss,
    ReinforceLoss,
    check_ratio_is_one,
)
from s2f_rl.losses.reference_kl import ReferenceKL
from s2f_rl.losses.reward_gradient import RewardGradientLoss, differentiable_rollout
from s2f_rl.losses.supervised import SupervisedLoss, lip_vertex_weight, motion_errors
from s2f_rl.losses.weighted import WeightedLoss, total_loss

__all__ = [
    "A2CLoss",
    "AdaptiveKL",
    "AdvantageWeightedLoss",
    "BaselineAdvantage",
    "ClipPPOLoss",
    "KLPENPPOLoss",
    "KLPenaltyPPOLoss",
    "LagrangeMultiplier",
    "PenaltyCoefficient",
    "ReferenceKL",
    "ReinforceLoss",
    "RewardGradientLoss",
    "SupervisedLoss",
    "WeightedLoss",
    "advantage_weights",
    "around_returns",
    "check_ratio_is_one",
    "credit_of",
    "credited_returns",
    "differentiable_rollout",
    "discounted_returns",
    "gae_advantage",
    "group_decoupled_advantage",
    "group_normalised_advantage",
    "group_relative_advantage",
    "lip_vertex_weight",
    "masked_standardise",
    "motion_errors",
    "total_loss",
    "utterance_returns",
    "window_returns",
]
