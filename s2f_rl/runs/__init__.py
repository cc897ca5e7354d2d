"""Run plumbing that every recipe shares: Hydra entry point, run folder, checkpoints, rows, loggers, alarms.

The names below load their modules on first use, so that light callers (the command) pay for nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s2f_rl.runs.alarm import MotionAlarm, MotionStopped
    from s2f_rl.runs.checkpoints import load_checkpoint, save_checkpoint
    from s2f_rl.runs.device import pick_device
    from s2f_rl.runs.ema import PolicyAverage
    from s2f_rl.runs.folder import RunFolder
    from s2f_rl.runs.loggers import make_logger
    from s2f_rl.runs.main import Recipe, recipe_main
    from s2f_rl.runs.progress import Progress
    from s2f_rl.runs.rows import MetricsRows, read_rows, without_times
    from s2f_rl.runs.state import TrainingState, rng_state, seed_everything, set_rng_state

_HOMES = {
    "MotionAlarm": "alarm",
    "MotionStopped": "alarm",
    "load_checkpoint": "checkpoints",
    "save_checkpoint": "checkpoints",
    "pick_device": "device",
    "PolicyAverage": "ema",
    "RunFolder": "folder",
    "make_logger": "loggers",
    "Recipe": "main",
    "recipe_main": "main",
    "Progress": "progress",
    "MetricsRows": "rows",
    "read_rows": "rows",
    "without_times": "rows",
    "TrainingState": "state",
    "rng_state": "state",
    "seed_everything": "state",
    "set_rng_state": "state",
}

__all__ = [
    "MetricsRows",
    "MotionAlarm",
    "MotionStopped",
    "PolicyAverage",
    "Progress",
    "Recipe",
    "RunFolder",
    "TrainingState",
    "load_checkpoint",
    "make_logger",
    "pick_device",
    "read_rows",
    "recipe_main",
    "rng_state",
    "save_checkpoint",
    "seed_everything",
    "set_rng_state",
    "without_times",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
