"""Distance to a frozen reference policy as a reward term."""

from __future__ import annotations

import copy
from typing import Any

import torch
from tensordict import TensorDictBase
from torch.distributions import kl_divergence
from torchrl.envs import Transform
from torchrl.modules import set_recurrent_mode

from s2f_rl import keys
from s2f_rl.errors import UserError
from s2f_rl.models.distributions import MaskedNormal

ESTIMATORS = ("kl", "log_ratio")


class ReferenceKLTransform(Transform):
    """Takes ``coef`` times the per-frame distance to a reference policy off the reward, on collected batches [B, T].

    ``estimator="kl"``: the closed form KL(policy || reference) of the two Gaussians of the frame, from the ``loc`` and
    ``scale`` that the policy stored when it acted. ``"log_ratio"``: ``latent_log_prob`` minus the reference's, its
    one-sample estimate, as in RL from human feedback (Ziegler et al., 2019). The reference sees the latents that were
    sampled, in sequence mode. With averaged log-densities (``vertex`` exploration) the distance is averaged too.
    Writes ``("next", "reference_kl")`` [B, T, 1] in nats, 0 on padding.

    Use it after :class:`s2f_rl.envs.FrozenRewardTransform`, as (part of) a collector's postproc; inside an environment
    it does nothing, since the reference needs whole utterances. The reward is a constant for the policy gradient;
    for a KL that is differentiated see ``s2f_rl.losses.ReferenceKL``.

    Args:
        reference: the frozen policy's ``actor_module`` (it ends at the latent); a copy is kept.
        coef: weight, at least 0.
        estimator: ``"kl"`` or ``"log_ratio"``.
    """

    def __init__(self, reference: Any, coef: float = 0.05, estimator: str = "kl") -> None:
        super().__init__(in_keys=[keys.REWARD], out_keys=[keys.REWARD])
        if estimator not in ESTIMATORS:
            raise UserError(f"kl.estimator={estimator!r} is unknown: use one of {', '.join(ESTIMATORS)}")
        if not 0.0 <= coef < float("inf"):
            raise UserError(f"kl.coef={coef}: must be a finite number, at least 0")
        self.coef = float(coef)
        self.estimator = estimator
        self.reference = copy.deepcopy(reference).requires_grad_(False).eval()

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write ``reference_kl`` and lower ``reward``, both under "next", in place; [B, T] whole utterances."""
        if tensordict.ndim != 2:
            raise ValueError(f"the KL term needs a batch of whole utterances [B, T], not {tuple(tensordict.shape)}")
        with torch.no_grad(), set_recurrent_mode(True):
            distribution = self.reference.get_dist(tensordict.copy())
            if self.estimator == "kl":
                average = getattr(distribution, "average", False)
                stored = MaskedNormal(tensordict.get(keys.LOC), tensordict.get(keys.SCALE), average=average)
                reference = MaskedNormal(distribution.mean, distribution.stddev, average=average)
                distance = kl_divergence(stored, reference)
            else:
                log_prob = distribution.log_prob(tensordict.get(keys.LATENT))
                distance = tensordict.get(keys.LATENT_LOG_PROB) - log_prob
        distance = distance.unsqueeze(-1)
        mask = tensordict.get(keys.FRAME_MASK)
        distance = torch.where(mask, distance, torch.zeros_like(distance))
        tensordict.set(("next", keys.REFERENCE_KL), distance)
        return tensordict.set(("next", keys.REWARD), tensordict.get(("next", keys.REWARD)) - self.coef * distance)

    def _reset(self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase) -> TensorDictBase:
        return tensordict_reset

    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        return next_tensordict
