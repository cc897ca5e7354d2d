"""The first half of a reward's training: the audio half learns what speech looks like.

Contrast alone teaches slowly: a batch of N pairs tells log N bits at most, and much of the motion cannot be heard in 5
frames. Predicting the motion itself is a dense target, so the audio half first learns to do that (next to InfoNCE), on
speech that is changed at random; its features then stay as they are while the heads train.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2f_rl import ranks
from s2f_rl.data.mel import CLIP_FRAMES
from s2f_rl.rewards.model.speech_mesh import N_PATCHES, SpeechMeshTransformer, info_nce
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.clips import ClipSampler
from s2f_rl.rewards.training.draw_ahead import Planned
from s2f_rl.rewards.training.encoding import Encoding, clip_bytes
from s2f_rl.rewards.training.losses import encoded_mesh
from s2f_rl.rewards.training.speech_augmentation import SpeechAugmentation


@dataclass
class PairBatch:
    """True pairs: ``mel`` [N, 20, 128], ``clips`` [N, 5, R] mesh frames, ``motion`` [N, 5, K] motion coefficients.

    The coefficients are weighted such that their squared error is that of the vertices, of order one.
    """

    mel: Tensor
    clips: Tensor
    motion: Tensor

    def to(self, device: str | torch.device) -> PairBatch:
        """The batch on another device."""
        return PairBatch(**{name: tensor.to(device) for name, tensor in vars(self).items()})


class MotionReadout(nn.Module):
    """Linear maps from the two features to the motion of the clip; used in training only.

    Args:
        width: E. n_directions: K.
    """

    def __init__(self, width: int, n_directions: int) -> None:
        super().__init__()
        self.audio = nn.Linear(width, CLIP_FRAMES * n_directions)
        self.mesh = nn.Linear(width, CLIP_FRAMES * n_directions)
        self.gain = width**0.5  # unit features have elements of size 1/sqrt(E)

    def forward(self, audio_feature: Tensor, mesh_feature: Tensor) -> tuple[Tensor, Tensor]:
        """Unit features [N, E] -> motion that each tells of, [N, 5*K]."""
        return self.audio(self.gain * audio_feature), self.mesh(self.gain * mesh_feature)


def draw_pairs(
    sampler: ClipSampler, motion: MotionSubspace, augmentation: SpeechAugmentation | None, n_recordings: int,
    n_clips: int,
) -> PairBatch:  # fmt: skip
    """True pairs from ``n_recordings`` random recordings, ``n_clips`` random clips each, on random faces."""
    return plan_pairs(sampler, motion, augmentation, n_recordings, n_clips).made()


def plan_pairs(
    sampler: ClipSampler, motion: MotionSubspace, augmentation: SpeechAugmentation | None, n_recordings: int,
    n_clips: int,
) -> Planned[PairBatch, PairBatch]:  # fmt: skip
    """The same, to be made a recording at a time."""
    share = motion.std / motion.std.square().sum().sqrt()

    def pairs(position: int, generator: torch.Generator) -> PairBatch:
        recording = sampler.bank[position]
        first = torch.randint(recording.n_clips, (n_clips,), generator=generator)
        frames = recording.displacement[first[:, None] + torch.arange(CLIP_FRAMES)]
        heard = recording.mel_clips[first]
        if augmentation is not None:
            heard = augmentation(heard, generator)
        seen = sampler.seen(recording.template + frames, sampler.another_face(generator))
        return PairBatch(heard, seen, motion.coefficients(frames) * share)

    jobs = [partial(pairs, *each) for each in sampler.next_positions(n_recordings)]

    def joined(made: list[PairBatch]) -> PairBatch:
        return PairBatch(**{name: torch.cat([getattr(each, name) for each in made]) for name in vars(made[0])})

    return Planned(jobs, joined)


def listening_losses(
    backbone: SpeechMeshTransformer,
    readout: MotionReadout,
    batch: PairBatch,
    kept_patches: float,
    temperature: float = 0.07,
    encoding: Encoding | None = None,
) -> dict[str, Tensor]:
    """``predict``: squared error of the motion read from either feature, per frame. ``info_nce``: of the pairs,
    of those of all ranks.

    Args:
        kept_patches: share of the mel patches that the audio half looks at, drawn anew for every batch.
        encoding: how both halves are run; None: in float32, as a whole.
    """
    kept, encoding = None, encoding or Encoding()
    if kept_patches < 1:
        kept = torch.randperm(N_PATCHES, device=batch.mel.device)[: max(1, round(kept_patches * N_PATCHES))]

    def encode(mel: Tensor) -> Tensor:
        return F.normalize(backbone.pool_audio(mel, kept), dim=-1)

    n_patches = N_PATCHES if kept is None else len(kept)
    audio = encoding(encode, batch.mel, clip_bytes(backbone, n_patches))
    mesh = encoded_mesh(backbone, batch.clips, encoding)
    target = batch.motion.flatten(1)
    predicted = readout(audio, mesh)
    predict = sum(((each - target).square().sum(1) / CLIP_FRAMES).mean() for each in predicted)
    mesh, audio = ranks.rows_with_gradient(mesh), ranks.rows_with_gradient(audio)
    return {"predict": torch.as_tensor(predict), "info_nce": info_nce(mesh, audio, temperature)}
