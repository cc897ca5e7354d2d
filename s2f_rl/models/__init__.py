"""Actors: speech to motion, the policies made of them, and their files. TorchRL is loaded for a policy only.

Floor plan:

- what the rest of the package asks of an actor and of a policy: ``contract``; kinds by name: ``actors``; what actors
  share: ``base_actor``, ``latent_actor``
- FaceFormer: ``faceformer`` (:class:`FaceFormer`) over ``decoder`` (all frames at once, and one by one), which is made
  of ``decoder_parts`` (parameters), a ``decoder_layer`` and ``step_cache`` (what it remembers between frames)
- CodeTalker, which chooses from a codebook: ``codetalker``
- what it hears: ``audio_encoders`` over ``speech_models`` (those of transformers) and ``log_mel``; ``listener`` over
  the phone ``recogniser`` that comes with the package (``recogniser_files``) and its ``mishearing`` in training, which
  also serves ``retiming`` (an aligner's phones, put where they are heard); by name: ``encoder_kinds``; ``audio_cache``
  keeps the features that no training changes; ``hearing``: an encoder that RL trains
- speech of any length: ``windowed_audio`` (features, window by window), ``time_norms`` (what is exact about them),
  ``latent_stream`` (from sound in pieces to latents)
- for reinforcement learning: ``policy`` (:class:`MotionPolicy`) over a core, of which one is there, ``gaussian_core``,
  whose whole rollouts on CUDA are a ``rollout_graph``; what cores share: ``base_core``; ``distributions``, ``critics``;
  ``latent_motion`` stands for vertices that are never made
- files: ``checkpoint`` (opens any actor), ``actor_files`` (our own), ``reference`` (published names and shapes),
  ``state_dicts``; ``meeting`` refuses an actor that does not fit a corpus

Not here: what scores a motion (:mod:`s2f_rl.rewards`), training (``recipes/``, :mod:`s2f_rl.training`), films
(:mod:`s2f_rl.render`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from s2f_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from s2f_rl.models.audio_encoders import (
        AudioEncoder,
        MelAudioEncoder,
        SpeechAudioEncoder,
        Wav2Vec2AudioEncoder,
    )
    from s2f_rl.models.base_actor import BaseActor
    from s2f_rl.models.codetalker.actor import CodeTalker
    from s2f_rl.models.contract import Actor, LinearMotion, PolicyCore
    from s2f_rl.models.encoder_kinds import build_audio_encoder
    from s2f_rl.models.faceformer import FaceFormer
    from s2f_rl.models.latent_actor import LatentActor
    from s2f_rl.models.latent_motion import LatentMotion
    from s2f_rl.models.listener import ListenerAudioEncoder
    from s2f_rl.models.policy import FaceFormerPolicy, MotionPolicy

_HOMES = {
    "Actor": "contract",
    "AudioEncoder": "audio_encoders",
    "BaseActor": "base_actor",
    "CodeTalker": "codetalker.actor",
    "FaceFormer": "faceformer",
    "FaceFormerPolicy": "policy",
    "LatentActor": "latent_actor",
    "LatentMotion": "latent_motion",
    "LinearMotion": "contract",
    "ListenerAudioEncoder": "listener",
    "MelAudioEncoder": "audio_encoders",
    "MotionPolicy": "policy",
    "PolicyCore": "contract",
    "SpeechAudioEncoder": "audio_encoders",
    "Wav2Vec2AudioEncoder": "audio_encoders",
    "build_audio_encoder": "encoder_kinds",
}
__all__ = [
    "Actor",
    "AudioEncoder",
    "BaseActor",
    "CodeTalker",
    "FaceFormer",
    "FaceFormerPolicy",
    "LatentActor",
    "LatentMotion",
    "LinearMotion",
    "ListenerAudioEncoder",
    "MelAudioEncoder",
    "MotionPolicy",
    "PolicyCore",
    "SpeechAudioEncoder",
    "Wav2Vec2AudioEncoder",
    "build_audio_encoder",
]
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
