"""The terms beside the policy gradient: supervised error, KL to the start, and the constraint on the lip error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from s2f_rl.data.contract import Corpus
from s2f_rl.errors import UserError
from s2f_rl.losses import AdaptiveKL, LagrangeMultiplier, ReferenceKL, SupervisedLoss
from s2f_rl.losses.weighted import Weight
from s2f_rl.models.policy import MotionPolicy
from s2f_rl.training.constraint import LipErrorConstraint


def build_terms(
    config: Mapping[str, Any],
    policy: MotionPolicy,
    train: Corpus,
    lips: Tensor,
    device: torch.device,
    speech: Callable[[int], Tensor] | None = None,
) -> tuple[dict[str, tuple[nn.Module, Weight]], AdaptiveKL | None, LipErrorConstraint | None]:
    """Auxiliary losses by name with their weights, and what steers these: of the KL, of the supervised term.

    Args:
        speech: utterance -> [T, A, D], what the start hears where the audio encoder trains; None: what the batch holds.

    Raises:
        UserError: no utterance has vertices to be compared with, or the policy has no such term.
    """
    terms: dict[str, tuple[nn.Module, Weight]] = {}
    adaptive_kl = constraint = None
    supervised = dict(config["supervised"])
    mode, weight = supervised.pop("mode"), supervised.pop("weight")
    if mode != "none":
        term = SupervisedLoss(policy.actor_module, train, mode, **supervised).to(device)
        if config["constraint"]["kind"] == "lve":
            if not any(train.has_vertices(i) for i in range(len(train))):
                raise UserError("constraint=lve: no training utterance has vertices, so no error; use constraint=none")
            options = config["constraint"]
            multiplier = LagrangeMultiplier(options["max_ratio"], options["rate"], max_value=options["max_multiplier"])
            constraint = LipErrorConstraint(policy.core, term, lips, multiplier, weight, speech)
        terms["supervised"] = (term, constraint or weight)
    kl = config["kl"]
    if kl["kind"] == "adaptive":
        adaptive_kl = AdaptiveKL(kl["weight"], kl["target"], kl["gain"])
    if kl["kind"] != "none":
        terms["kl"] = (ReferenceKL(policy.actor_module, speech=speech), adaptive_kl or kl["weight"])
    return terms, adaptive_kl, constraint
