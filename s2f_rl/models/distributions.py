"""The distributions of the policies, with a mask that holds on probability, entropy and divergence alike."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl

Shape = torch.Size | list[int] | tuple[int, ...]


class MaskedNormal(Distribution):
    """Independent normal over the last dimension whose log-density, entropy and KL are 0 on padding.

    TorchRL masks the losses but not every statistic (``kl_approx``, ``clip_fraction``, KLPEN's mean), and padding can
    turn gradients into nan while the loss is finite: here padded values never enter the graph.

    Args:
        loc: [.., H] mean.
        scale: standard deviation, broadcastable to ``loc``.
        frame_mask: [.., 1] bool, True on valid frames; None: all are.
        average: divide log-density, entropy and KL by H. This is no density; it is what the original project does on
            vertices (as DDPO and Flow-GRPO do on pixels), kept for comparison.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, frame_mask: Tensor | None = None, average: bool = False) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.frame_mask = frame_mask
        self.average = average
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def deterministic_sample(self) -> Tensor:
        return self.loc

    @property
    def stddev(self) -> Tensor:
        return self.scale

    @property
    def variance(self) -> Tensor:
        return self.scale.square()

    def expand(self, batch_shape: Shape, _instance: Distribution | None = None) -> MaskedNormal:
        shape = torch.Size(batch_shape) + self.event_shape
        mask = None if self.frame_mask is None else self.frame_mask.expand(*batch_shape, 1)
        return MaskedNormal(self.loc.expand(shape), self.scale.expand(shape), mask, self.average)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        return self.loc + self.scale * torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)

    def reduce(self, per_dimension: Tensor) -> Tensor:
        """Sum (or average) over the last dimension, then 0 on padding."""
        total = per_dimension.mean(-1) if self.average else per_dimension.sum(-1)
        if self.frame_mask is None:
            return total
        return torch.where(self.frame_mask.squeeze(-1), total, torch.zeros_like(total))

    def _valid(self, value: Tensor, fill: Tensor) -> Tensor:
        return value if self.frame_mask is None else torch.where(self.frame_mask, value, fill)

    def log_prob(self, value: Tensor) -> Tensor:
        # A padded value (anything, nan included) is replaced before it meets the graph.
        value = self._valid(value, self.loc.detach())
        z = (value - self.loc) / self.scale
        return self.reduce(-0.5 * z.square() - self.scale.log() - 0.5 * math.log(2 * math.pi))

    def entropy(self) -> Tensor:
        return self.reduce(0.5 + 0.5 * math.log(2 * math.pi) + self.scale.log())


@register_kl(MaskedNormal, MaskedNormal)
def _kl_masked_normal(p: MaskedNormal, q: MaskedNormal) -> Tensor:
    ratio = (p.scale / q.scale).square()
    shift = ((p.loc - q.loc) / q.scale).square()
    return p.reduce(0.5 * (ratio + shift - 1 - ratio.log()))


class MaskedCodes(Distribution):
    """Q independent categoricals over K codes whose log-probability, entropy and KL, summed over Q, are 0 on padding.

    Padded logits and codes never enter the graph, whatever they hold.

    Args:
        logits: [.., Q, K], unnormalised.
        frame_mask: [.., 1] bool, True on valid frames; None: all are.

    Attributes:
        log_probs: [.., Q, K], normalised.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.independent(constraints.nonnegative_integer, 1)

    def __init__(self, logits: Tensor, frame_mask: Tensor | None = None) -> None:
        self.frame_mask = frame_mask
        if frame_mask is not None:
            logits = torch.where(frame_mask.unsqueeze(-1), logits, torch.zeros_like(logits))
        self.log_probs = logits.log_softmax(-1)
        super().__init__(logits.shape[:-2], logits.shape[-2:-1], validate_args=False)

    @property
    def probs(self) -> Tensor:
        """[.., Q, K]."""
        return self.log_probs.exp()

    @property
    def mode(self) -> Tensor:
        """The likeliest codes [.., Q]."""
        return self.log_probs.argmax(-1)

    @property
    def deterministic_sample(self) -> Tensor:
        return self.mode

    def expand(self, batch_shape: Shape, _instance: Distribution | None = None) -> MaskedCodes:
        mask = None if self.frame_mask is None else self.frame_mask.expand(*batch_shape, 1)
        return MaskedCodes(self.log_probs.expand(*batch_shape, *self.log_probs.shape[-2:]), mask)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Codes [.., Q], int64: the first of K exponential clocks to ring, so that none of probability 0 is drawn."""
        probs = self.probs.expand(*sample_shape, *self.log_probs.shape)
        return (probs / torch.empty_like(probs, memory_format=torch.contiguous_format).exponential_()).argmax(-1)

    def reduce(self, per_code: Tensor) -> Tensor:
        """[.., Q] summed over the codes of a frame, then 0 on padding."""
        total = per_code.sum(-1)
        if self.frame_mask is None:
            return total
        return torch.where(self.frame_mask.squeeze(-1), total, torch.zeros_like(total))

    def log_prob(self, value: Tensor) -> Tensor:
        if self.frame_mask is not None:
            value = torch.where(self.frame_mask, value, torch.zeros_like(value))
        return self.reduce(self.log_probs.gather(-1, value.unsqueeze(-1)).squeeze(-1))

    def entropy(self) -> Tensor:
        return self.reduce(-(self.probs * self.log_probs).sum(-1))


@register_kl(MaskedCodes, MaskedCodes)
def _kl_masked_codes(p: MaskedCodes, q: MaskedCodes) -> Tensor:
    return p.reduce((p.probs * (p.log_probs - q.log_probs)).sum(-1))
