"""Adam whose moments can be carried over by name: RL starts where the supervised run's optimizer stopped.

Starting RL with fresh moments makes the first steps large and undirected; on a toy of this task that cost reward and
19% of lip vertex error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from s2f_rl.errors import UserError
from s2f_rl.losses import total_loss
from s2f_rl.training.divergence import StepGuard

Moments = dict[str, dict[str, Tensor]]


def make_optimizer(
    groups: Iterable[tuple[Iterable[tuple[str, nn.Parameter]], float]],
    lr: float,
    output_lr_factor: float = 1.0,
    weight_decay: float = 0.0,
    output_map: Iterable[nn.Parameter] | None = None,
) -> torch.optim.Adam:
    """Adam over named parameters that require a gradient, in groups with rates of their own.

    Args:
        groups: (named parameters, factor of the rate) pairs; a parameter counts in the first group that has it.
        lr: base rate; :func:`cosine_decay` changes it and keeps the factors.
        output_lr_factor: further factor for the output map W, b. Its unit is metres: an Adam step of 1e-4 in all 64
            columns moves a vertex by millimetres, so the rest of the network needs a far larger rate than it does.
        weight_decay: of all.
        output_map: these parameters (``actor.output_map()``).

    Raises:
        ValueError: a factor for the output map, and none is given.
    """
    if output_map is None and output_lr_factor != 1.0:
        raise ValueError(f"output_lr_factor={output_lr_factor} is of nothing: give output_map=actor.output_map()")
    seen: set[int] = set()
    apart = {id(p) for p in output_map or ()}
    found: dict[tuple[int, bool], list[nn.Parameter]] = {}
    factors: dict[tuple[int, bool], float] = {}
    for k, (parameters, factor) in enumerate(groups):
        for _, p in parameters:
            if p.requires_grad and id(p) not in seen:
                seen.add(id(p))
                # not by the rate: groups that happen to share one would also share their clipping
                key = (k, id(p) in apart)
                factors[key] = factor * (output_lr_factor if key[1] else 1.0)
                found.setdefault(key, []).append(p)
    options = [{"params": p, "lr": lr * factors[key], "lr_factor": factors[key]} for key, p in found.items()]
    return torch.optim.Adam(options, lr=lr, weight_decay=weight_decay)


class Rates(Protocol):
    """The rates of an optimizer's config: of the first iteration and of the last."""

    lr: float
    final_lr: float


def cosine_decay(optimizer: torch.optim.Optimizer, options: Rates, iteration: int, iterations: int) -> float:
    """Set the rate of ``iteration`` (1 to ``iterations``): from ``options.lr`` down to ``options.final_lr``."""
    share = (1 + math.cos(math.pi * (iteration - 1) / max(1, iterations))) / 2
    lr = options.final_lr + share * (options.lr - options.final_lr)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
    return lr


def gradient_step(
    loss: nn.Module,
    rows: TensorDictBase,
    optimizer: torch.optim.Optimizer,
    max_grad_norm: float | None,
    guard: StepGuard | None = None,
) -> TensorDictBase:
    """One update: the sum of the ``loss_*`` of ``loss(rows)``, clipped by :func:`clip_gradients`; none if not finite.

    Args:
        loss: a TorchRL loss module.
        rows: [B, T] rows.
        optimizer: of the loss's parameters.
        max_grad_norm: of every parameter group by itself; None: no clipping.
        guard: of the run, which counts the updates that are skipped and moves the average.

    Returns:
        the loss's output, detached.
    """
    out = loss(rows)
    (guard or StepGuard()).step(total_loss(out), optimizer, max_grad_norm)
    return out.detach()


def named_moments(optimizer: torch.optim.Optimizer, parameters: Iterable[tuple[str, nn.Parameter]]) -> Moments:
    """``{name: {"exp_avg", "exp_avg_sq", "step"}}`` of the parameters that have been stepped; not copies."""
    return {
        name: {key: value.detach() for key, value in optimizer.state[p].items()}
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
        if not all(isinstance(v, Tensor) and v.is_floating_point() for v in saved.values()):
            raise UserError(f"moments of {name}: are no tensors of floats; start from another checkpoint")
        # Adam keeps its step count on the CPU, the moments beside the parameter.
        optimizer.state[p] = {
            k: v.clone() if k == "step" else v.to(p.device, p.dtype, copy=True) for k, v in saved.items()
        }
        loaded += 1
    return loaded
