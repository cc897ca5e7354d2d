"""Audio encoders, FaceFormer, the stochastic policy, critics and checkpoints."""

from s2f_rl.models.audio_encoders import AudioEncoder, MelAudioEncoder, Wav2Vec2AudioEncoder, build_audio_encoder
from s2f_rl.models.faceformer import FaceFormer
from s2f_rl.models.policy import FaceFormerPolicy

__all__ = [
    "AudioEncoder",
    "FaceFormer",
    "FaceFormerPolicy",
    "MelAudioEncoder",
    "Wav2Vec2AudioEncoder",
    "build_audio_encoder",
]
