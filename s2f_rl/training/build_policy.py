"""Policy and critic of a run, from plain options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from s2f_rl.errors import UserError
from s2f_rl.models.contract import Actor
from s2f_rl.models.critics import BackboneCritic, DecoderCritic
from s2f_rl.models.latent_motion import frozen_decode
from s2f_rl.models.policy import MotionPolicy


def build_policy(
    actor: Actor,
    exploration: Mapping[str, object],
    lips: Tensor,
    train_output_map: bool = False,
    speech: Iterable[tuple[Tensor, Tensor]] = (),
) -> MotionPolicy:
    """The policy that tunes an actor, with what the policy gradient takes for constants frozen.

    Its batches hold no ``action`` where the output map is frozen: :class:`~s2f_rl.models.latent_motion.LatentMotion`.

    Args:
        actor: in evaluation mode.
        exploration: the config group of this name.
        lips: indices of the lip vertices, whose movement by the noise is stated.
        train_output_map: the supervised term trains the actor's output map.
        speech: features [T, A, D] and style [S] of some utterances, see :meth:`PolicyCore.calibrate`.
    """
    options = dict(exploration)
    changed_codes = cast(
        float, options.pop("changed_codes", 0.07)
    )  # not for make_policy: most actors know nothing of codes
    policy: MotionPolicy = actor.make_policy(**options, noise_vertices=lips)
    policy.core.calibrate(changed_codes, speech)
    trained = {id(p) for p in actor.output_map()} if train_output_map else set()
    for parameter in policy.core.frozen_in_rl():
        if id(parameter) not in trained:
            parameter.requires_grad_(False)  # then its gradient, the largest of all, costs nothing
    policy.writes_action = frozen_decode(policy.core) is None  # else everything in the loop goes by the latents
    return policy


def build_critic(
    kind: str, hidden: int, policy: MotionPolicy, actor: Actor, head: nn.Module | None, device: torch.device
) -> nn.Module | None:
    """The critic of the config group ``critic``; None for ``none``.

    Args:
        kind: ``"none"``, ``"decoder"`` or ``"backbone"``. hidden: width of the first.
        head: of the reward model, with a value branch; None where it has none.

    Raises:
        UserError: policy or reward have nothing that a critic of this kind reads.
    """
    if kind == "none":
        return None
    if kind == "backbone":
        if head is None:
            raise UserError("critic=backbone: this reward model has no head, so no value branch; use critic=decoder")
        return BackboneCritic(head).to(device)
    if policy.core.state is None:
        raise UserError("critic=decoder: this policy writes nothing that a critic could read; use critic=none")
    key, width = policy.core.state
    encoder = actor.audio_encoder
    audio_width = encoder.width * encoder.features_per_frame
    # Its first weights use up no random number, so that algorithms with and without a critic collect the same noise.
    with torch.random.fork_rng(devices=[]):
        return DecoderCritic(width, audio_width, actor.n_styles, hidden, key).to(device)
