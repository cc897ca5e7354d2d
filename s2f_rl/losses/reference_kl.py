"""KL to the frozen policy that the run started from."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential
from torch import Tensor
from torch.distributions import Distribution, kl_divergence
from torchrl.modules import set_recurrent_mode

from s2f_rl import keys, ranks
from s2f_rl.errors import UserError
from s2f_rl.losses.batch_keys import BatchLoss, UtteranceKeys
from s2f_rl.models.hearing import with_speech


class ReferenceKL(BatchLoss):
    """coef * mean over valid frames of KL(current || reference), in nats per frame, closed form.

    Both policies are evaluated on the sampled history of the batch (sequence mode).

    Args:
        actor_module: ``policy.actor_module``; the reference is a frozen copy of it, taken now.
        coef: weight of the term; the raw value is returned as ``kl_reference`` too.
        frame_mask_key: True on valid frames; like the other keys it can be changed by ``set_keys``
            (:class:`~s2f_rl.losses.batch_keys.UtteranceKeys`).
        speech: utterance -> [T, A, D], what the reference hears where the audio encoder trains; None: the batch's
            ``audio``, and then no ``utterance`` is read.
    """

    _AcceptedKeys = UtteranceKeys
    default_keys = UtteranceKeys

    def __init__(
        self,
        actor_module: ProbabilisticTensorDictSequential,
        coef: float = 1.0,
        frame_mask_key: str = keys.FRAME_MASK,
        speech: Callable[[int], Tensor] | None = None,
    ) -> None:
        super().__init__(actor_module)
        reference = copy.deepcopy(actor_module).requires_grad_(False)
        # Not a submodule: no parameter of the loss. A run that is resumed makes it anew, from its start.
        self.__dict__["reference"] = reference
        self.coef, self.speech = coef, speech
        self.set_keys(frame_mask=frame_mask_key)
        self.out_keys = ["loss_kl", "kl_reference"]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        tensordict = self.named_as_ours(tensordict)
        with set_recurrent_mode(True):
            with self.actor_network_params.to_module(self.actor_network):
                current = self.actor_network.get_dist(tensordict.clone(False))
            with torch.no_grad():
                heard = tensordict.clone(False) if self.speech is None else with_speech(tensordict, self.speech)
                reference = self.reference.get_dist(heard)
        kl = _divergence(current, reference)
        mask = tensordict.get(keys.FRAME_MASK).squeeze(-1)
        mean = torch.where(mask, kl, torch.zeros_like(kl)).sum() / ranks.mean_count(mask.sum()).clamp_min(1)
        return TensorDict({"loss_kl": self.coef * mean, "kl_reference": mean.detach()})


def _divergence(current: Distribution, reference: Distribution) -> Tensor:
    try:
        return kl_divergence(current, reference)
    except NotImplementedError as error:
        name = type(current).__name__
        raise UserError(f"kl: no divergence is registered for {name}; torch.distributions.register_kl does") from error
