"""What trains a reward on batches of clips: losses, the steps before and after. The loop is in recipes/reward.py."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from s2f_rl.data.lru import ByteCache
from s2f_rl.data.mel import CLIP_FRAMES
from s2f_rl.rewards.model.head import ScoreHead
from s2f_rl.rewards.model.reward_model import RewardModel
from s2f_rl.rewards.model.speech_mesh import SpeechMeshTransformer, info_nce
from s2f_rl.rewards.training.clips import ClipBatch
from s2f_rl.rewards.training.encoding import Encoding, clip_bytes
from s2f_rl.rewards.training.projection import MeshProjection
from s2f_rl.rewards.training.recordings import MotionBank


@torch.no_grad()
def centre_features(backbone: SpeechMeshTransformer, batch: ClipBatch) -> None:
    """Start training with features that differ: move the last norms' biases so that a batch's mean feature is zero.

    Fresh transformers answer almost the same to every input; after normalisation all clips sit in one spot of the
    sphere and InfoNCE needs a hundred steps to pull them apart.
    """
    backbone.encoder.norm.bias.sub_(backbone.pool_mesh(backbone.embed_frames(batch.clips[: len(batch.mel)])).mean(0))
    backbone.encoder_audio.norm.bias.sub_(backbone.pool_audio(batch.mel).mean(0))


def finished_reward(backbone: SpeechMeshTransformer, head: ScoreHead, projection: MeshProjection | None) -> RewardModel:
    """A frozen copy for use on raw vertices: the projection folded into the first layer."""
    folded = copy.deepcopy(backbone) if projection is None else projection.fold(backbone)
    return RewardModel(folded, copy.deepcopy(head))


class AudioFeatures:
    """Audio features of a bank's clips by an audio half that no longer trains, each recording encoded once.

    At full size the audio half is nearly all of a training step's cost. Beyond ``limit_bytes`` the features of the
    recordings that were not used for longest are dropped, and made again when they are.
    """

    def __init__(
        self,
        backbone: SpeechMeshTransformer,
        bank: MotionBank,
        limit_bytes: int = 2**30,
        encoding: Encoding | None = None,
    ) -> None:
        self.backbone, self.bank, self.encoding = backbone, bank, encoding or Encoding()
        self._known: ByteCache[Tensor] = ByteCache(limit_bytes)

    def __call__(self, batch: ClipBatch) -> Tensor:
        """[N, E] for the true pairs of a batch."""
        known = {position: self._of(position, batch.mel.device) for position in set(batch.recording.tolist())}
        pairs = zip(batch.recording.tolist(), batch.clip.tolist(), strict=True)
        return torch.stack([known[position][clip] for position, clip in pairs])

    def _of(self, position: int, device: torch.device) -> Tensor:
        """[n, E] of a recording."""

        def encoded() -> Tensor:
            return self.encoding(self.backbone.encode_audio, self.bank[position].mel_clips.to(device), 1)

        with torch.no_grad():
            return self._known.get(position, encoded)


def reward_losses(
    backbone: SpeechMeshTransformer,
    head: ScoreHead,
    batch: ClipBatch,
    audio_features: Tensor | None = None,
    temperature: float = 0.07,
    encoding: Encoding | None = None,
) -> dict[str, Tensor]:
    """The terms of the reward's objective on one batch.

    Args:
        backbone, head: what trains.
        batch: from :class:`ClipSampler`.
        audio_features: [N, E] of the true pairs where they are known (:class:`AudioFeatures`); else computed, with
            gradient.
        temperature: of InfoNCE.
        encoding: how the mesh half is run; None: in float32, as a whole.

    Of several ranks every one returns the terms of the batch of all (:meth:`ClipBatch.of_all_ranks`).

    Returns:
        ``info_nce``: symmetric InfoNCE of the true pairs. ``pooled``: the mean log-odds of the true clips of a stretch
        above those of every spoiled one, of its own and of other speakers, since scores of different utterances are
        compared in the end. ``rank``: less corrupted scores above more corrupted
        (logistic, on log-odds), over the heads that ought to notice and weighted by visibility. ``classify``: binary
        cross-entropy of true against strongly corrupted clips, both classes of equal weight per head. ``value``:
        squared error of the critic's branch against lip + real (reaches only that branch).
    """
    mesh = encoded_mesh(backbone, batch.clips, encoding)
    audio = audio_features
    if audio is None:
        audio = backbone.encode_audio(batch.mel, max_clips=len(batch.mel))
    batch, mesh, audio = batch.of_all_ranks(mesh, audio)
    heard = audio[batch.audio]
    n_true = len(batch.mel)
    log_odds = torch.stack(head.log_odds(heard, mesh), dim=-1)
    weight = batch.visible[:, None] * batch.heads
    rank = ranking_loss(log_odds[batch.better], log_odds[batch.worse], weight)
    right = F.softplus(-log_odds[:n_true]).mean(0)
    n_windows = batch.n_windows
    mean_true = log_odds[:n_true].unflatten(0, (-1, n_windows)).mean(1)[:, None]
    mean_wrong = log_odds[batch.spoiled].unflatten(0, (-1, n_windows)).mean(1)[None]
    wrong_weight = batch.spoiled_visible[:, None] * batch.spoiled_heads
    wrong = (F.softplus(log_odds[batch.spoiled]) * wrong_weight).sum(0) / wrong_weight.sum(0).clamp_min(1e-6)
    lip, real = head.scores(heard, mesh)
    value = F.mse_loss(head.estimate_value(heard, mesh), (lip + real).detach())
    return {
        "info_nce": info_nce(mesh[:n_true], audio, temperature),
        "rank": rank,
        "classify": 0.5 * (right + wrong).mean(),
        "pooled": ranking_loss(mean_true, mean_wrong, wrong_weight.unflatten(0, (-1, n_windows)).mean(1)[None]),
        "value": value,
    }


def encoded_mesh(backbone: SpeechMeshTransformer, clips: Tensor, encoding: Encoding | None) -> Tensor:
    """Mesh frames [M, 5, R] -> unit features [M, E]. In metres bfloat16 sees no lips, so the first layer is float32."""
    embedded = backbone.embed_frames(clips)
    return (encoding or Encoding())(backbone.encode_embedded, embedded, clip_bytes(backbone, CLIP_FRAMES))


def ranking_loss(better: Tensor, worse: Tensor, weight: Tensor) -> Tensor:
    """Mean of -log sigmoid(better - worse) over log-odds, weighted; all three broadcast.

    The Bradley-Terry likelihood of "better beats worse", with which reward models are trained from preferences
    (Christiano et al., 2017).
    """
    loss = F.softplus(worse - better)
    weight = weight.expand_as(loss)
    return (weight * loss).sum() / weight.sum().clamp_min(1e-6)
