"""Actors that draw and feed back vectors, whose motion is a linear map of them: the network alone is left to write."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from s2f_rl.errors import UserError
from s2f_rl.models.base_actor import BaseActor
from s2f_rl.models.contract import LinearMotion, output_parameters
from s2f_rl.signs import watched
from s2f_rl.threads import one_thread

F = TypeVar("F")


class LatentActor(BaseActor):
    """An actor over ``self.decoder``, a :class:`~s2f_rl.models.contract.MotionSource` that the constructor sets.

    RL tunes it with a Gaussian in the decoder's motion space.
    """

    decoder: Any

    @property
    def linear_decode(self) -> LinearMotion:
        return self.decoder.linear_decode

    def output_map(self) -> Iterable[nn.Parameter]:
        """Weight and bias of the output map."""
        return output_parameters(self.decoder)

    def decode(self, latents: Tensor) -> Tensor:
        """Displacements [.., V*3] of latents [.., H], frame by frame."""
        return self.decoder.decode(latents)

    def generate(
        self, features: Tensor, style: Tensor, lengths: list[int] | None = None, *, progress: bool = False
    ) -> Tensor:
        """See :meth:`s2f_rl.models.contract.Actor.generate`; the gradient, if enabled, runs through the recursion."""
        steps = self.decoder.steps(style, features.shape[1], train_output_map=torch.is_grad_enabled())
        latents: list[Tensor] = []
        with one_thread():
            for heard in frame_bar(steps.hear(features).unbind(1), progress):
                latents.append(steps.advance(heard, latents[-1] if latents else None, None))
        return torch.stack(latents, 1) if latents else features.new_zeros(len(features), 0, self.decoder.latent_width)

    def imitate(self, features: Tensor, style: Tensor, truth: Tensor, teacher_forced: bool) -> Tensor:
        """See :meth:`s2f_rl.models.contract.Actor.imitate`."""
        if not teacher_forced:
            return self.decode(self.generate(features, style))
        if not self.decoder.embeds_displacements:
            raise UserError(f"mode=teacher_forced: an actor of kind {self.kind} cannot be fed the truth; use another")
        return self.decode(self.decoder.sequence_from_displacements(truth, features, style, "template"))

    def make_policy(self, **options: Any) -> Any:
        """A :class:`~s2f_rl.models.policy.FaceFormerPolicy`; ``options`` are its keyword arguments."""
        from s2f_rl.models.policy import FaceFormerPolicy

        return FaceFormerPolicy(self, **options)


def frame_bar(frames: Iterable[F], progress: bool) -> Iterable[F]:
    """The frames, with a bar on a terminal when they take longer than two seconds."""
    return watched(frames, "frames", unit="frame", delay=2, leave=False) if progress else frames
