"""A second reward model of another architecture: it judges policies, and nothing is trained against it.

    judge.py      the model, its file, and ``load_scorer``, which reads a reward or a judge
    layers.py     convolutions over time; stretches.py the batches it learns from; losses.py its losses
    register.py   the list of judges that may score a benchmark

Its loop is ``recipes/judge.py``.
"""

from typing import TYPE_CHECKING

from s2f_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from s2f_rl.rewards.judge.judge import AnyReward, Judge, lag_profile, load_scorer
    from s2f_rl.rewards.judge.losses import judge_losses
    from s2f_rl.rewards.judge.register import register_judge, require_register
    from s2f_rl.rewards.judge.stretches import StretchBatch, StretchSampler

_HOMES = {
    "AnyReward": "judge",
    "Judge": "judge",
    "StretchBatch": "stretches",
    "StretchSampler": "stretches",
    "judge_losses": "losses",
    "lag_profile": "judge",
    "load_scorer": "judge",
    "register_judge": "register",
    "require_register": "register",
}
__all__ = [
    "AnyReward",
    "Judge",
    "StretchBatch",
    "StretchSampler",
    "judge_losses",
    "lag_profile",
    "load_scorer",
    "register_judge",
    "require_register",
]
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
