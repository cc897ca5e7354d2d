"""What teaches a reward: recordings, spoiled clips, losses. The loop is in ``recipes/reward.py``.

    recordings.py         motions and mel clips of a corpus (``MotionBank``)
    spoiled_stretches.py  recordings in turn, spoiled weakly and strongly; clips.py batches of 5-frame clips
    draw_ahead.py         the next batch, made in threads while the loop uses the last
    encoding.py           how the backbone is run while it trains; memory.py how much may be kept
    losses.py             contrast, ranking and labels; listening.py the first half, on speech alone
    adversaries.py        negatives found by gradient ascent; policy_samples.py motion that a policy made
    mse_regressor.py      the motion that vertex MSE leads to
    projection.py         the well-conditioned view of a mesh; speech_augmentation.py other microphones

The judge's batches and losses are in ``rewards/judge``; the corruptions themselves in ``rewards/corruptions``.
"""

from typing import TYPE_CHECKING

from s2f_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from s2f_rl.rewards.training.clips import ClipBatch, ClipSampler
    from s2f_rl.rewards.training.losses import ranking_loss, reward_losses
    from s2f_rl.rewards.training.mse_regressor import SpeechRegressor
    from s2f_rl.rewards.training.policy_samples import PolicySamples
    from s2f_rl.rewards.training.projection import MeshProjection
    from s2f_rl.rewards.training.recordings import MotionBank, Recording

_HOMES = {
    "ClipBatch": "clips",
    "ClipSampler": "clips",
    "MeshProjection": "projection",
    "MotionBank": "recordings",
    "PolicySamples": "policy_samples",
    "Recording": "recordings",
    "SpeechRegressor": "mse_regressor",
    "ranking_loss": "losses",
    "reward_losses": "losses",
}
__all__ = [
    "ClipBatch",
    "ClipSampler",
    "MeshProjection",
    "MotionBank",
    "PolicySamples",
    "Recording",
    "SpeechRegressor",
    "ranking_loss",
    "reward_losses",
]
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
