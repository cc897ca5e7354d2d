"""Back-propagation through the frozen reward: the perceptual-loss baseline that needs no policy gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from torch import Tensor
from torch.nn import functional as F

from s2f_rl import keys
from s2f_rl.losses.batch_keys import BatchLoss, UtteranceKeys
from s2f_rl.models.policy import MotionCore

Score = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def differentiable_rollout(
    core: MotionCore, audio: Tensor, style: Tensor, noise: Tensor | None, train_output_map: bool = False
) -> Tensor:
    """Displacements [B, T, V*3] of whole utterances, with the gradient through the whole recursion.

    Args:
        core: of the policy.
        audio: [B, T, A, D]. style: [B, S].
        noise: standard normal, shaped as the latent: the reparameterised sample; None: the mean motion.
        train_output_map: let the gradient into W and b. Off, they are constants as in the policy gradient, so that
            both train the same parameters.
    """
    decoder, latent_space = core.decoder, core.exploration == "latent"
    weight: Tensor = decoder.vertice_map_r.weight
    bias: Tensor = decoder.vertice_map_r.bias
    if not train_output_map:
        weight, bias = weight.detach(), bias.detach()
    cache = decoder.new_cache(len(audio), capacity=audio.shape[1])
    cache.feedback = decoder.feedback(detach_output_map=not train_output_map)
    sigma, rho = torch.maximum(core.log_scale, core.log_scale_floor).exp(), core.correlation
    style_embedding = decoder.obj_vector(style)
    embedding, carried, frames = style_embedding, None, []
    for t, heard in enumerate(decoder.hear(audio).unbind(1)):
        mean = decoder.run_step(embedding, heard, cache)
        if not latent_space:
            mean = F.linear(mean, weight, bias)
        if noise is not None:
            # The same AR(1) noise as in the rollout: its recursion does not depend on the means.
            fresh = sigma * noise[:, t]
            carried = fresh if carried is None else rho * carried + (1 - rho * rho) ** 0.5 * fresh
            mean = mean + carried
        frames.append(mean)
        fed_back = cache.feedback(mean) if latent_space else decoder.vertice_map(mean)
        embedding = fed_back + style_embedding
    motion = torch.stack(frames, dim=1)
    return F.linear(motion, weight, bias) if latent_space else motion


class RewardGradientLoss(BatchLoss):
    """Minus the mean reward of the scored frames, differentiated through the reward model and the rollout.

    Args:
        actor_module: ``policy.actor_module``.
        score: (displacement [B, T, V*3], utterance [B], n_frames [B]) -> (reward [B, T], score mask [B, T]),
            differentiable in the displacement.
        sampled: take the batch's own noise (the reparameterised rollout that was collected); False: the mean motion.
        train_output_map: see :func:`differentiable_rollout`.

    Returns (``forward``): ``loss_objective`` and ``reward``.
    """

    @dataclass
    class _AcceptedKeys(UtteranceKeys):
        loc: NestedKey = keys.LOC
        scale: NestedKey = keys.SCALE

    default_keys = _AcceptedKeys

    def __init__(self, actor_module: Any, score: Score, sampled: bool = True, train_output_map: bool = False) -> None:
        super().__init__(actor_module)
        self.__dict__["score"] = score  # the frozen reward is no part of what trains
        self.sampled, self.train_output_map = sampled, train_output_map
        self.out_keys = ["loss_objective"]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        tensordict = self.named_as_ours(tensordict)
        mask = tensordict.get(keys.FRAME_MASK)
        noise = None
        if self.sampled:
            noise = (tensordict.get(keys.LATENT) - tensordict.get(keys.LOC)) / tensordict.get(keys.SCALE)
            noise = torch.where(mask, noise, torch.zeros_like(noise)).detach()
        with self.actor_network_params.to_module(self.actor_network):
            displacement = differentiable_rollout(
                self.actor_network[0],
                tensordict.get(keys.AUDIO),
                tensordict.get(keys.STYLE)[:, 0],
                noise,
                self.train_output_map,
            )
        reward, scored = self.score(displacement, tensordict.get(keys.UTTERANCE)[:, 0, 0], mask.sum((1, 2)))
        mean = torch.where(scored, reward, torch.zeros_like(reward)).sum() / scored.sum().clamp_min(1)
        return TensorDict({"loss_objective": -mean, "reward": mean.detach()})
