"""Everything a run needs to go on as if it had never stopped: weights, moments, counters, random draws."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch

from s2f_rl.data.soundness import float_weights
from s2f_rl.errors import UserError


class Stateful(Protocol):
    """A part of a run that says where it is and goes on from there: modules, optimizers, schedulers, our own."""

    def state_dict(self) -> Mapping[str, Any]:
        """Plain enough for a checkpoint."""

    def load_state_dict(self, state: dict[str, Any], /) -> object:
        """Go on where ``state`` was taken."""


Part = Stateful | torch.Generator | np.random.Generator


def seed_everything(seed: int) -> None:
    """Seed torch (all devices), numpy's legacy generator and Python's; call it once, at the start of a run."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state() -> dict[str, object]:
    """State of torch's, numpy's and Python's global generators as plain tensors and numbers.

    Returns:
        ``{"torch": uint8, "cuda": [uint8, ...], "numpy": {...}, "python": {...}}``; ``cuda`` is empty without a GPU
        in use. Loads with ``torch.load(weights_only=True)``.
    """
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, words, next_gauss = random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    return {
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "numpy": {
            "name": str(name),
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "gauss": float(gauss),
        },
        "python": {"version": version, "words": torch.tensor(words, dtype=torch.int64), "next_gauss": next_gauss},
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Put back what :func:`rng_state` returned. A different number of GPUs leaves the GPUs' generators alone."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available() and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all([device.cpu() for device in state["cuda"]])
    draws = state["numpy"]
    keys = draws["keys"].cpu().numpy().astype(np.uint32)
    np.random.set_state((draws["name"], keys, draws["position"], draws["has_gauss"], draws["gauss"]))
    draws = state["python"]
    random.setstate((draws["version"], tuple(draws["words"].tolist()), draws["next_gauss"]))


class TrainingState:
    """The parts of a run under their names, its counters and the random generators, as one state dict.

    Args:
        **parts: anything with ``state_dict`` and ``load_state_dict`` (modules, optimizers, schedulers, an
            environment's draws, :class:`~s2f_rl.runs.ema.PolicyAverage`), or a ``torch.Generator`` or
            ``numpy.random.Generator``. A part that is None (switched off) is left out.

    Attributes:
        iteration: iterations done.
        frames: frames collected.
        best: best validation value so far, None before the first.

    Example:
        >>> state = TrainingState(policy=policy, optimizer=optimizer)          # doctest: +SKIP
        >>> if folder.resuming:                                                # doctest: +SKIP
        ...     state.load_state_dict(folder.load_checkpoint("last.pt"))
        >>> for state.iteration in range(state.iteration + 1, iterations + 1): # doctest: +SKIP
        ...     ...
        ...     folder.save_checkpoint("last.pt", state.state_dict())
    """

    def __init__(self, **parts: Part | None) -> None:
        self.parts = {name: part for name, part in parts.items() if part is not None}
        self.iteration = 0
        self.frames = 0
        self.best: float | None = None

    def state_dict(self) -> dict[str, object]:
        """``{"iteration", "frames", "best", "rng", "parts": {name: state}}``, plain enough for a checkpoint."""
        return {
            "iteration": int(self.iteration),
            "frames": int(self.frames),
            "best": None if self.best is None else float(self.best),
            "rng": rng_state(),
            "parts": {name: _get(part) for name, part in self.parts.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore parts, counters and, last, the random generators.

        Raises:
            UserError: the checkpoint is of another kind of run, or a part does not fit.
        """
        if not {"iteration", "frames", "best", "rng", "parts"} <= set(state):
            raise UserError("the checkpoint holds no training state; resume from the last.pt of this recipe")
        if set(state["parts"]) != set(self.parts):
            raise UserError(
                f"the checkpoint holds the parts {sorted(state['parts'])}, this run needs {sorted(self.parts)}; "
                "resume with the config that wrote it"
            )
        for name, part in self.parts.items():
            try:
                _set(part, state["parts"][name], f"the checkpoint's part {name!r}")
            except (RuntimeError, ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"the checkpoint's part {name!r} does not fit this run ({str(error)[:200]}); "
                    "resume with the config that wrote it"
                ) from error
        self.iteration, self.frames, self.best = state["iteration"], state["frames"], state["best"]
        set_rng_state(state["rng"])


def _get(part: Part) -> object:
    if isinstance(part, torch.Generator):
        return part.get_state()
    if isinstance(part, np.random.Generator):
        return part.bit_generator.state
    return dict(part.state_dict())


def _set(part: Part, state: Any, what: str) -> None:
    if isinstance(part, torch.Generator):
        part.set_state(state.cpu())
    elif isinstance(part, np.random.Generator):
        part.bit_generator.state = state
    elif isinstance(part, torch.nn.Module):
        part.load_state_dict(float_weights(state, part.state_dict(), what))
    else:
        part.load_state_dict(state)
