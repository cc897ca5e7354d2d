"""Adam whose moments can be carried over by name: RL starts where the supervised run's optimizer stopped.

Starting RL with fresh moments makes the first steps large and undirected; on a toy of this task that cost reward and
19% of lip vertex error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Moments = dict[str, dict[str, Tensor]]


def make_optimizer(
    parameters: Iterable[tuple[str, nn.Parameter]],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 0.0,
) -> torch.optim.Adam:
    """Adam over the named parameters that require a gradient."""
    trained = [p for _, p in parameters if p.requires_grad]
    return torch.optim.Adam(trained, lr=lr, betas=tuple(betas), weight_decay=weight_decay)


def named_moments(optimizer: torch.optim.Optimizer, parameters: Iterable[tuple[str, nn.Parameter]]) -> Moments:
    """``{name: {"exp_avg", "exp_avg_sq", "step"}}`` of the parameters that have been stepped."""
    return {
        name: {key: value.detach().clone() for key, value in optimizer.state[p].items()}
        for name, p in parameters
        if p in optimizer.state and optimizer.state[p]
    }


def load_moments(
    optimizer: torch.optim.Optimizer, parameters: Iterable[tuple[str, nn.Parameter]], moments: Mapping[str, Any]
) -> int:
    """Put saved moments into ``optimizer`` where name and shape agree; returns for how many parameters they did."""
    optimized = {id(p) for group in optimizer.param_groups for p in group["params"]}
    loaded = 0
    for name, p in parameters:
        saved = moments.get(name)
        if saved is None or id(p) not in optimized or saved["exp_avg"].shape != p.shape:
            continue
        # Adam keeps its step count on the CPU, the moments beside the parameter.
        optimizer.state[p] = {k: v.clone() if k == "step" else v.to(p.device, p.dtype) for k, v in saved.items()}
        loaded += 1
    return loaded
