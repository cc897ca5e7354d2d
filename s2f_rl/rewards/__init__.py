"""Rewards: frozen models that score motion against speech, and what trains, spoils and calibrates them.

    contract.py    what a reward is; registry.py its kinds by name; parts.py several of them on a corpus
    model/         the perceptual reward: speech-mesh backbone, head, files, hub folder, cached audio halves
    motion/        what a corpus's faces do, and how faces at rest differ
    corruptions/   ways to spoil a motion, graded, a module for each family
    training/      batches of true and spoiled clips, losses, adversaries; the loop is in recipes/reward.py
    judge/         the second model, of another architecture, that nothing is trained against
    articulation/  rewards from phone timings: closure, and how probable the lips' motion is
    calibration/   how far a score can be trusted: AUC, reliability, attack, the report

A folder imports only from those above it. Not here: the transform that rewards rollouts (``s2f_rl.envs``), objectives
(``s2f_rl.losses``), measures against the truth (``s2f_rl.metrics``).
"""

from typing import TYPE_CHECKING

from s2f_rl import moved
from s2f_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from s2f_rl.rewards.articulation.closure import ClosureReward
    from s2f_rl.rewards.contract import Reward
    from s2f_rl.rewards.judge.judge import Judge, load_scorer
    from s2f_rl.rewards.model.audio_cache import AudioFeatureCache
    from s2f_rl.rewards.model.head import HeadScores, ScoreHead
    from s2f_rl.rewards.model.perceptual import PerceptualReward
    from s2f_rl.rewards.model.reward_model import RewardModel
    from s2f_rl.rewards.model.speech_mesh import SpeechMeshTransformer, info_nce
    from s2f_rl.rewards.registry import REWARDS

_HOMES = {
    "AudioFeatureCache": "model.audio_cache",
    "ClosureReward": "articulation.closure",
    "HeadScores": "model.head",
    "Judge": "judge.judge",
    "PerceptualReward": "model.perceptual",
    "REWARDS": "registry",
    "Reward": "contract",
    "RewardModel": "model.reward_model",
    "ScoreHead": "model.head",
    "SpeechMeshTransformer": "model.speech_mesh",
    "info_nce": "model.speech_mesh",
    "load_scorer": "judge.judge",
}
__all__ = [
    "AudioFeatureCache",
    "ClosureReward",
    "HeadScores",
    "Judge",
    "PerceptualReward",
    "REWARDS",
    "Reward",
    "RewardModel",
    "ScoreHead",
    "SpeechMeshTransformer",
    "info_nce",
    "load_scorer",
]
moved.install()
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
