"""Back-propagation through the frozen reward: the perceptual-loss baseline that needs no policy gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential
from torch import Tensor

from s2f_rl import keys, ranks
from s2f_rl.errors import UserError
from s2f_rl.losses.batch_keys import BatchLoss, UtteranceKeys
from s2f_rl.models.contract import PolicyCore, core_of
from s2f_rl.models.latent_motion import LatentMotion, frozen_decode

Score = Callable[..., tuple[Tensor, Tensor]]


def differentiable_rollout(
    core: PolicyCore,
    audio: Tensor,
    style: Tensor,
    noise: Tensor | None,
    train_output_map: bool = False,
    frame_mask: Tensor | None = None,
) -> Tensor:
    """Displacements [B, T, V*3] of whole utterances, with the gradient through the whole recursion.

    Args:
        core: of the policy.
        audio: [B, T, A, D]. style: [B, S].
        noise: standard normal, shaped as the latent: the reparameterised sample; None: the mean motion.
        train_output_map: let the gradient into W and b. Off, they are constants as in the policy gradient, so that
            both train the same parameters.
        frame_mask: [B, T, 1], which frames are valid; None: all.

    Raises:
        UserError: a policy that has no such rollout.
    """
    if core.frame_wise:
        return core.unrolled(audio, style, noise, train_output_map)
    return core.unrolled(audio, style, noise, train_output_map, frame_mask=frame_mask)


class RewardGradientLoss(BatchLoss):
    """Minus the mean reward of the scored frames, differentiated through the reward model and the rollout.

    Args:
        actor_module: ``policy.actor_module``.
        score: (displacement [B, T, V*3], utterance [B], n_frames [B]) -> (reward [B, T], score mask [B, T]),
            differentiable in the displacement.
        sampled: take the batch's own noise (the reparameterised rollout that was collected); False: the mean motion.
        train_output_map: see :func:`differentiable_rollout`.
        reads_latents: ``score`` takes a :class:`~s2f_rl.models.latent_motion.LatentMotion` as well. It gets one where
            the output map is frozen (``requires_grad`` off): then back-propagation meets no tensor of V*3.
        reads_style: ``score`` takes the batch's styles [B, S] after these, as
            :meth:`s2f_rl.training.RewardSignal.score` does.

    Returns (``forward``): ``loss_objective`` and ``reward``.
    """

    @dataclass
    class _AcceptedKeys(UtteranceKeys):
        loc: NestedKey = keys.LOC
        scale: NestedKey = keys.SCALE

    default_keys = _AcceptedKeys

    def __init__(
        self,
        actor_module: ProbabilisticTensorDictSequential,
        score: Score,
        sampled: bool = True,
        train_output_map: bool = False,
        reads_latents: bool = False,
        reads_style: bool = False,
    ) -> None:
        if not core_of(actor_module).reparameterised:
            raise UserError("reward_gradient: this policy draws what has no gradient; use an algorithm that needs none")
        super().__init__(actor_module)
        self.__dict__["score"] = score  # the frozen reward is no part of what trains
        self.sampled, self.train_output_map, self.reads_latents = sampled, train_output_map, reads_latents
        self.reads_style = reads_style
        self.out_keys = ["loss_objective"]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        tensordict = self.named_as_ours(tensordict)
        mask = tensordict.get(keys.FRAME_MASK)
        with self.actor_network_params.to_module(self.actor_network):
            core = core_of(self.actor_network)
            noise = core.unit_noise(tensordict) if self.sampled else None
            audio, style = tensordict.get(keys.AUDIO), tensordict.get(keys.STYLE)[:, 0]
            linear = frozen_decode(core) if self.reads_latents else None
            motion: Tensor | LatentMotion
            if linear is None:
                motion = differentiable_rollout(core, audio, style, noise, self.train_output_map, mask)
            else:
                motion = LatentMotion(core.unrolled(audio, style, noise, decoded=False), linear)
        more = (style,) if self.reads_style else ()
        reward, scored = self.score(motion, tensordict.get(keys.UTTERANCE)[:, 0, 0], mask.sum((1, 2)), *more)
        mean = torch.where(scored, reward, torch.zeros_like(reward)).sum() / ranks.mean_count(scored.sum()).clamp_min(1)
        return TensorDict({"loss_objective": -mean, "reward": mean.detach()})
