"""A bound on the lip vertex error of a policy during training, relative to the policy it started from."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

from s2f_rl import keys, ranks
from s2f_rl.data.lru import ByteCache
from s2f_rl.errors import UserError
from s2f_rl.losses import LagrangeMultiplier, SupervisedLoss
from s2f_rl.metrics.error import lip_vertex_error_per_frame
from s2f_rl.models.contract import PolicyCore
from s2f_rl.models.latent_motion import LatentMotion, coordinates

_LIPS_BYTES = 64 * 2**20  # of recordings of the lips


class LipErrorConstraint:
    """On-policy LVE of a batch over the start's LVE on the same utterances, held below a limit by a multiplier.

    The batch's LVE is that of the policy's mean motion given the sampled history. The start's is measured once per
    utterance and style on its deterministic motion, so that the ratio is paired: which utterances a batch happens to
    hold hardly moves it.

    Called for the multiplier, so it can weigh the supervised term in :class:`~s2f_rl.losses.WeightedLoss`.

    Args:
        core: of the policy, as the run starts; a frozen copy of it measures the start.
        truth: the supervised term, which knows the ground truth of a batch.
        lips: indices of the lip vertices.
        multiplier: its limit is the allowed ratio.
        weight: of the supervised term; the multiplier multiplies it.
        speech: utterance -> [T, A, D], what the start hears where the encoder trains; None: the batch's ``audio``.

    Raises:
        UserError: the core has no rollout of its mean motion, by which the start is measured.
    """

    def __init__(
        self,
        core: PolicyCore,
        truth: SupervisedLoss,
        lips: Tensor,
        multiplier: LagrangeMultiplier,
        weight: float = 1.0,
        speech: Callable[[int], Tensor] | None = None,
    ) -> None:
        if not core.reparameterised:
            raise UserError(f"constraint=lve: {type(core).__name__} has no rollout of its mean; use constraint=none")
        start: Any = copy.deepcopy(core)
        self.core, self.start = core, start.requires_grad_(False)
        self.truth, self.lips, self.multiplier, self.weight = truth, lips, multiplier, float(weight)
        self.speech = speech
        self.start_lve: dict[str, float] = {}
        self._recordings: ByteCache[Tensor] = ByteCache(_LIPS_BYTES)

    def __call__(self) -> float:
        return self.weight * self.multiplier()

    @torch.no_grad()
    def lve_ratio(self, batch: TensorDictBase) -> float:
        """Summed LVE of the lanes with ground truth over that of the start, before an update; nan without any.

        Args:
            batch: [B, T] rows as collected by the policy as it is now.
        """
        decoded = self.core.linear_decode is None
        means = self._lips_of(self.core, self.core.mean_motion(batch, collected=True, decoded=decoded))
        n_frames = batch.get(keys.FRAME_MASK).sum((1, 2)).tolist()
        own = start = 0.0
        for lane, utterance in enumerate(self.truth.recorded(batch)):
            if utterance is None:
                continue
            truth = self._recorded_lips(utterance)[: n_frames[lane]].to(means.device)
            own += self._lve(means[lane, : len(truth)], truth)
            start += self._start(batch[lane, : len(truth)], truth)
        own, start = ranks.total(torch.tensor([own, start], dtype=torch.float64)).tolist()
        return own / start if start else math.nan

    def _lips_of(self, core: PolicyCore, motion: Tensor) -> Tensor:
        """Displacements [B, T, 3n] of the lips alone, from latents or from the displacements of all vertices."""
        if core.linear_decode is not None:
            return LatentMotion(motion, core.linear_decode).columns(self.lips)
        return motion[..., coordinates(self.lips).to(motion.device)]

    def _recorded_lips(self, utterance: int) -> Tensor:
        columns = coordinates(self.lips.cpu())
        return self._recordings.get(utterance, lambda: self.truth.recording(utterance)[:, columns].contiguous())

    def update(self, batch: TensorDictBase) -> dict[str, float]:
        """Measure a batch and take the dual step; returns what to log."""
        ratio = self.lve_ratio(batch)
        logged = {} if not math.isfinite(ratio) else {"constraint_lve_ratio": ratio}
        return {**logged, "constraint_multiplier": self.multiplier.update(ratio)}

    def _lve(self, lips: Tensor, truth: Tensor) -> float:
        """Of displacements [T, 3n] of the lips."""
        every = torch.arange(len(self.lips))
        return float(
            lip_vertex_error_per_frame(lips.unflatten(-1, (-1, 3)), truth.unflatten(-1, (-1, 3)), every).mean()
        )

    def _start(self, lane: TensorDictBase, truth: Tensor) -> float:
        """LVE of the start on one utterance [T], recursed alone so that it does not depend on the batch."""
        style = lane.get(keys.STYLE)[0]
        utterance = int(lane.get(keys.UTTERANCE)[0, 0])
        key = f"{utterance}:{','.join(f'{w:g}' for w in style.tolist())}"
        if key not in self.start_lve:
            decoded = self.start.linear_decode is None
            audio = lane.get(keys.AUDIO) if self.speech is None else self.speech(utterance)[: len(truth)]
            motion = self.start.unrolled(audio[None], style[None], decoded=decoded)
            lve = self._lve(self._lips_of(self.start, motion)[0], truth)
            if not math.isfinite(lve):
                return math.nan
            self.start_lve[key] = lve
        return self.start_lve[key]

    def state_dict(self) -> dict[str, Any]:
        """The multiplier and the start's errors so far."""
        return {"multiplier": self.multiplier.state_dict(), "start_lve": dict(self.start_lve)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.multiplier.load_state_dict(state["multiplier"])
        self.start_lve = {key: float(value) for key, value in state["start_lve"].items()}
