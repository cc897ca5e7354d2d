"""Lips together on /m b p/ and nowhere else, as a reward: from phone timings and the lips' distance alone."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from s2f_rl.data.contract import Corpus, SpokenUtterance
from s2f_rl.errors import UserError
from s2f_rl.metrics.closure import bilabial_frames, closure_threshold, spoken_frames
from s2f_rl.metrics.lips import lip_distance
from s2f_rl.models.latent_motion import LatentMotion
from s2f_rl.rewards.contract import Reward, Scored

CLOSURE_SCORE, OPEN_SCORE = "closure_score", "open_score"


class Asked(NamedTuple):
    """What an utterance asks of the lips: bool [n] each, for the frames up to its last phone, and metres."""

    closed: Tensor
    open: Tensor
    threshold_m: float


class ClosureReward(Reward):
    """Two scores in [0, 1] of the distance d of the lips, where c is the distance that counts as closed:

        closure_score = 1 / (1 + (max(d - c, 0) / s)^2)         on the frames of /m b p/
        open_score    = 1 / (1 + (max(c + s - d, 0) / s)^2)     on the other frames of speech

    Lips that are closed where they ought to be, and lips that are open by s or more, have the whole score and no slope;
    everywhere else there is one, which falls with the distance (d - c)^-3. Half the score is d = c + s where closure is
    asked for, and d = c where it is not. Both are differentiable in the vertices (once continuously).

    Silence and frames within ``margin_s`` of a bilabial, where lips are on their way, have neither score; utterances
    without phones have none. c is :func:`~s2f_rl.metrics.closure_threshold` of the utterance, as the closure rates of
    an evaluation take it. A frame's score looks at that frame only, at the lips' absolute geometry, and says nothing of
    the speech but its timing: use it beside a reward that hears.

    Args:
        corpus: gives frame rate, mesh, and the middle of each lip (regions ``upper_lip``, ``lower_lip``).
        device: not needed, everything is where the motion is.
        softness_mm: s. margin_mm: what lips may keep beyond their distance at rest, in c. margin_s: see above.

    Raises:
        UserError: no utterance of the corpus has phones, it does not know the lips, or a number out of range.
    """

    score_names = (CLOSURE_SCORE, OPEN_SCORE)
    look_back = 0

    def __init__(
        self,
        corpus: Corpus,
        device: str | torch.device = "cpu",
        softness_mm: float = 1.0,
        margin_mm: float = 0.5,
        margin_s: float = 0.05,
    ) -> None:
        where = str(getattr(corpus, "root", "the corpus"))
        for name, value in {"softness_mm": softness_mm, "margin_mm": margin_mm, "margin_s": margin_s}.items():
            if not 0 <= value <= sys.float_info.max or (name == "softness_mm" and not value):
                raise UserError(f"closure reward: {name}={value}: a finite number, not below 0; the softness above it")
        for region in ("upper_lip", "lower_lip"):
            if region not in corpus.regions:
                raise UserError(f"{where}: does not say which vertices are the {region}; add it to landmarks.json")
        if not any(corpus[i].phones for i in range(len(corpus))):
            raise UserError(
                f"{where}: no utterance has phone timings, which the closure reward needs; make them with "
                f"`s2f-rl align {where}`"
            )
        self.rate_hz = self.fps = float(corpus.fps)
        self.mesh_identity = corpus.mesh_identity
        self.upper_lip = tuple(torch.as_tensor(corpus.regions["upper_lip"]).flatten().tolist())
        self.lower_lip = tuple(torch.as_tensor(corpus.regions["lower_lip"]).flatten().tolist())
        self.softness_m, self.margin_m, self.margin_s = softness_mm / 1e3, margin_mm / 1e3, float(margin_s)

    def prepare(self, utterance: SpokenUtterance) -> Asked:
        """What the utterance's phones ask for, frame by frame, and the distance that counts as closed on its face."""
        phones = utterance.phones or []
        n_frames = math.ceil(max((end for _, _, end in phones), default=0.0) * self.rate_hz)
        closed = bilabial_frames(phones, n_frames, self.rate_hz)
        wide = [(phone, start - self.margin_s, end + self.margin_s) for phone, start, end in phones]
        near = bilabial_frames(wide, n_frames, self.rate_hz)
        threshold = closure_threshold(
            utterance.template, self.upper_lip, self.lower_lip, margin_m=self.margin_m, truth=utterance.vertices
        )
        return Asked(closed, spoken_frames(phones, n_frames, self.rate_hz) & ~near, threshold)

    def score_motion(
        self,
        vertices: Tensor,
        prepared: Sequence[Asked],
        frame_mask: Tensor,
        stride: int = 1,
        first_frame: Tensor | None = None,
    ) -> dict[str, Scored]:
        """See :meth:`Reward.score_motion <s2f_rl.rewards.contract.Reward.score_motion>`."""
        distance = lip_distance(vertices, self.upper_lip, self.lower_lip)
        return self._score(distance, vertices.dtype, prepared, frame_mask, first_frame)

    def score_latents(
        self,
        motion: LatentMotion,
        prepared: Sequence[Asked],
        frame_mask: Tensor,
        stride: int = 1,
        first_frame: Tensor | None = None,
    ) -> dict[str, Scored]:
        """The same, of the lips alone."""
        lips = motion.columns(torch.tensor([*self.upper_lip, *self.lower_lip]))
        upper, lower = torch.arange(len(self.upper_lip) + len(self.lower_lip)).split(
            [len(self.upper_lip), len(self.lower_lip)]
        )
        distance = lip_distance(lips.unflatten(-1, (-1, 3)), upper, lower)
        return self._score(distance, lips.dtype, prepared, frame_mask, first_frame)

    def _score(
        self,
        distance: Tensor,
        dtype: torch.dtype,
        prepared: Sequence[Asked],
        frame_mask: Tensor,
        first_frame: Tensor | None,
    ) -> dict[str, Scored]:
        threshold = distance.new_tensor([asked.threshold_m for asked in prepared]).unsqueeze(-1)
        too_open = (distance - threshold) / self.softness_m
        scores = {
            name: (1 / (1 + amiss.clamp(min=0).square())).to(dtype)
            for name, amiss in ((CLOSURE_SCORE, too_open), (OPEN_SCORE, 1 - too_open))
        }
        starts = [0] * len(prepared) if first_frame is None else first_frame.tolist()
        masks = {CLOSURE_SCORE: torch.zeros_like(frame_mask), OPEN_SCORE: torch.zeros_like(frame_mask)}
        for lane, (asked, start) in enumerate(zip(prepared, starts, strict=True)):
            for mask, wanted in zip(masks.values(), (asked.closed, asked.open), strict=True):
                here = wanted[start : start + mask.shape[1]]
                mask[lane, : len(here)] = here.to(mask.device)
        return {name: (score, masks[name]) for name, score in scores.items()}
