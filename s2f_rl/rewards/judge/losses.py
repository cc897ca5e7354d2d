"""What trains a judge on batches of stretches: its losses. The loop is in recipes/judge.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from s2f_rl.rewards.judge.judge import Judge, lag_profile
from s2f_rl.rewards.judge.stretches import StretchBatch
from s2f_rl.rewards.training.losses import ranking_loss

_TOO_NEAR_FRAMES = 1


def judge_losses(judge: Judge, batch: StretchBatch, temperature: float = 0.1) -> dict[str, Tensor]:
    """The terms of the judge's objective on one batch.

    Returns:
        ``sync``: :func:`sync_loss` of the true stretches' local features. ``rank``: less corrupted scores above more
        corrupted in the same window (logistic, on log-odds), over the heads that ought to notice and weighted by
        visibility. ``classify``: binary cross-entropy of true against strongly corrupted windows, both classes of equal
        weight per head. ``pooled``: the mean log-odds of every true stretch above those of every spoiled one, of its
        own and of other speakers, since scores of different utterances are compared in the end.
    """
    n_true = len(batch.mel)
    mesh_local, mesh_window = judge.mesh(batch.frames)
    audio_local, audio_window = judge.audio(batch.mel)
    profile = lag_profile(mesh_local, audio_local[batch.stretch])
    odds = judge.head(mesh_window, audio_window[batch.stretch], profile)
    weight = batch.visible[..., None] * batch.heads[:, None]
    right = F.softplus(-odds[:n_true]).mean((0, 1))
    wrong_weight = batch.spoiled_visible[..., None] * batch.spoiled_heads[:, None]
    wrong_total = wrong_weight.sum((0, 1)).clamp_min(1e-6)
    wrong = (F.softplus(odds[batch.spoiled]) * wrong_weight).sum((0, 1)) / wrong_total
    mean_true, mean_wrong = odds[:n_true].mean(1)[:, None], odds[batch.spoiled].mean(1)[None]
    return {
        "sync": sync_loss(mesh_local[:n_true], audio_local, temperature),
        "rank": ranking_loss(odds[batch.better], odds[batch.worse], weight),
        "classify": 0.5 * (right + wrong).mean(),
        "pooled": ranking_loss(
            mean_true.expand(-1, mean_wrong.shape[1], -1),
            mean_wrong.expand(n_true, -1, -1),
            wrong_weight.mean(1).expand(n_true, -1, -1),
        ),
    }


def sync_loss(mesh: Tensor, audio: Tensor, temperature: float = 0.1) -> Tensor:
    """Symmetric InfoNCE of motion and speech at the same time against other times of the same utterance.

    The negatives share speaker, face and room, so nothing but timing tells them apart. The frame next to the right
    one is neither.

    Args:
        mesh, audio: [S, P, W] local features of the same frames.
    """
    agreement = F.normalize(mesh, dim=-1) @ F.normalize(audio, dim=-1).transpose(1, 2) / temperature
    at = torch.arange(mesh.shape[1], device=mesh.device)
    distance = (at[:, None] - at).abs()
    agreement = agreement.masked_fill((distance > 0) & (distance <= _TOO_NEAR_FRAMES), -torch.inf)
    forward = agreement.log_softmax(-1).diagonal(dim1=1, dim2=2)
    backward = agreement.log_softmax(-2).diagonal(dim1=1, dim2=2)
    return -0.5 * (forward + backward).mean()
