"""Figures of a collected batch that every RL recipe logs."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from tensordict import TensorDictBase
from torch import Tensor

from s2f_rl import keys, ranks
from s2f_rl.data.contract import Corpus
from s2f_rl.metrics import motion_amplitude
from s2f_rl.models.latent_motion import LatentMotion, coordinates
from s2f_rl.models.policy import MotionPolicy


@torch.no_grad()
def batch_statistics(
    batch: TensorDictBase, policy: MotionPolicy, lips: Tensor, scores: Sequence[str], group_size: int = 1
) -> dict[str, float]:
    """Mean scores, motion and exploration of a batch [B, T] with rewards; padding never enters.

    ``reward`` and each of ``scores``: means over the frames that have it. ``amplitude_mm``: RMS distance of the lip
    vertices from their mean over the utterance. ``spread_mm``: the same of the samples of a group from their mean,
    unbiased; of groups of ``group_size`` lanes in a row, which share speech and style; none without groups.
    ``entropy``: of the policy's distribution, nats per frame, where it has one in closed form. ``batch_frames``: valid
    frames. Beside them what the policy tells of its exploration (:meth:`PolicyCore.batch_figures`): ``noise_mm`` of a
    Gaussian.
    """
    mask = batch.get(keys.FRAME_MASK)
    out = {"batch_frames": float(mask.sum())}
    for key in (keys.REWARD, *scores):
        value = batch.get(("next", key), None)
        if value is not None:
            scored = keys.mask_of(batch.get("next"), key)
            out[key] = float(value[scored].mean()) if bool(scored.any()) else float("nan")
    n_lips = len(lips)
    weight = mask.float()
    motion = batch.get(keys.ACTION, None)
    if motion is not None:
        motion = motion[..., coordinates(lips).to(mask.device)]
    else:
        linear = policy.core.linear_decode
        assert linear is not None  # else there would be an action
        motion = LatentMotion(batch.get(keys.LATENT), linear).columns(lips)
    mean = (motion * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1)
    squared = ((motion - mean).square() * weight).sum() / (weight.sum() * n_lips).clamp_min(1)
    out["amplitude_mm"] = 1e3 * float(squared.sqrt())
    if group_size > 1:
        of_groups, shown = motion.unflatten(0, (-1, group_size)), weight.unflatten(0, (-1, group_size))[:, 0]
        squared = (of_groups.var(1) * shown).sum() / (shown.sum() * n_lips).clamp_min(1)
        out["spread_mm"] = 1e3 * float(squared.sqrt())
    with contextlib.suppress(NotImplementedError):  # torch's answer for a distribution that has none
        out["entropy"] = float(policy.core.distribution(batch).entropy().sum() / weight.sum().clamp_min(1))
    return out | policy.core.batch_figures(batch, lips)


def over_ranks(row: Mapping[str, float]) -> dict[str, float]:
    """The figures of :func:`batch_statistics` over all ranks: ``batch_frames`` summed, means weighted by it.

    A figure that a rank has not (no frame with a score) is that of the others; nan where none has it.
    """
    if ranks.count() == 1:
        return dict(row)
    found = ranks.rows_of_all(torch.tensor([list(row.values())], dtype=torch.float64))
    frames = found[:, list(row).index("batch_frames")]
    means = {}
    for name, column in zip(row, found.T, strict=True):
        known = ~column.isnan()
        weights = torch.where(known, frames, 0.0)
        means[name] = float((weights * column.nan_to_num()).sum() / weights.sum()) if bool(known.any()) else math.nan
    return means | {"batch_frames": float(frames.sum())}


def mean_of(outputs: Sequence[TensorDictBase]) -> dict[str, float]:
    """Mean of every scalar over the loss outputs of an iteration."""
    means = {key: torch.stack([out.get(key).float().mean() for out in outputs]).mean() for key in outputs[0].keys()}
    return {key: float(value) for key, value in means.items()}


def mean_amplitude_mm(corpus: Corpus, lips: Tensor, n_utterances: int = 16) -> float | None:
    """RMS lip motion of the ground truth of the first utterances that have one, millimetres; None without any."""
    recorded = (vertices for i in range(len(corpus)) if (vertices := corpus[i].vertices) is not None)
    moving = (vertices for vertices in recorded if len(vertices) > 1)
    squares = [float(motion_amplitude(each, lips.cpu())) ** 2 for each in itertools.islice(moving, n_utterances)]
    return 1e3 * math.sqrt(sum(squares) / len(squares)) if squares else None


class AmplitudeReference:
    """Lip motion over that of the ground truth, which is measured once; without any, over that of the first batch.

    Args:
        corpus: the training corpus. lips: indices of the lip vertices.
    """

    def __init__(self, corpus: Corpus, lips: Tensor) -> None:
        self.corpus, self.lips = corpus, lips
        self.reference_mm: float | None = None

    def ratio(self, amplitude_mm: float) -> float:
        """``amplitude_mm`` over the reference; nan while there is no finite one."""
        if self.reference_mm is None:
            reference = mean_amplitude_mm(self.corpus, self.lips) or amplitude_mm
            if not math.isfinite(reference):  # a batch that is not finite is no reference
                return math.nan
            self.reference_mm = reference
        return amplitude_mm / max(self.reference_mm, 1e-9)

    def state_dict(self) -> dict[str, float | None]:
        """The reference, None before the first batch."""
        return {"reference_mm": self.reference_mm}

    def load_state_dict(self, state: Mapping[str, float | None]) -> None:
        """Restore :meth:`state_dict`."""
        self.reference_mm = state["reference_mm"]
