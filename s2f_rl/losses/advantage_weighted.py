"""Advantage-weighted regression: imitate stored latents, the better ones more (Peng et al., 2019)."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase, TensorDictParams
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.modules import set_recurrent_mode
from torchrl.objectives import LossModule

from s2f_rl import keys
from s2f_rl.errors import UserError


def advantage_weights(advantage: Tensor, temperature: float = 1.0, max_weight: float = 20.0) -> Tensor:
    """min(exp(advantage / temperature), max_weight), shaped as ``advantage`` (Peng et al., 2019, algorithm 1)."""
    return (advantage / temperature).exp().clamp(max=max_weight)


class AdvantageWeightedLoss(LossModule):
    """-mean over valid frames of w(advantage) * log-probability of the stored latent, and the critic's squared error.

    Off-policy: the batch may come from any earlier policy, and no ratio enters.

    Args:
        actor_module: ``policy.actor_module``.
        critic: a module that writes ``state_value``, or None.
        temperature: beta of :func:`advantage_weights`; advantages should be standardised.
        max_weight: upper bound of a frame's weight.
        critic_coeff: weight of ``loss_critic``.
        frame_mask_key: True on valid frames.

    Returns (``forward``): ``loss_objective``; with a critic ``loss_critic``; ``mean_weight``, ``clip_fraction`` (share
    of frames at the bound).
    """

    actor_network: TensorDictModuleBase
    actor_network_params: TensorDictParams
    target_actor_network_params: TensorDictParams
    critic_network: TensorDictModuleBase
    critic_network_params: TensorDictParams
    target_critic_network_params: TensorDictParams

    def __init__(
        self,
        actor_module: Any,
        critic: Any = None,
        *,
        temperature: float = 1.0,
        max_weight: float = 20.0,
        critic_coeff: float = 1.0,
        frame_mask_key: str = keys.FRAME_MASK,
    ) -> None:
        if not (temperature > 0 and max_weight > 0):
            raise UserError(f"temperature={temperature}, max_weight={max_weight}: both must be positive")
        super().__init__()
        self.convert_to_functional(actor_module, "actor_network", create_target_params=False)
        self._has_critic = critic is not None
        if critic is not None:
            self.convert_to_functional(critic, "critic_network", create_target_params=False)
        self.temperature, self.max_weight = float(temperature), float(max_weight)
        self.critic_coeff, self.frame_mask_key = float(critic_coeff), frame_mask_key
        self.in_keys = [*actor_module.in_keys, keys.ADVANTAGE]
        self.out_keys = ["loss_objective"]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        mask = tensordict.get(self.frame_mask_key).squeeze(-1)
        n = mask.sum().clamp_min(1)
        zero = torch.zeros(mask.shape, device=mask.device)
        with set_recurrent_mode(True), self.actor_network_params.to_module(self.actor_network):
            distribution = self.actor_network.get_dist(tensordict.clone(False))
        log_prob = distribution.log_prob(tensordict.get(keys.LATENT))
        advantage = torch.where(mask, tensordict.get(keys.ADVANTAGE).squeeze(-1), zero)
        weight = torch.where(mask, advantage_weights(advantage, self.temperature, self.max_weight), zero)
        out = TensorDict(
            {
                "loss_objective": -(weight * torch.where(mask, log_prob, zero)).sum() / n,
                "mean_weight": weight.sum() / n,
                "clip_fraction": (weight >= self.max_weight).sum() / n,
            }
        )
        if self._has_critic:
            with set_recurrent_mode(True), self.critic_network_params.to_module(self.critic_network):
                value = self.critic_network(tensordict.clone(False)).get(keys.STATE_VALUE)
            error = (value - tensordict.get(keys.VALUE_TARGET)).squeeze(-1).square()
            out.set("loss_critic", self.critic_coeff * torch.where(mask, error, zero).sum() / n)
        return out
