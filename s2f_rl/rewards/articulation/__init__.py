"""Rewards from what the lips do while a phone is said; they read phone timings and no model.

    closure.py   lips together on /m b p/, and nowhere else

The measures that they come from are in ``s2f_rl.metrics``.
"""

from typing import TYPE_CHECKING

from s2f_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from s2f_rl.rewards.articulation.closure import ClosureReward

_HOMES = {"ClosureReward": "closure"}
__all__ = ["ClosureReward"]
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
