"""Linear layers of many rows on the CPU, by oneDNN.

Torch sends float32 products to MKL, which on processors of other makers than Intel leaves half of the vector units
unused: oneDNN, which torch also contains, takes 0.45 of the time there (Zen 5). It is called by the operation that
``torch.compile`` makes of a linear layer; where torch has none, or on another device, the plain layer is the answer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, gelu: bool = False) -> Tensor:
    """``x @ weight.T + bias`` as ``torch.nn.functional.linear``, differentiable once; numbers differ by rounding.

    Args:
        x: [.., inputs]; brought to the type of ``weight``, float32 or bfloat16 for oneDNN.
        weight: [outputs, inputs]. bias: [outputs].
        gelu: then also ``gelu(..)``, for which the result is not read again where no gradient is wanted.
    """
    x = x.to(weight.dtype)
    if not _fits(x, weight):
        y = F.linear(x, weight, bias)
        return F.gelu(y) if gelu else y
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)):
        y = _Linear.apply(x, weight, bias)
        return F.gelu(y) if gelu else y
    return _product(x, weight, bias, gelu)


def _fits(x: Tensor, weight: Tensor) -> bool:
    return (
        x.ndim > 1
        and x.numel() > 0
        and x.device.type == weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> Tensor:
    if gelu:  # "none": exact, not the tanh approximation
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], "none")
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        of_x, of_weight, of_bias = ctx.needs_input_grad  # type: ignore[attr-defined]
        rows = grad.flatten(0, -2)
        for_x = _product(grad, weight.t(), None) if of_x else None
        for_weight = _product(rows.t(), x.flatten(0, -2).t(), None) if of_weight else None
        return for_x, for_weight, rows.sum(0) if of_bias else None
