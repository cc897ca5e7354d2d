"""What every state dict that comes from a file must be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from s2f_rl.errors import UserError


def require_dense(state_dict: Mapping[Any, Any]) -> None:
    """Raise a UserError unless a state dict holds plain dense tensors by name."""
    for name, value in state_dict.items():
        plain = isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_nested
        if not isinstance(name, str) or not plain or value.is_meta or value.is_quantized:
            raise UserError(f"{str(name)[:80]} is no dense tensor")
