"""The perceptual reward: a speech-mesh transformer that scores clips of 5 frames, and the head that reads its features.

    reward_model.py      the frozen reward: loading, features and scores of clips
    sequence_scorer.py   scores of sequences and batches, for a reward and a judge alike
    speech_mesh.py       the backbone; head.py the lip, real and value scores
    checkpoint_files.py  the two published files; hub_folder.py the form of the Hugging Face hub
    checked_arrays.py    arrays from outside; meeting.py the mesh and rate that a model was made for
    perceptual.py        the model as a ``Reward``
    audio_cache.py       the audio half, once per utterance

What trains it is in ``rewards/training``; the judge beside it in ``rewards/judge``.
"""

from typing import TYPE_CHECKING

from s2f_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from s2f_rl.rewards.model.audio_cache import AudioFeatureCache
    from s2f_rl.rewards.model.head import HeadScores, ScoreHead
    from s2f_rl.rewards.model.reward_model import RewardModel
    from s2f_rl.rewards.model.speech_mesh import SpeechMeshTransformer, info_nce

_HOMES = {
    "AudioFeatureCache": "audio_cache",
    "HeadScores": "head",
    "RewardModel": "reward_model",
    "ScoreHead": "head",
    "SpeechMeshTransformer": "speech_mesh",
    "info_nce": "speech_mesh",
}
__all__ = [
    "AudioFeatureCache",
    "HeadScores",
    "RewardModel",
    "ScoreHead",
    "SpeechMeshTransformer",
    "info_nce",
]
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
