"""A corpus as an object: what :class:`s2f_rl.data.contract.Corpus` asks for, kept in memory.

python examples/corpus/in_memory.py CORPUS
"""

from __future__ import annotations

import sys
from collections import namedtuple

import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.data.contract import Corpus, SpokenUtterance
from s2f_rl.envs import SpeechToFaceEnv
from s2f_rl.losses import SupervisedLoss
from s2f_rl.models import FaceFormer, FaceFormerPolicy, MelAudioEncoder

FIELDS = "name subject waveform waveform_raw sample_rate mel_clips template vertices style phones"
SHARED = "subjects n_vertices clock fps audio_features_per_frame regions mesh_identity faces"
Kept = namedtuple("Kept", FIELDS)  # units and shapes: s2f_rl.data.contract.SpokenUtterance


class MemoryCorpus:
    """Utterances of another corpus, read once. From data of your own, fill the same attributes with what you have."""

    def __init__(self, source: Corpus) -> None:
        self.utterances = [Kept(*(getattr(source[i], field) for field in FIELDS.split())) for i in range(len(source))]
        self.names, self.template = [u.name for u in self.utterances], source.template
        self.n_frames = [source.n_frames(i) for i in range(len(source))].__getitem__
        for name in SHARED.split():
            setattr(self, name, getattr(source, name))

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, key: int) -> SpokenUtterance:
        return self.utterances[key]

    def has_vertices(self, i: int) -> bool:
        return self.utterances[i].vertices is not None


def main(root: str) -> float:
    """One rollout and its distance from the recording."""
    torch.manual_seed(0)
    corpus = MemoryCorpus(FaceCorpus(root, split="train"))
    actor = FaceFormer(MelAudioEncoder(width=16), corpus.n_vertices, feature_dim=16, n_subjects=len(corpus.subjects))
    policy = FaceFormerPolicy(actor, exploration="vertex", noise_mm=0.1)
    env = SpeechToFaceEnv(corpus, actor.audio_encoder, batch_size=2, max_frames=20)
    batch = env.rollout(env.horizon, policy, break_when_any_done=False)
    position = SupervisedLoss(policy.actor_module, corpus)(batch)["loss_position"].item()
    print(f"{int(batch['frame_mask'].sum())} frames animated, {position:.3f} mm^2 from the recording")
    return position


if __name__ == "__main__":
    main(sys.argv[1])
