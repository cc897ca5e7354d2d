"""The device of a run, from the word in its config."""

from __future__ import annotations

import torch

from s2f_rl import ranks
from s2f_rl.errors import UserError


def pick_device(name: str = "auto") -> torch.device:
    """``"auto"`` is the first CUDA device (of several ranks, each its own), or the CPU where there is none;
    anything else is torch's own spelling.

    Raises:
        UserError: unknown device, or one that this machine does not have.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        if ranks.count() > 1 and torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError, ValueError, NotImplementedError) as error:
        raise UserError(f"device={name}: not available here; use device=auto or device=cpu") from error
    return device
