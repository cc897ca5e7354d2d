"""Rewards from what the lips do while a phone is said; they read phone timings.

    closure.py         lips together on /m b p/, and nowhere else; no model
    phones.py          classes of phones, features at video rate, mistakes of transcripts
    density.py         lip coefficients given phones in context and style; density_files.py its file
    lessons.py         what a density is trained on; the loop is in recipes/articulation.py
    likelihood.py      the density as a reward

The measures that they come from are in ``s2f_rl.metrics``.
"""

from typing import TYPE_CHECKING

from s2f_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from s2f_rl.rewards.articulation.closure import ClosureReward
    from s2f_rl.rewards.articulation.density import LipDensity
    from s2f_rl.rewards.articulation.density_files import TrainedDensity
    from s2f_rl.rewards.articulation.likelihood import ArticulationReward

_HOMES = {
    "ArticulationReward": "likelihood",
    "ClosureReward": "closure",
    "LipDensity": "density",
    "TrainedDensity": "density_files",
}
__all__ = ["ArticulationReward", "ClosureReward", "LipDensity", "TrainedDensity"]
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
