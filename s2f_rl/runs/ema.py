"""Exponential moving average of a policy's trained parameters, for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

if TYPE_CHECKING:
    from s2f_rl.models.contract import Actor


class PolicyAverage:
    """Keeps ``average = decay * average + (1 - decay) * parameters`` over updates; starts as a copy.

    Only parameters that train are averaged: a frozen audio encoder costs no second copy. The averaging itself is
    :class:`torch.optim.swa_utils.AveragedModel`.

    Args:
        module: policy (or any module); its parameters that require a gradient now are the ones averaged.
        decay: in [0, 1); 0.99 remembers about 100 updates.

    Example:
        >>> average = PolicyAverage(policy, decay=0.99)                 # doctest: +SKIP
        >>> optimizer.step(); average.update()                          # doctest: +SKIP
        >>> with average.swapped_in():                                  # doctest: +SKIP
        ...     evaluate(policy)
    """

    def __init__(self, module: nn.Module | Actor, decay: float = 0.99) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay must lie in [0, 1), got {decay}")
        self._live = nn.ParameterList(parameter for parameter in module.parameters() if parameter.requires_grad)
        self._average = AveragedModel(self._live, multi_avg_fn=get_ema_multi_avg_fn(decay))
        # AveragedModel copies at its first update; count the copy made above as that one
        self._average.update_parameters(self._live)

    def update(self) -> None:
        """Take the parameters as they are now into the average."""
        self._average.update_parameters(self._live)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Inside the block the module carries the averaged parameters; afterwards its own again, bit for bit."""
        own = [parameter.detach().clone() for parameter in self._live]
        self._write([average.detach() for average in self._average.parameters()])
        try:
            yield
        finally:
            self._write(own)

    def weights(self, module: nn.Module | Actor) -> dict[str, torch.Tensor]:
        """The state dict of ``module`` with the averages in place of its averaged parameters; nothing is copied."""
        averages = dict(zip(map(id, self._live), self._average.parameters(), strict=True))
        names = {id(p): name for name, p in module.named_parameters()}
        found = {names[key]: average.detach() for key, average in averages.items() if key in names}
        return module.state_dict() | found

    def state_dict(self) -> dict[str, Any]:
        """Averaged parameters and the number of updates."""
        return dict(self._average.state_dict())

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restore :meth:`state_dict`."""
        self._average.load_state_dict(dict(state))

    @torch.no_grad()
    def _write(self, values: list[torch.Tensor]) -> None:
        # copy_ on the parameter itself, not on .data, so that anything cached by version counter notices
        for parameter, value in zip(self._live, values, strict=True):
            parameter.copy_(value)
