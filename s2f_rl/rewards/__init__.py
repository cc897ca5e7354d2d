"""The perceptual reward: speech-mesh features, lip and realism scores, and what trains them."""

from s2f_rl.rewards.cache import AudioFeatureCache
from s2f_rl.rewards.head import HeadScores, ScoreHead
from s2f_rl.rewards.model import RewardModel
from s2f_rl.rewards.speech_mesh import SpeechMeshTransformer, info_nce

__all__ = ["AudioFeatureCache", "HeadScores", "RewardModel", "ScoreHead", "SpeechMeshTransformer", "info_nce"]
