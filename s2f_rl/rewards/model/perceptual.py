"""The speech-mesh reward, or a judge, as a :class:`~s2f_rl.rewards.contract.Reward`."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from s2f_rl import keys
from s2f_rl.data.contract import Corpus, SpokenUtterance
from s2f_rl.data.mel import CLIP_FRAMES
from s2f_rl.device_rows import places, take, upload
from s2f_rl.errors import UserError
from s2f_rl.models.latent_motion import LatentMotion, ThroughLatents
from s2f_rl.rewards.contract import Scored
from s2f_rl.rewards.judge.judge import AnyReward
from s2f_rl.rewards.model.audio_cache import AudioFeatureCache
from s2f_rl.rewards.model.meeting import refuse_other_corpus
from s2f_rl.rewards.model.reward_model import RewardModel

SCORE_NAMES = (keys.LIP_SCORE, keys.REAL_SCORE)
"""Of a reward model with a head."""
FEATURES = (keys.MESH_FEATURE, keys.AUDIO_FEATURE)
_FIRST = CLIP_FRAMES - 1  # clip i belongs to frame i + 4


class PerceptualReward(nn.Module):
    """``lip_score`` and, with a head, ``real_score`` of the clip that ends with the frame.

    What is prepared is the audio half: the unit features [n, E] of an utterance's mel clips.

    Args:
        model: a :class:`~s2f_rl.rewards.RewardModel` or a judge.
        cache_folder: where audio features are kept on disk; None: nowhere.
    """

    differentiable = True

    def __init__(self, model: AnyReward, cache_folder: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        self.model = model
        self.audio = AudioFeatureCache(model, None, cache_folder)
        self._through = ThroughLatents()
        self.score_names = model.score_names
        self.look_back: int | None = model.look_back
        self.mesh_identity, self.fps = model.mesh_identity, model.fps

    @classmethod
    def from_options(
        cls,
        corpus: Corpus,
        device: str | torch.device,
        folder: str,
        cache_folder: str | None = None,
        precision: str = "float32",
    ) -> PerceptualReward:
        """``kind: perceptual``: the reward of ``folder`` (``model_loss.pth`` and ``v4_best.pt``, or one of the hub)."""
        model = RewardModel.load(folder, device=device)
        model.backbone.precision = precision
        refuse_other_corpus(model, corpus, str(folder))
        return cls(model, cache_folder)

    @property
    def n_vertices(self) -> int:
        """V of the meshes it scores."""
        return self.model.n_vertices

    @property
    def feature_width(self) -> int:
        """E."""
        return self.model.feature_width

    def prepare(self, utterance: SpokenUtterance, stride: int = 1) -> Tensor:
        """Features [n, E] of the mel clips, from the cache folder where it has them; on the model's device.

        With a ``stride`` only the clips that it asks for are encoded, and the other rows are 0. (A judge hears clips in
        a row, so that it encodes all.)
        """
        mel = torch.as_tensor(utterance.mel_clips)
        if stride == 1 or not isinstance(self.model, RewardModel):
            return self.audio.encode(mel).to(self.model.device)
        features = torch.zeros(len(mel), self.feature_width)
        features[::stride] = self.audio.encode(mel[::stride])
        return features.to(self.model.device)

    def score_motion(
        self,
        vertices: Tensor,
        prepared: Sequence[Tensor],
        frame_mask: Tensor,
        stride: int = 1,
        first_frame: Tensor | None = None,
    ) -> dict[str, Scored]:
        """See :meth:`Reward.score_motion <s2f_rl.rewards.contract.Reward.score_motion>`."""
        features, n_clips = self._heard(prepared, frame_mask, first_frame)
        # in the middle of an utterance the clips that the stride wants are not those from the first on
        stride = stride if first_frame is None else 1
        found = self.model.score_batch(vertices, features, n_clips, stride=stride)
        return _scored(found)

    def score_latents(
        self,
        motion: LatentMotion,
        prepared: Sequence[Tensor],
        frame_mask: Tensor,
        stride: int = 1,
        first_frame: Tensor | None = None,
    ) -> dict[str, Scored]:
        """The same of a motion given by its latents, which the first map of the model, being linear, goes well with."""
        if not isinstance(self.model, RewardModel):
            return self.score_motion(motion.vertices(), prepared, frame_mask, stride, first_frame)
        features, n_clips = self._heard(prepared, frame_mask, first_frame)
        stride = stride if first_frame is None else 1
        return _scored(self.model.score_embedded(self._embedded(self.model, motion), features, n_clips, stride))

    def score_with_features(
        self,
        motion: Tensor | LatentMotion,
        prepared: Sequence[Tensor],
        frame_mask: Tensor,
        stride: int = 1,
        first_frame: Tensor | None = None,
    ) -> tuple[dict[str, Scored], dict[str, Tensor]]:
        """The scores of vertices, or of a motion given by its latents, and what they were read from.

        That is ``mesh_feature`` and ``audio_feature``, [B, T, E], 0 where there is no score.
        """
        if not isinstance(self.model, RewardModel):
            raise UserError("a judge has no features of clips for a critic; use critic=decoder")
        features, n_clips = self._heard(prepared, frame_mask, first_frame)
        stride = stride if first_frame is None else 1
        if isinstance(motion, LatentMotion):
            frames = self._embedded(self.model, motion)
        else:
            frames = self.model.backbone.embed_frames(self.model.meshes(motion))
        mesh, audio = self.model.backbone.encode_frames(frames, stride=stride), features[:, ::stride]
        n = min(mesh.shape[1], audio.shape[1])
        mesh, audio = mesh[:, :n], audio[:, :n].to(mesh)
        mask = stride * torch.arange(n, device=mesh.device) < n_clips.to(mesh.device).unsqueeze(-1)

        def at_frames(value: Tensor) -> Tensor:
            placed = value.new_zeros(len(value), motion.shape[1], *value.shape[2:])
            placed[:, _FIRST : _FIRST + stride * n : stride] = value
            return placed

        framed = at_frames(mask)
        scores = {name: (at_frames(score), framed) for name, score in self.model.heads(mesh, audio).items()}
        return scores, dict(zip(FEATURES, (at_frames(mesh), at_frames(audio)), strict=True))

    def content_hash(self) -> str:
        """Of the model, see there."""
        return self.model.content_hash()

    def _embedded(self, model: RewardModel, motion: LatentMotion) -> Tensor:
        """Frames [B, T, E] as the model's first map gives them."""
        first = model.backbone.encoder.patch_embed
        return self._through(motion, first.weight, first.bias)

    def _heard(
        self, prepared: Sequence[Tensor], frame_mask: Tensor, first_frame: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Audio features [B, n, E] of the clips from the first frame on, and how many clips each lane has, [B]."""
        n_frames = frame_mask.sum(-1)
        if first_frame is not None:
            longest = max(frame_mask.shape[-1] - _FIRST, 0)
            prepared = [heard[i : i + longest] for heard, i in zip(prepared, first_frame.tolist(), strict=True)]
        lengths, device = [len(heard) for heard in prepared], frame_mask.device
        each = {id(heard): heard for heard in prepared}  # lanes of an utterance share theirs
        order = {name: k for k, name in enumerate(each)}
        place = places([len(heard) for heard in each.values()], [order[id(x)] for x in prepared], max(lengths))
        some = prepared[0]
        features = take(list(each.values()), upload(place, some.device), some.new_zeros(some.shape[1:]))
        counts = upload(torch.tensor(lengths), device)
        return features, torch.minimum(counts, (n_frames - _FIRST).clamp(min=0))


def _scored(found: dict[str, Tensor]) -> dict[str, Scored]:
    mask = found.pop(keys.SCORE_MASK)
    return {name: (score, mask) for name, score in found.items()}
