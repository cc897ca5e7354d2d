"""Advantage-weighted regression: imitate stored latents, the better ones more (Peng et al., 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase, TensorDictParams
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModuleBase
from torch import Tensor
from torchrl.modules import set_recurrent_mode

from s2f_rl import keys, ranks
from s2f_rl.errors import UserError
from s2f_rl.losses.batch_keys import BatchLoss, PolicyKeys


def advantage_weights(advantage: Tensor, temperature: float = 1.0, max_weight: float = 20.0) -> Tensor:
    """min(exp(advantage / temperature), max_weight), shaped as ``advantage`` (Peng et al., 2019, algorithm 1)."""
    return (advantage / temperature).exp().clamp(max=max_weight)


class AdvantageWeightedLoss(BatchLoss):
    """-mean over valid frames of w(advantage) * log-probability of the stored latent, and the critic's squared error.

    Off-policy: the batch may come from any earlier policy, and no ratio enters.

    Args:
        actor_module: ``policy.actor_module``.
        critic: a module that writes ``state_value``, or None.
        temperature: beta of :func:`advantage_weights`; advantages should be standardised.
        max_weight: upper bound of a frame's weight.
        critic_coeff: weight of ``loss_critic``.
        frame_mask_key: True on valid frames; like the other keys it can be changed by ``set_keys``.

    Returns (``forward``): ``loss_objective``; with a critic ``loss_critic``; ``mean_weight``, ``clip_fraction`` (share
    of frames at the bound).
    """

    @dataclass
    class _AcceptedKeys(PolicyKeys):
        advantage: NestedKey = keys.ADVANTAGE
        value: NestedKey = keys.STATE_VALUE
        value_target: NestedKey = keys.VALUE_TARGET

    default_keys = _AcceptedKeys
    tensor_keys: _AcceptedKeys
    critic_network: TensorDictModuleBase
    critic_network_params: TensorDictParams
    target_critic_network_params: TensorDictParams

    def __init__(
        self,
        actor_module: ProbabilisticTensorDictSequential,
        critic: TensorDictModuleBase | None = None,
        *,
        temperature: float = 1.0,
        max_weight: float = 20.0,
        critic_coeff: float = 1.0,
        frame_mask_key: str = keys.FRAME_MASK,
    ) -> None:
        if not (temperature > 0 and max_weight > 0):
            raise UserError(f"temperature={temperature}, max_weight={max_weight}: both must be positive")
        super().__init__(actor_module)
        self._has_critic = critic is not None
        if critic is not None:
            self.convert_to_functional(critic, "critic_network", create_target_params=False)
        self.temperature, self.max_weight = float(temperature), float(max_weight)
        self.critic_coeff = float(critic_coeff)
        self.set_keys(frame_mask=frame_mask_key)
        self.out_keys = ["loss_objective"]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        tensordict = self.named_as_ours(tensordict)
        mask = tensordict.get(keys.FRAME_MASK).squeeze(-1)
        n = ranks.mean_count(mask.sum()).clamp_min(1)
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
                value = self.critic_network(tensordict.clone(False)).get(self.tensor_keys.value)
            error = (value - tensordict.get(keys.VALUE_TARGET)).squeeze(-1).square()
            out.set("loss_critic", self.critic_coeff * torch.where(mask, error, zero).sum() / n)
        return out
