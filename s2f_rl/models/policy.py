"""The stochastic policy: a core that says how latents are distributed, and their decode to a displacement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import InteractionType, TensorDictModuleBase, TensorDictSequential
from tensordict.nn.probabilistic import interaction_type
from torch import Tensor, nn
from torchrl.modules import ProbabilisticActor
from torchrl.modules.tensordict_module.rnn import recurrent_mode

from s2f_rl import keys
from s2f_rl.models.contract import MotionSource, PolicyCore
from s2f_rl.models.gaussian_core import EXPLORATIONS, MotionCore, noise_scale
from s2f_rl.threads import one_thread

__all__ = ["EXPLORATIONS", "DecodeLatent", "FaceFormerPolicy", "MotionCore", "MotionPolicy", "noise_scale"]


class DecodeLatent(TensorDictModuleBase):
    """``latent`` to ``action``, where a single frame can be decoded; tells the core what was drawn."""

    def __init__(self, core: PolicyCore) -> None:
        super().__init__()
        self.core = core
        self.in_keys = [keys.LATENT]
        self.out_keys = [keys.ACTION]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        latent, steps = tensordict.get(keys.LATENT), not recurrent_mode()
        if steps:
            self.core.remember(latent)
        if steps and not self.core.frame_wise:
            return tensordict
        return tensordict.set(keys.ACTION, self.core.decode(latent, tensordict.get(keys.FRAME_MASK, None)))


class MotionPolicy(TensorDictSequential):
    """TensorDict module that writes ``latent``, ``latent_log_prob`` and ``action`` (see :mod:`s2f_rl.keys`).

    Obeys :class:`torchrl.envs.utils.set_exploration_type` (samples by default; ``DETERMINISTIC`` gives the mean) and
    :class:`torchrl.modules.set_recurrent_mode`. ``policy.actor_module`` is the part that losses take: it ends at the
    latent, so call ``loss.set_keys(action="latent")``.

    Args:
        core: a :class:`~s2f_rl.models.contract.PolicyCore`.

    Attributes:
        writes_action: whether :meth:`complete` decodes. Set it to False where nobody reads displacements [.., V*3]:
            batches then hold latents alone, which ``core.decode`` turns into displacements when they are wanted.
        encoder: parameters of an audio encoder that trains with the policy (:class:`~s2f_rl.models.hearing.Hearing`),
            so that they go where its own do: to workers, into averages and checkpoints; None: none trains.
    """

    def __init__(self, core: PolicyCore) -> None:
        actor_module = ProbabilisticActor(
            core,
            in_keys=dict(core.distribution_keys),
            out_keys=[keys.LATENT],
            distribution_class=core.distribution_class,
            distribution_kwargs=dict(core.distribution_kwargs),
            return_log_prob=True,
            default_interaction_type=InteractionType.RANDOM,
        )
        super().__init__(actor_module, DecodeLatent(core))
        self._latents_only, self.writes_action = False, True
        self.encoder: nn.ParameterList | None = None

    def forward(self, tensordict: TensorDictBase | None = None, *args: object, **kwargs: Any) -> TensorDictBase:
        """The modules one after the other; a frame in step mode without what TensorDict modules do around each.

        A frame's products are so small that a second thread is not worth waking, let alone waiting for.
        """
        how = interaction_type() or InteractionType.RANDOM
        plain = how in (InteractionType.RANDOM, InteractionType.DETERMINISTIC)
        if tensordict is None:  # entries by name
            return super().forward(*args, **kwargs)
        if recurrent_mode() or args or kwargs or not plain:
            return super().forward(tensordict, *args, **kwargs)
        core = self.core
        values = core.step(tensordict)
        with one_thread():
            for key, value in zip(core.out_keys, values, strict=True):
                tensordict.set(key, value)
            distribution: Any = core.distribution(tensordict)  # deterministic_sample is not in torch's base class
            if how is InteractionType.DETERMINISTIC:
                latent = distribution.deterministic_sample
            else:
                latent = distribution.rsample() if distribution.has_rsample else distribution.sample()
            core.remember(latent)
            tensordict.set(keys.LATENT, latent)
            if not self._latents_only:
                tensordict.set(keys.LATENT_LOG_PROB, distribution.log_prob(latent))
                if core.frame_wise:
                    tensordict.set(keys.ACTION, core.decode(latent))
        return tensordict

    @property
    def defers(self) -> bool:
        """Whether :meth:`complete` does better than decoding frame by frame, or is the only way."""
        return self.core.linear_decode is not None or not self.core.frame_wise

    @contextmanager
    def latents_only(self) -> Iterator[None]:
        """Within, step mode leaves out what no later frame depends on, and :meth:`complete` adds it afterwards."""
        self._latents_only = True
        try:
            yield
        finally:
            self._latents_only = False

    @property
    def rolls_out(self) -> bool:
        """Whether :meth:`roll_out` writes what the policy's own steps would."""
        return self.core.rolls_out and type(self).forward is MotionPolicy.forward

    def roll_out(self, batch: TensorDictBase) -> None:
        """Write what steps would into ``batch`` [B, T], of which an environment has written all that it observes.

        Leaves out what :meth:`complete` adds. All lanes begin at the first frame. Obeys ``set_exploration_type``:
        means for ``DETERMINISTIC``, samples otherwise.
        """
        sampled = interaction_type() is not InteractionType.DETERMINISTIC
        latent, *values = self.core.roll_out(batch.get(keys.AUDIO), batch.get(keys.STYLE)[:, 0], sampled)
        batch.set(keys.LATENT, latent)
        for key, value in zip(self.core.out_keys, values, strict=True):
            batch.set(key, value)

    @torch.no_grad()
    def complete(self, batch: TensorDictBase, room: Tensor | None = None) -> None:
        """Write log-probability and action of all frames into ``batch`` [B, T]; the action if ``writes_action``.

        One product for all frames instead of one for each, on all threads; the numbers are the same. Where the decoder
        mixes frames, this is where displacements come from.

        Args:
            room: where to keep the actions of a linear decode, at least [B * T, V*3], contiguous; None: new memory.
        """
        core, latent = self.core, batch.get(keys.LATENT)
        batch.set(keys.LATENT_LOG_PROB, core.distribution(batch).log_prob(latent))
        if not self.writes_action and core.frame_wise:
            return
        if room is None or core.linear_decode is None:
            batch.set(keys.ACTION, core.decode(latent, batch.get(keys.FRAME_MASK, None)))
            return
        weight, bias = core.linear_decode
        latent = latent.flatten(0, 1)
        action = torch.addmm(bias, latent, weight.t(), out=room[: len(latent)])
        batch.set(keys.ACTION, action.unflatten(0, batch.shape))

    @property
    def actor_module(self) -> ProbabilisticActor:
        return self.module[0]

    @property
    def core(self) -> PolicyCore:
        return self.module[1].core


class FaceFormerPolicy(MotionPolicy):
    """A Gaussian in the motion space of an actor's decoder; see :class:`MotionPolicy`.

    Args:
        actor: a supervised :class:`~s2f_rl.models.FaceFormer`, or another actor whose ``decoder`` is a
            :class:`~s2f_rl.models.contract.MotionSource`; it is shared, not copied, the audio encoder is not used.
        exploration, noise_mm, correlation, noise_vertices, learn_noise: of
            :class:`~s2f_rl.models.gaussian_core.MotionCore`.

    Example:
        >>> policy = FaceFormerPolicy(actor, noise_mm=0.3, noise_vertices=corpus.regions["lips"])
        >>> batch = env.rollout(env.horizon, policy, break_when_any_done=False)
        >>> loss = ClipPPOLoss(policy.actor_module, None, entropy_bonus=False)
        >>> loss.set_keys(action="latent")
    """

    def __init__(
        self,
        actor: Any,
        exploration: str = "latent",
        noise_mm: float = 0.3,
        correlation: float = 0.0,
        noise_vertices: Tensor | Sequence[int] | None = None,
        learn_noise: bool = False,
    ) -> None:
        decoder: MotionSource = actor.decoder
        super().__init__(MotionCore(decoder, exploration, noise_mm, correlation, noise_vertices, learn_noise))
        self.noise_mm = noise_mm
