"""A sum of named, weighted losses that tells each term's value and gradient norm, and can balance them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from torch import Tensor, nn
from torchrl.objectives import LossModule

from s2f_rl import ranks
from s2f_rl.errors import UserError
from s2f_rl.models.contract import core_of
from s2f_rl.models.hearing import Hearing

BALANCES = ("none", "grad_norm")
APART = ("loss_critic", "loss_penalty")  # entries of a part that are terms of their own
Weight = float | Callable[[], float]


class _CarryGradient(torch.autograd.Function):
    """A scalar whose gradient is already known: each term is back-propagated once, for its norm and for the update."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor | None], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:  # type: ignore[override]
        return (None, None, *(None if g is None else grad_output * g for g in ctx.gradients))


class LastNorm(nn.Module):
    """The last positive, finite norm of a term, 0 before the first; a buffer, so that a resumed run goes on with it."""

    last: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(()))

    @torch.no_grad()
    def update(self, norm: Tensor) -> Tensor:
        """Take a norm (scalar) in; returns it, or the last one where it is 0 or not finite."""
        self.last = torch.where((norm > 0) & torch.isfinite(norm), norm.detach(), self.last.to(norm.device))
        return self.last


class WeightedLoss(LossModule):
    """``WeightedLoss({"policy": (ppo, 1.0), "supervised": (supervised, 1.0)})``: one loss of several.

    Every ``loss_*`` entry of a part belongs to its term, with two exceptions. ``loss_critic`` becomes the term
    ``<name>_critic`` (its coefficient is the part's own ``critic_coeff``) and is never balanced. ``loss_penalty``
    becomes ``<name>_penalty`` and gets the factor of ``<name>``: its size against the rest of the part is the part's
    own affair, and a weight of 0 switches both off.

    Args:
        losses: name -> (loss module, weight). A weight of 0 keeps the term's value and gradient norm in the log and
            takes it out of the update: that is the compute-matched control. A weight that changes during a run is a
            function without arguments (:class:`~s2f_rl.losses.AdaptiveKL`), asked at every forward pass.
        balance: ``"none"``: the weighted sum. ``"grad_norm"``: over the parameters that terms share, the gradient of
            every term gets ``weight`` times the norm of the anchor's, so the terms pull in the ratio of their weights.
            A batch in which the anchor is silent (no ground truth) counts with its last norm, see ``anchor_norm``. The
            policy's output map is balanced with the rest but counts in no norm: its gradient is per metre.
            (A supervised term with a gradient 5 to 30 times that of the policy term silently erased the RL signal.)
            Balancing also keeps the noise of a vanished signal at full size: let the learning rate decay.
        anchor: the term that keeps its own scale, so that an optimizer's moments stay in proportion; default:
            ``"supervised"`` if there is one, else the first.
        unbalanced: further terms that keep their own scale; by default the KL, which is 0 at the start and would be
            blown up.
        output_map: parameters that count in no norm, beside what the policies of the losses take for constants.
        hearing: makes the ``audio`` of every batch anew, so that the terms train the audio encoder too; None: the
            batch's own. It reads ``utterance`` and ``frame_mask`` by these names.

    Returns (``forward``): per term ``loss_<name>`` (weighted and balanced: the sum of all ``loss_*`` is what to
    minimise), ``value_<name>`` (unweighted), ``grad_norm_<name>`` (over the shared parameters, unweighted; over all
    of its parameters where it shares none), and the parts' statistics as ``<name>_<statistic>``.

    Without gradients enabled only values and statistics are returned.

    Of several ranks (:mod:`s2f_rl.ranks`) values, statistics and the gradients of every term are means over all, taken
    before norms and balance: every rank gets the gradient that one process has on the whole batch.

    Attributes:
        anchor_norm: the norm of the anchor's last gradient that was not 0; to be saved with a run.

    Example:
        >>> loss = WeightedLoss({"policy": (ppo, 1.0), "supervised": (supervised, 1.0)}, balance="grad_norm")
        >>> out = loss(batch)
        >>> total_loss(out).backward()
    """

    def __init__(
        self,
        losses: Mapping[str, tuple[nn.Module, Weight]],
        balance: str = "none",
        anchor: str | None = None,
        unbalanced: Sequence[str] = ("kl",),
        output_map: Iterable[nn.Parameter] = (),
        hearing: Hearing | None = None,
    ) -> None:
        if balance not in BALANCES:
            raise UserError(f"balance={balance!r} is unknown: use one of {', '.join(BALANCES)}")
        if not losses:
            raise UserError("losses: at least one term is needed")
        for name, (_, weight) in losses.items():
            if _number(weight) < 0:
                raise UserError(f"weight of {name} is {weight}: weights are not negative")
        super().__init__()
        self.hearing = hearing
        self.parts = nn.ModuleDict({name: loss for name, (loss, _) in losses.items()})
        self.weights: dict[str, Weight] = {name: weight for name, (_, weight) in losses.items()}
        if anchor is not None and anchor not in losses:
            raise UserError(f"anchor={anchor!r} is no term: use one of {', '.join(losses)}")
        self.balance = balance
        self.anchor = anchor or ("supervised" if "supervised" in losses else next(iter(losses)))
        self.unbalanced = {self.anchor, *unbalanced}
        self.anchor_norm = LastNorm()
        apart = {id(p) for p in (*output_map, *(p for part in self.parts.values() for p in _constants(part)))}
        self._apart = {name for name, p in self.named_parameters() if id(p) in apart}

    def set_keys(self, **names: Any) -> None:
        """Rename keys of the batch in every part that reads them, as TorchRL's losses do.

        Raises:
            ValueError: no part reads such a key.
        """
        parts: list[Any] = list(self.parts.values())
        for name, key in names.items():
            readers = [part for part in parts if name in part._AcceptedKeys.__dataclass_fields__]
            if not readers:
                raise ValueError(f"{name} is not an accepted tensordict key of {', '.join(self.parts)}")
            for part in readers:
                part.set_keys(**{name: key})

    @property
    def in_keys(self) -> list[NestedKey]:
        """What the parts read."""
        return list(dict.fromkeys(key for part in self.parts.values() for key in getattr(part, "in_keys", [])))

    @property
    def out_keys(self) -> list[str]:
        return [f"loss_{name}" for name in self.parts]

    @out_keys.setter
    def out_keys(self, value: object) -> None:
        raise AttributeError("the out_keys of WeightedLoss follow from its parts")

    def _terms(self, tensordict: TensorDictBase) -> tuple[dict[str, tuple[Tensor, float]], dict[str, Tensor]]:
        terms: dict[str, tuple[Tensor, float]] = {}
        statistics: dict[str, Tensor] = {}
        if self.hearing is not None:
            tensordict = self.hearing(tensordict)
        for name, part in self.parts.items():
            out = part(tensordict)
            own = [out.get(k) for k in out.keys() if k.startswith("loss_") and k not in APART]
            if own:
                terms[name] = (torch.stack([x.sum() for x in own]).sum(), _number(self.weights[name]))
            if "loss_penalty" in out.keys():
                terms[f"{name}_penalty"] = (out.get("loss_penalty").sum(), _number(self.weights[name]))
            if "loss_critic" in out.keys():
                terms[f"{name}_critic"] = (out.get("loss_critic").sum(), 1.0)
            for k in out.keys():
                statistics[f"{name}_{k.removeprefix('loss_')}"] = out.get(k).detach()
        if ranks.count() > 1:
            means = ranks.mean(torch.stack([value.float().mean() for value in statistics.values()]))
            statistics = dict(zip(statistics, means, strict=True))
        return terms, statistics

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        terms, statistics = self._terms(tensordict)
        values = [value for value, _ in terms.values()]
        whole = dict(zip(terms, values if ranks.count() == 1 else ranks.mean(torch.stack(values)), strict=True))
        out = TensorDict({f"value_{name}": whole[name].detach() for name in terms})
        out.update(statistics)
        if not torch.is_grad_enabled():
            for name, (_, weight) in terms.items():
                out.set(f"loss_{name}", weight * whole[name])
            return out
        named = {id(p): (name, p) for name, p in self.named_parameters() if p.requires_grad}
        parameters = [p for _, p in named.values()]
        gradients = self._of_all_ranks({name: self._gradients(value, parameters) for name, (value, _) in terms.items()})
        shared = self._shared([name for name, _ in named.values()], list(gradients.values()))
        norms = {}
        for name, (value, _) in terms.items():
            own = [g for g, counts in zip(gradients[name], shared, strict=True) if g is not None and counts]
            norms[name] = _norm(own or [g for g in gradients[name] if g is not None], value)
        anchor = self.anchor_norm.update(norms[self.anchor]) if self.anchor in norms else None
        spoke = _not_zero([gradients[name] for name in terms])
        factors: dict[str, Tensor] = {}
        for (name, (_, weight)), speaks in zip(terms.items(), spoke, strict=True):
            factor = factors[name] = self._factor(name, weight, norms[name], anchor, factors)
            # A term that says nothing (weight 0, or no ground truth in the batch) leaves its parameters without a
            # gradient: a gradient of zeros would let the optimizer's momentum move them.
            silent = not weight or not speaks
            scaled = [None if g is None or silent else factor * g for g in gradients[name]]
            out.set(f"grad_norm_{name}", norms[name])
            out.set(f"loss_{name}", _CarryGradient.apply((factor * whole[name]).detach(), scaled, *parameters))
        return out

    def _factor(
        self, name: str, weight: float, norm: Tensor, anchor: Tensor | None, factors: Mapping[str, Tensor]
    ) -> Tensor:
        leader = name.removesuffix("_penalty")
        if leader != name and leader in factors:
            return factors[leader]
        plain = torch.full_like(norm, weight)
        if self.balance == "none" or anchor is None or name in self.unbalanced or name.endswith("_critic"):
            return plain
        return torch.where((norm > 0) & (anchor > 0), weight * anchor / norm.clamp_min(1e-30), plain)

    def _shared(self, names: Sequence[str], gradients: Sequence[Sequence[Tensor | None]]) -> list[bool]:
        """Which parameters the norms are taken over: those of at least two terms, without the output map if possible.

        W, b of the output map are per metre: their gradient, 100 times the rest, would be all that is compared.
        """
        shared = [sum(g[i] is not None for g in gradients) > 1 for i in range(len(names))]
        network = [counts and name not in self._apart for counts, name in zip(shared, names, strict=True)]
        return network if any(network) else shared

    @staticmethod
    def _of_all_ranks(gradients: Mapping[str, Sequence[Tensor | None]]) -> dict[str, Sequence[Tensor | None]]:
        if ranks.count() == 1:
            return dict(gradients)
        means = iter(ranks.average([g for own in gradients.values() for g in own]))
        return {name: [next(means) for _ in own] for name, own in gradients.items()}

    @staticmethod
    def _gradients(value: Tensor, parameters: list[nn.Parameter]) -> tuple[Tensor | None, ...]:
        if not value.requires_grad or not parameters:
            return (None,) * len(parameters)
        return torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)


def _constants(part: Any) -> list[nn.Parameter]:
    """What the policy of a loss takes for constants; none where it has no policy of ours."""
    network = getattr(part, "actor_network", None)
    if network is None or not hasattr(core_of(network), "frozen_in_rl"):
        return []
    with part.actor_network_params.to_module(network):
        return list(core_of(network).frozen_in_rl())


def _number(weight: Weight) -> float:
    return float(weight() if callable(weight) else weight)


def _norm(gradients: Sequence[Tensor], like: Tensor) -> Tensor:
    if not gradients:
        return torch.zeros((), device=like.device)
    return torch.stack([g.norm() for g in gradients]).norm()


def _not_zero(terms: Sequence[Sequence[Tensor | None]]) -> list[bool]:
    """Of each term, whether any of its gradients has an entry that is not 0; the device is asked once for all."""
    own = [[g for g in gradients if g is not None] for gradients in terms]
    largest = [torch.stack(torch._foreach_norm(each, math.inf)).max() for each in own if each]
    found = iter((torch.stack(largest) != 0).tolist() if largest else ())
    return [bool(each) and next(found) for each in own]


def total_loss(out: TensorDictBase) -> Tensor:
    """Sum of all ``loss_*`` entries of a loss module's output."""
    return torch.stack([out.get(k).sum() for k in out.keys() if k.startswith("loss_")]).sum()
