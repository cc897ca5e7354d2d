"""The environment and the transforms that reward it."""

from s2f_rl.envs.draws import UtteranceDraws
from s2f_rl.envs.frozen_reward import FrozenRewardTransform
from s2f_rl.envs.speech_to_face import SpeechToFaceEnv

__all__ = ["FrozenRewardTransform", "SpeechToFaceEnv", "UtteranceDraws"]
