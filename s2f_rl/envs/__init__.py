"""The environment of whole utterances, and the transform that rewards it.

Floor plan: ``speech_to_face`` (:class:`SpeechToFaceEnv`: B lanes, one step a frame), ``draws`` (which utterance and
style each lane gets), ``uploads`` (features on its device), ``frozen_reward`` (:class:`FrozenRewardTransform`, in the
environment or on whole batches).

Not here: the reward model (:mod:`s2f_rl.rewards`), collection (:mod:`s2f_rl.collectors`), advantages
(:mod:`s2f_rl.losses`).
"""

from s2f_rl.envs.draws import UtteranceDraws
from s2f_rl.envs.frozen_reward import FrozenRewardTransform
from s2f_rl.envs.speech_to_face import SpeechToFaceEnv

__all__ = ["FrozenRewardTransform", "SpeechToFaceEnv", "UtteranceDraws"]
