"""Speech-lip intensity correlation: do the lips move more when the speech is louder?"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from s2f_rl.errors import UserError
from s2f_rl.metrics._meshes import ArrayLike, Indices, as_frames, as_indices, as_tensor, select
from s2f_rl.metrics.amplitude import STILL_M


def speech_intensity(waveform: ArrayLike) -> Tensor:
    """Root mean square of a recording [.., N] as it was recorded (not normalised): float64 [..]; nan for N = 0."""
    return as_tensor(waveform, "waveform").double().square().mean(-1).sqrt()


def speech_lip_correlation(
    speech: Sequence[float] | ArrayLike, lips: Sequence[float] | ArrayLike, identities: Sequence[Hashable]
) -> float:
    """SLCC: Pearson correlation of speech and lip intensity over a set of sequences.

    Chae-Yeon et al., CVPR 2025, eq. 7: both intensities are z-normalised within each identity (sample standard
    deviation, as in the published code; identities of one sequence, or without any spread, are left out), then
    correlated over all sequences. To be compared with the value of the ground truth. The paper's own data (MEAD)
    has sentences at three levels of intensity; where all are about equally loud the correlation says little.

    Args:
        speech: [K] :func:`speech_intensity` of each sequence's audio.
        lips: [K] :func:`~s2f_rl.metrics.lip_intensity` of each sequence.
        identities: [K] who speaks.

    Returns:
        in [-1, 1]; nan with fewer than three sequences left. Pairs with a value that is not finite are left out.

    Raises:
        UserError: lengths that differ.
    """
    s, m = (np.asarray(values, np.float64).reshape(-1) for values in (speech, lips))
    if not len(s) == len(m) == len(identities):
        raise UserError(f"speech, lips and identities have {len(s)}, {len(m)} and {len(identities)} values")
    kept = []
    for rows in _identities(s, m, identities):
        pair = np.stack([s[rows], m[rows]])
        kept.append((pair - pair.mean(1, keepdims=True)) / pair.std(1, ddof=1)[:, None])
    scores = np.concatenate(kept, 1) if kept else np.zeros((2, 0))
    return float(np.corrcoef(scores)[0, 1]) if scores.shape[1] > 2 else float("nan")


def correlated_sequences(
    speech: Sequence[float] | ArrayLike, lips: Sequence[float] | ArrayLike, identities: Sequence[Hashable]
) -> list[int]:
    """Which of the sequences enter :func:`speech_lip_correlation`: others are not finite, alone or too few."""
    s, m = (np.asarray(values, np.float64).reshape(-1) for values in (speech, lips))
    kept = sorted(k for rows in _identities(s, m, identities) for k in rows)
    return kept if len(kept) > 2 else []


def _identities(speech: np.ndarray, lips: np.ndarray, identities: Sequence[Hashable]) -> list[list[int]]:
    """Finite pairs by identity, where both intensities vary."""
    groups: dict[Hashable, list[int]] = {}
    for k, who in enumerate(identities):
        if np.isfinite(speech[k]) and np.isfinite(lips[k]):
            groups.setdefault(who, []).append(k)
    varied = []
    for rows in groups.values():
        pair = np.stack([speech[rows], lips[rows]])
        if len(rows) > 1 and (pair.std(1, ddof=1) > 1e-12 * np.abs(pair).max(1)).all():
            varied.append(rows)
    return varied


def speech_lip_correlation_within(
    vertices: ArrayLike, waveform: ArrayLike, lip: Indices, *, fps: float, sample_rate: float
) -> Tensor:
    """Correlation of loudness and lip speed along one utterance: ours, the counterpart of SLCC within a sequence.

    Pearson correlation, over the frame steps t to t+1, of the root mean square of the audio between the two instants
    and the mean displacement length of the lip vertices.

    Args:
        vertices: [.., T, V*3] or [.., T, V, 3], metres.
        waveform: [N], of the utterance; the steps beyond its end are left out.
        lip: indices of the lip vertices, or a boolean mask [V].
        fps, sample_rate: of the motion and of the audio, Hz.

    Returns:
        float64 [..] in [-1, 1]; nan for fewer than three steps, or lips or sound that do not change.

    Raises:
        UserError: shapes or rates that do not fit.
    """
    frames, sound = as_frames(vertices, "vertices"), as_tensor(waveform, "waveform").double()
    if sound.ndim != 1 or not fps > 0 or not sample_rate > 0:
        raise UserError(
            f"waveform has shape {list(sound.shape)}, fps {fps}, sample_rate {sample_rate}: expected [N], > 0"
        )
    points = select(frames, as_indices(lip, frames, "lip"))
    hop = sample_rate / fps
    n = min(frames.shape[-3] - 1, int(len(sound) / hop))
    if n < 3:
        return points.new_full(points.shape[:-3], torch.nan)
    edges = [round(t * hop) for t in range(n + 1)]
    loudness = torch.stack([sound[a:b].square().mean().sqrt() for a, b in zip(edges[:-1], edges[1:], strict=True)])
    speed = points[..., : n + 1, :, :].diff(dim=-3).norm(dim=-1).mean(-1)
    a, b = speed - speed.mean(-1, keepdim=True), (loudness - loudness.mean()).to(speed.device)
    norm = (a.square().sum(-1) * b.square().sum()).sqrt()
    moves = speed.amax(-1) > STILL_M
    return torch.where(moves & (norm > 1e-15), (a * b).sum(-1) / norm, torch.nan)
