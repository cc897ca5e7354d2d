"""The reward that an algorithm maximises: the logged one, or its terms brought to one scale before the sum."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

from s2f_rl import keys, ranks
from s2f_rl.envs import FrozenRewardTransform
from s2f_rl.errors import UserError
from s2f_rl.models.latent_motion import LatentMotion
from s2f_rl.training.placebo import Placebo

NORMALISATIONS = ("none", "running", "batch")
Moments = tuple[float, float, float]


class RewardSignal:
    """``signal(batch) -> [B, T, 1]`` from a batch that :class:`~s2f_rl.envs.FrozenRewardTransform` has rewarded.

    ``normalise="none"``: the transform's ``reward``. Otherwise every (capped) score is standardised before it is
    weighted, so that a weight says how much a term counts whatever its spread:

        signal_t = scale * sum_k weights[k] * (min(score_k[t], cap_k) - mean_k) / std_k

    over the scores k that frame t has (each has a mask of its own), 0 without any.

    The batch keeps its plain ``reward`` for the log, so that runs stay comparable.

    Args:
        transform: scores, weights, scale and caps.
        normalise: ``"none"``; ``"batch"``: mean and deviation of a score over the frames of the batch that have
            it; ``"running"``: over all such frames so far, this batch included.
        placebo: gives the signal of a lane to another of its group; None: each lane has its own.

    Raises:
        UserError: unknown ``normalise``.
    """

    def __init__(
        self, transform: FrozenRewardTransform, normalise: str = "none", placebo: Placebo | None = None
    ) -> None:
        if normalise not in NORMALISATIONS:
            raise UserError(f"reward.normalise={normalise}: use {' or '.join(NORMALISATIONS)}")
        self.transform, self.normalise, self.placebo = transform, normalise, placebo
        self.terms = [name for name in transform.scores if transform.weights.get(name)]
        # per term: number of frames, mean, sum of squared differences from it
        self.moments: dict[str, Moments] = dict.fromkeys(self.terms, (0.0, 0.0, 0.0))

    def __call__(self, batch: TensorDictBase) -> Tensor:
        return self._given({"reward": self._own(batch)})["reward"]

    def _own(self, batch: TensorDictBase) -> Tensor:
        if self.normalise == "none":
            return batch.get(("next", keys.REWARD))
        capped, masks = self._collected(batch)
        for name, score in capped.items():
            self._count(name, score[masks[name]])
        return self._sum(capped, masks, batch.get(("next", keys.REWARD)).squeeze(-1)).unsqueeze(-1)

    def by_name(self, batch: TensorDictBase) -> dict[str, Tensor]:
        """Every weighted score of a batch, ``scale`` times and capped, [B, T, 1]; 0 where a frame has none."""
        capped, masks = self._collected(batch)
        return self._given(
            {
                name: torch.where(masks[name], self.transform.scale * score, 0.0).unsqueeze(-1)
                for name, score in capped.items()
            }
        )

    def _given(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Terms [B, T, 1] as the lanes are given them, the same exchange for all."""
        if self.placebo is None:
            return terms
        lanes = self.placebo.lanes(len(next(iter(terms.values()))))
        return {name: term[lanes.to(term.device)] for name, term in terms.items()}

    def _collected(self, batch: TensorDictBase) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Capped scores of a batch and their masks by name, each [B, T]."""
        scored = batch.get("next")
        scores = {name: scored.get(name).squeeze(-1) for name in self.terms}
        masks = {name: keys.mask_of(scored, name).squeeze(-1) for name in self.terms}
        return self._capped(scores, batch.get(keys.UTTERANCE)[:, 0, 0]), masks

    def score(
        self, displacement: Tensor | LatentMotion, utterance: Tensor, n_frames: Tensor, style: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Signal and score mask, [B, T], of whole utterances, differentiable in ``displacement`` [B, T, V*3].

        This may be given by its latents, see :meth:`~s2f_rl.envs.FrozenRewardTransform.score_displacements`.

        The moments are those of the last batch that was passed to the signal, and count as constants.
        """
        scores = self.transform.score_displacements(displacement, utterance, n_frames, style)
        mask = scores[keys.SCORE_MASK]
        if self.normalise == "none":
            return scores[keys.REWARD], mask
        masks = {name: keys.mask_of(scores, name) for name in self.terms}
        return self._sum(self._capped(scores, utterance), masks, scores[keys.REWARD]), mask

    def _capped(self, scores: Mapping[str, Tensor], utterance: Tensor) -> dict[str, Tensor]:
        caps = self.transform.caps(utterance).to(utterance.device)
        column = {name: k for k, name in enumerate(self.transform.scores)}
        return {name: torch.minimum(scores[name], caps[:, column[name], None]) for name in self.terms}

    def _sum(self, capped: Mapping[str, Tensor], masks: Mapping[str, Tensor], like: Tensor) -> Tensor:
        total = torch.zeros(like.shape, device=like.device)
        for name, score in capped.items():
            n, mean, squares = self.moments[name]
            std = max((squares / max(n, 1.0)) ** 0.5, 1e-6)
            term = self.transform.weights[name] * (score - mean) / std
            total = total + torch.where(masks[name], term, torch.zeros_like(term))
        return self.transform.scale * total

    def _count(self, name: str, values: Tensor) -> None:
        """Take in the moments of ``values`` [n], of all ranks, unless one is not finite."""
        values = values.double()
        n, mean = float(values.numel()), float(values.mean()) if len(values) else 0.0
        new = (n, mean, float((values - mean).square().sum()))
        if ranks.count() > 1:
            rows = ranks.rows_of_all(torch.tensor([new], dtype=torch.float64)).tolist()
            new = functools.reduce(_merged, [(n, mean, squares) for n, mean, squares in rows])
        # scores that are not finite give no update, and would spoil the moments for good
        if new[0] and math.isfinite(new[2]):
            self.moments[name] = _merged(self.moments[name], new) if self.normalise == "running" else new

    def state_dict(self) -> dict[str, list[float]]:
        """Moments by term."""
        return {name: list(values) for name, values in self.moments.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        for name in self.moments:
            n, mean, squares = (float(v) for v in state[name])
            self.moments[name] = (n, mean, squares)


def _merged(one: Moments, other: Moments) -> Moments:
    """Number, mean and sum of squared differences of two samples together (Chan et al., 1983)."""
    if not one[0] or not other[0]:
        return one if one[0] else other
    (n0, mean0, squares0), (n, mean, squares) = one, other
    shift = mean - mean0
    return n0 + n, mean0 + shift * n / (n0 + n), squares + (squares0 + shift * shift * n0 * n / (n0 + n))
