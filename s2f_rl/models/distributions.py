"""The Gaussian of the policy, with a mask that holds on density, entropy and divergence alike."""

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
