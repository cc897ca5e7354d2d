"""Run plumbing that every recipe shares. The names below load their modules on first use.

Floor plan:

- the recipe's command line: ``main`` (:func:`recipe_main`), ``configs`` (Hydra composes; mistakes in one line),
  ``schema`` (types and ranges, from a dataclass), ``overrides``, ``mistakes``, ``tether`` (ends with its starter);
  ``recipes`` (where the scripts lie, copies of them to edit)
- the run: ``folder`` (:class:`RunFolder`), ``shared_folder`` (of several ranks), ``inputs`` (what it reads, by
  content), ``checkpoints``, ``state`` (all that a resumed run needs), ``ema`` (the averaged policy), ``device``
- what it tells: ``rows`` (one JSON object per iteration), ``loggers``, ``progress``, ``alarm`` (a motion that
  collapses), ``report`` (the page at the end)

Not here: what the keys mean (:mod:`s2f_rl.schemas`), optimizers and steps (:mod:`s2f_rl.training`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from s2f_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from s2f_rl.runs.alarm import MotionAlarm, MotionStopped
    from s2f_rl.runs.checkpoints import load_checkpoint, save_checkpoint
    from s2f_rl.runs.device import pick_device
    from s2f_rl.runs.ema import PolicyAverage
    from s2f_rl.runs.folder import RunFolder
    from s2f_rl.runs.loggers import make_logger
    from s2f_rl.runs.main import Recipe, load_recipe, recipe_main
    from s2f_rl.runs.progress import Progress
    from s2f_rl.runs.rows import MetricsRows, read_rows, without_times
    from s2f_rl.runs.shared_folder import shared_run_folder
    from s2f_rl.runs.state import TrainingState, rng_state, seed_everything, set_rng_state

_HOMES = {
    "MetricsRows": "rows",
    "MotionAlarm": "alarm",
    "MotionStopped": "alarm",
    "PolicyAverage": "ema",
    "Progress": "progress",
    "Recipe": "main",
    "RunFolder": "folder",
    "TrainingState": "state",
    "load_checkpoint": "checkpoints",
    "load_recipe": "main",
    "make_logger": "loggers",
    "pick_device": "device",
    "read_rows": "rows",
    "recipe_main": "main",
    "rng_state": "state",
    "save_checkpoint": "checkpoints",
    "seed_everything": "state",
    "set_rng_state": "state",
    "shared_run_folder": "shared_folder",
    "without_times": "rows",
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
    "load_recipe",
    "make_logger",
    "pick_device",
    "read_rows",
    "recipe_main",
    "rng_state",
    "save_checkpoint",
    "seed_everything",
    "set_rng_state",
    "shared_run_folder",
    "without_times",
]
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
