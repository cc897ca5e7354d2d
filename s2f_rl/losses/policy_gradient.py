"""TorchRL's REINFORCE, A2C and PPO on padded rows of whole utterances, with masks that hold on every statistic.

TorchRL masks the losses (``loss_mask_key``), not ``clip_fraction``, ``kl_approx``, ``ESS``, KLPEN's mean divergence,
the ratio statistics and the logged entropy. The subclasses here recompute those over valid frames, so that padding
changes nothing. They also do without a critic, which TorchRL's REINFORCE and A2C insist on.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModuleBase
from torch import Tensor
from torch.distributions import Distribution
from torchrl.modules import set_recurrent_mode
from torchrl.objectives import A2CLoss as _TorchRLA2CLoss
from torchrl.objectives import ClipPPOLoss as _TorchRLClipPPOLoss
from torchrl.objectives import KLPENPPOLoss as _TorchRLKLPENPPOLoss
from torchrl.objectives import ReinforceLoss as _TorchRLReinforceLoss

from s2f_rl import keys, ranks
from s2f_rl.errors import NotFinite
from s2f_rl.losses.batch_keys import AdvantageKeys, RenamedKeys

_MEANS = ("clip_fraction", "kl", "kl_approx", "mean_ratio", "entropy")  # over the valid frames


class _NoCritic(TensorDictModuleBase):
    """Stands where TorchRL insists on a critic; never called, no parameters."""

    in_keys = [keys.FRAME_MASK]
    out_keys = [keys.STATE_VALUE]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        return tensordict.set(keys.STATE_VALUE, torch.zeros_like(tensordict.get(keys.FRAME_MASK), dtype=torch.float32))


class _MaskedStatistics(RenamedKeys):
    """TorchRL's constructor with a mask; recomputes what TorchRL averages over all entries."""

    loss_mask_key: NestedKey
    _defaults: ClassVar[dict[str, Any]] = {"entropy_bonus": False}  # where they are not TorchRL's

    def __init__(
        self,
        actor_network: ProbabilisticTensorDictSequential | None = None,
        critic_network: TensorDictModuleBase | None = None,
        *,
        frame_mask_key: NestedKey = keys.FRAME_MASK,
        **kwargs: Any,
    ):
        if "actor_module" in kwargs:
            warnings.warn("actor_module of this loss is now actor_network, as in TorchRL", FutureWarning, stacklevel=2)
            actor_network = kwargs.pop("actor_module")
        super().__init__(actor_network, critic_network, **{**self._defaults, **kwargs})  # type: ignore[call-arg]
        self.set_keys(frame_mask=frame_mask_key)

    def set_keys(self, **names: Any) -> None:
        """Rename keys of the batch: those of TorchRL's loss, and ``audio``, ``style``, ``frame_mask``."""
        super().set_keys(**names)  # type: ignore[misc]
        if "frame_mask" in names:
            self.loss_mask_key = self.tensor_keys.frame_mask

    def _valid(self, tensordict: TensorDictBase) -> Tensor | None:
        mask = tensordict.get(self.loss_mask_key, None)
        return None if mask is None else mask.squeeze(-1)

    def _of_all_ranks(self, tensordict: TensorDictBase, out: TensorDictBase) -> TensorDictBase:
        """Weigh this rank's means over frames by how many it has, so that their mean over ranks is that of all."""
        valid = self._valid(tensordict)
        if ranks.count() > 1 and valid is not None:
            share = ranks.share(valid.sum())
            for key in out.keys():
                if key.startswith("loss_") or key in _MEANS:
                    out.set(key, out.get(key) * share)
        return out

    def _entropy_over_valid(self, tensordict: TensorDictBase, out: TensorDictBase) -> None:
        valid = self._valid(tensordict)
        if valid is not None and "entropy" in out.keys():
            # The distribution's entropy is 0 on padding, so its plain mean only lacks the right denominator.
            out.set("entropy", out.get("entropy") * (valid.numel() / valid.sum().clamp_min(1)))


class _RatioStatistics(_MaskedStatistics):
    """Statistics of the ratio of new to old density over valid frames, for the losses that have one."""

    _last_log_weight: Tensor | None = None
    _last_distribution: Distribution | None = None

    def _log_weight(self, tensordict: TensorDictBase, adv_shape: torch.Size) -> tuple[Tensor, ...]:
        result = super()._log_weight(tensordict, adv_shape)  # type: ignore[misc]
        self._last_log_weight, self._last_distribution = result[0].detach().squeeze(-1), result[1]
        return result

    def _ratio_over_valid(
        self, tensordict: TensorDictBase, out: TensorDictBase, bounds: tuple[Tensor, Tensor] | None
    ) -> TensorDictBase:
        log_weight, self._last_log_weight, self._last_distribution = self._last_log_weight, None, None
        valid = self._valid(tensordict)
        if log_weight is not None:
            # by masks: picking the valid frames out would wait for the device
            seen = torch.ones_like(log_weight, dtype=torch.bool) if valid is None else valid
            n, x = seen.sum().clamp_min(1), torch.where(seen, log_weight, -math.inf).flatten()
            if bounds is not None:
                out.set("clip_fraction", (seen & ((log_weight < bounds[0]) | (log_weight > bounds[1]))).sum() / n)
            out.set("kl_approx", -torch.where(seen, log_weight, 0.0).sum() / n)
            out.set("mean_ratio", x.exp().sum() / n)
            out.set("max_ratio", x.exp().max())
            out.set("ESS", (2 * x.logsumexp(0) - (2 * x).logsumexp(0)).exp() / n)
        if "explained_variance" in out.keys():
            out.set("explained_variance", _explained_variance(self, tensordict, valid))
        self._entropy_over_valid(tensordict, out)
        return self._of_all_ranks(tensordict, out)


class ClipPPOLoss(_RatioStatistics, _TorchRLClipPPOLoss):
    """:class:`torchrl.objectives.ClipPPOLoss` on rows [B, T] with ``latent`` as the action (Schulman et al., 2017).

    Args:
        actor_network: ``policy.actor_module``, which ends at the latent.
        critic_network: a module that writes ``state_value``, or None (advantages precomputed, e.g. from a group).
        frame_mask_key: True on valid frames.
        **kwargs: as of TorchRL's loss: ``clip_epsilon``, ``critic_coeff``, ``entropy_bonus``, ...; but no entropy bonus
            by default, since the noise is fixed by default.

    The statistics are over valid frames: ``clip_fraction``, ``kl_approx`` (nats per frame), ``ESS`` (share of
    effective samples, 1 at ratio 1), ``max_ratio``, ``mean_ratio``, ``entropy``; all scalars.
    """

    @dataclass
    class _AcceptedKeys(AdvantageKeys, _TorchRLClipPPOLoss._AcceptedKeys): ...

    default_keys = _AcceptedKeys

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        tensordict = self.named_as_ours(tensordict)
        return self._ratio_over_valid(tensordict, super().forward(tensordict), self._clip_bounds)


class KLPenaltyPPOLoss(_RatioStatistics, _TorchRLKLPENPPOLoss):
    """PPO with a penalty: -ratio * advantage, and beta * KL(old || new) (Schulman et al., 2017).

    Not :class:`torchrl.objectives.KLPENPPOLoss`, though made of it. The surrogate is ``loss_objective`` and the penalty
    ``loss_penalty``: TorchRL's single sum would be rescaled as one by :class:`~s2f_rl.losses.WeightedLoss`, whatever
    beta is. And TorchRL adapts beta at every forward pass, without bounds and by a mean that counts padding; here it
    changes once per batch, as in the paper, when its owner says so.

    Args:
        actor_network, critic_network, frame_mask_key, **kwargs: as :class:`ClipPPOLoss`, without ``clip_epsilon``. The
            batch needs ``loc`` and ``scale``, which every rollout holds.
        beta: a number, or something that gives it when called, such as :class:`~s2f_rl.losses.PenaltyCoefficient`.

    Statistics as :class:`ClipPPOLoss` without ``clip_fraction``, and ``kl``: the mean over valid frames, nats.
    """

    @dataclass
    class _AcceptedKeys(AdvantageKeys, _TorchRLKLPENPPOLoss._AcceptedKeys): ...

    default_keys = _AcceptedKeys

    def __init__(
        self,
        actor_network: ProbabilisticTensorDictSequential | None = None,
        critic_network: TensorDictModuleBase | None = None,
        *,
        beta: float | Callable[[], float] = 1.0,
        **kwargs: Any,
    ):
        self_beta = beta if callable(beta) else lambda: beta
        fixed = {"beta": float(self_beta()), "increment": 1.0, "decrement": 1.0}
        super().__init__(actor_network, critic_network, **fixed, **kwargs)
        self._beta_now = self_beta

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        tensordict = self.named_as_ours(tensordict)
        beta = float(self._beta_now())
        self.beta.fill_(0.0)  # TorchRL's sum is the surrogate alone
        out = super().forward(tensordict)
        old, new = self.actor_network.build_dist_from_params(tensordict), self._last_distribution
        assert new is not None  # TorchRL's forward has just evaluated it
        kl, valid = torch.distributions.kl_divergence(old, new), self._valid(tensordict)
        mean = kl.mean() if valid is None else torch.where(valid, kl, 0.0).sum() / valid.sum().clamp_min(1)
        out.set("loss_penalty", beta * mean)
        out.set("kl", mean.detach())
        out.set("beta", torch.full_like(mean.detach(), beta))
        return self._ratio_over_valid(tensordict, out, None)


class KLPENPPOLoss(KLPenaltyPPOLoss):
    """The old name of :class:`KLPenaltyPPOLoss`; goes with the next release."""

    def __init__(self, *args: object, **kwargs: Any):
        warnings.warn("KLPENPPOLoss is now KLPenaltyPPOLoss: TorchRL's differs", FutureWarning, stacklevel=2)
        super().__init__(*args, **kwargs)


class A2CLoss(_MaskedStatistics, _TorchRLA2CLoss):
    """:class:`torchrl.objectives.A2CLoss` on rows [B, T] with ``latent`` as the action: -advantage * log-probability.

    Args:
        actor_network: ``policy.actor_module``.
        critic_network: a module that writes ``state_value`` (its term's weight is ``critic_coeff``), or None.
        frame_mask_key: True on valid frames.
        **kwargs: as of TorchRL's loss, but no entropy bonus by default.
    """

    @dataclass
    class _AcceptedKeys(AdvantageKeys, _TorchRLA2CLoss._AcceptedKeys): ...

    default_keys = _AcceptedKeys

    def __init__(
        self,
        actor_network: ProbabilisticTensorDictSequential | None = None,
        critic_network: TensorDictModuleBase | None = None,
        **kwargs: Any,
    ):
        critic_network = kwargs.pop("critic", critic_network)
        if critic_network is None:
            critic_network, kwargs["critic_coeff"] = _NoCritic(), None
        super().__init__(actor_network, critic_network, **kwargs)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        tensordict = self.named_as_ours(tensordict)
        out = super().forward(tensordict)
        self._entropy_over_valid(tensordict, out)
        return self._of_all_ranks(tensordict, out)


class ReinforceLoss(_MaskedStatistics, _TorchRLReinforceLoss):
    """:class:`torchrl.objectives.ReinforceLoss` on rows [B, T]: -advantage * log-probability (Williams, 1992).

    Its terms are called as those of TorchRL's other losses: ``loss_objective`` and ``loss_critic``.

    Args:
        actor_network: ``policy.actor_module``.
        critic_network: a module that writes ``state_value``, or None.
        critic_coeff: weight of ``loss_critic``, the error of the critic; TorchRL's loss has none.
        frame_mask_key: True on valid frames.
        **kwargs: as of TorchRL's loss, but the critic's error is squared by default.
    """

    @dataclass
    class _AcceptedKeys(AdvantageKeys, _TorchRLReinforceLoss._AcceptedKeys): ...

    default_keys = _AcceptedKeys

    _defaults = {"loss_critic_type": "l2"}

    def __init__(
        self,
        actor_network: ProbabilisticTensorDictSequential | None = None,
        critic_network: TensorDictModuleBase | None = None,
        *,
        critic_coeff: float = 1.0,
        **kwargs: Any,
    ):
        critic_network = kwargs.pop("critic", critic_network)
        super().__init__(actor_network, _NoCritic() if critic_network is None else critic_network, **kwargs)
        self._has_critic, self.critic_coeff = critic_network is not None, float(critic_coeff)

    def loss_critic(self, tensordict: TensorDictBase) -> tuple[Tensor, Tensor | None]:
        """The critic's error at every frame, and TorchRL's clip fraction; zeros without a critic."""
        if self._has_critic:
            return super().loss_critic(tensordict)
        return torch.zeros_like(tensordict.get(self.tensor_keys.advantage)), None

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        tensordict = self.named_as_ours(tensordict)
        out = super().forward(tensordict.clone(False))
        terms = {"loss_objective": out.get("loss_actor")}  # WeightedLoss treats the critic's as a term of its own
        if self._has_critic:
            terms["loss_critic"] = self.critic_coeff * out.get("loss_value")
        return self._of_all_ranks(tensordict, TensorDict(terms))


@torch.no_grad()
def _explained_variance(loss: Any, tensordict: TensorDictBase, valid: Tensor | None) -> Tensor:
    """1 - Var(target - value) / Var(target) over valid frames."""
    with loss.critic_network_params.to_module(loss.critic_network), set_recurrent_mode(True):
        value = loss.critic_network(tensordict.clone(False)).get(loss.tensor_keys.value).squeeze(-1)
    target = tensordict.get(loss.tensor_keys.value_target).squeeze(-1)
    if valid is not None:
        value, target = value[valid], target[valid]
    return 1 - (target - value).var(correction=0) / target.var(correction=0).clamp_min(1e-12)


@torch.no_grad()
def check_ratio_is_one(
    actor_module: ProbabilisticTensorDictSequential, batch: TensorDictBase, tolerance: float = 1e-3
) -> float:
    """Largest |log ratio| of a fresh batch under the policy that sampled it; every RL run asserts this at its start.

    Args:
        actor_module: ``policy.actor_module``.
        batch: [B, T] rows as collected, before any update.
        tolerance: nats per frame.

    Raises:
        NotFinite: a log-probability is not finite.
        RuntimeError: step mode and sequence mode disagree (dropout in a rollout, a stale cache, shifted rows, ...).
    """
    with set_recurrent_mode(True):
        dist = actor_module.get_dist(batch.clone(False))
    mask = batch.get(keys.FRAME_MASK).squeeze(-1)
    difference = (dist.log_prob(batch.get(keys.LATENT)) - batch.get(keys.LATENT_LOG_PROB))[mask]
    worst = float(difference.abs().max()) if difference.numel() else 0.0
    if not math.isfinite(worst):
        raise NotFinite("the policy's log-probabilities are not finite before its first update; check start")
    if not worst < tolerance:
        raise RuntimeError(
            f"the policy's ratio is not 1 before its first update (worst |log ratio| {worst:.2e} > {tolerance:.0e}): "
            "the rollout and the update do not see the same policy"
        )
    return worst
