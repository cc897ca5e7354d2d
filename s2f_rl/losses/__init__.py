"""Loss modules and advantages on [B, T] rows with masks."""

from s2f_rl.losses.advantages import (
    discounted_returns,
    gae_advantage,
    group_relative_advantage,
    masked_standardise,
    window_returns,
)
from s2f_rl.losses.policy_gradient import A2CLoss, ClipPPOLoss, check_ratio_is_one
from s2f_rl.losses.reference_kl import ReferenceKL
from s2f_rl.losses.supervised import SupervisedLoss, lip_vertex_weight, motion_errors
from s2f_rl.losses.weighted import WeightedLoss, total_loss

__all__ = [
    "A2CLoss",
    "ClipPPOLoss",
    "ReferenceKL",
    "SupervisedLoss",
    "WeightedLoss",
    "check_ratio_is_one",
    "discounted_returns",
    "gae_advantage",
    "group_relative_advantage",
    "lip_vertex_weight",
    "masked_standardise",
    "motion_errors",
    "total_loss",
    "window_returns",
]
