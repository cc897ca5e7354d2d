"""The keys that a loss reads of a batch, declared once and renamed by TorchRL's ``set_keys``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from tensordict import NestedKey, TensorDictBase, TensorDictParams
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModuleBase
from torchrl.objectives import LossModule

from s2f_rl import keys


@dataclass
class PolicyKeys:
    """What every loss reads: the policy's inputs, and as ``action`` what it sampled (``latent`` in this project)."""

    audio: NestedKey = keys.AUDIO
    style: NestedKey = keys.STYLE
    frame_mask: NestedKey = keys.FRAME_MASK
    action: NestedKey = keys.LATENT


@dataclass
class UtteranceKeys(PolicyKeys):
    """With the utterance, by which a loss looks up what is not in the batch."""

    utterance: NestedKey = keys.UTTERANCE


@dataclass
class AdvantageKeys(PolicyKeys):
    """With what a policy gradient weighs the actions by."""

    sample_log_prob: NestedKey = keys.LATENT_LOG_PROB
    advantage: NestedKey = keys.ADVANTAGE
    value: NestedKey = keys.STATE_VALUE
    value_target: NestedKey = keys.VALUE_TARGET


class RenamedKeys:
    """For loss modules whose ``_AcceptedKeys`` are of this file: ``set_keys`` changes what they read.

    Example:
        >>> loss.set_keys(frame_mask="valid", action=("policy", "z"))   # doctest: +SKIP
    """

    _AcceptedKeys: Any
    tensor_keys: Any

    def named_as_ours(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The batch with what was renamed under this project's names too, which policy and critic read it by.

        An entry that has one of these names but is not what was asked for is hidden, so that it is never read by
        mistake. The batch itself is left as it is.
        """
        declared = self._AcceptedKeys()
        names = {getattr(declared, each.name): getattr(self.tensor_keys, each.name) for each in fields(declared)}
        renamed = {ours: tensordict.get(own, None) for ours, own in names.items() if ours != own}
        if not renamed:
            return tensordict
        out = tensordict.exclude(*renamed)
        for ours, value in renamed.items():
            if value is not None:
                out.set(ours, value)
        return out


class BatchLoss(RenamedKeys, LossModule):
    """A loss module of this project: it has the policy's parameters and reads a batch by its ``_AcceptedKeys``.

    Args:
        actor_module: ``policy.actor_module``.
    """

    _AcceptedKeys = PolicyKeys
    default_keys = PolicyKeys
    tensor_keys: PolicyKeys
    actor_network: TensorDictModuleBase
    actor_network_params: TensorDictParams
    target_actor_network_params: TensorDictParams

    def __init__(self, actor_module: ProbabilisticTensorDictSequential) -> None:
        super().__init__()
        self.convert_to_functional(actor_module, "actor_network", create_target_params=False)

    @property
    def in_keys(self) -> list[NestedKey]:
        """What is read of a batch, by its names there."""
        return [getattr(self.tensor_keys, each.name) for each in fields(self.tensor_keys)]
