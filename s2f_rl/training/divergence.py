"""What keeps a run finite: an update that would not be is skipped and counted, and ten in a row end the run."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from tensordict import NestedKey, TensorDictBase
from torch import Tensor

from s2f_rl import keys, ranks
from s2f_rl.errors import NotFinite, UserError
from s2f_rl.runs import PolicyAverage

logger = logging.getLogger(__name__)

LIMIT = 10
_COLLECTED = (keys.ACTION, keys.LATENT, keys.LATENT_LOG_PROB)


class StepGuard:
    """Makes the updates of a run, and none from a loss, a gradient or a batch that is not finite.

    A skipped update leaves parameters, moments and average as they are. Weights that are not finite after an update end
    the run at once: a copy of everything before every update would be needed to take it back, and the next one would
    be as large. The last checkpoint stays, since none with such numbers is written.

    Args:
        average: moving average that follows the updates that are made.
        limit: skipped updates in a row that end the run.
        scores: names of the reward's scores, which a batch must hold finite.
        shared: of several ranks, the loss is that of this rank's part of the batch, so that its gradient is averaged
            over them; off, it is that of the whole already, as :class:`~s2f_rl.losses.WeightedLoss` gives it.

    Raises (``step``):
        NotFinite: the run has diverged. :class:`~s2f_rl.runs.RunFolder` says of which run.

    Example:
        >>> guard = StepGuard()
        >>> norm = guard.step(loss, optimizer, max_grad_norm=1.0)           # doctest: +SKIP
        >>> row["skipped_steps"] = guard.skipped()                          # doctest: +SKIP
    """

    def __init__(
        self,
        average: PolicyAverage | None = None,
        limit: int = LIMIT,
        scores: Sequence[str] = (),
        shared: bool = False,
    ) -> None:
        self.average, self.limit, self.scores, self.shared = average, int(limit), tuple(scores), shared
        self.in_row = 0
        self._skipped = 0
        self._spoilt: str | None = None

    def checked(self, batch: TensorDictBase) -> TensorDictBase:
        """The batch [B, T] as collected and rewarded; no update is made from one whose rewards are not finite.

        Raises:
            NotFinite: the motion itself is not: then the policy has diverged, and no update can mend it.
        """
        valid, scored = batch.get(keys.FRAME_MASK), batch.get(("next", keys.SCORE_MASK), None)
        fault = _of_any_rank(_first_not_finite(batch, _COLLECTED, valid))
        if fault is not None:
            raise NotFinite(f"the policy's {fault} is not finite; use a smaller optimizer.lr in a new run")
        rewarded = [("next", key) for key in (keys.REWARD, *self.scores)]
        self._spoilt = _of_any_rank(_first_not_finite(batch, rewarded, valid if scored is None else scored))
        return batch

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer, max_grad_norm: float | None) -> Tensor:
        """One update along the gradient of ``loss`` (scalar), clipped by :func:`clip_gradients`, or none.

        Returns:
            gradient norm of the first parameter group, before it is clipped; nan where there is none.
        """
        optimizer.zero_grad()
        fault = self._spoilt or (None if bool(torch.isfinite(self._whole(loss.detach()))) else "the loss")
        norm = torch.full_like(loss.detach(), torch.nan)
        if fault is None:
            loss.backward()
            if self.shared:
                ranks.average_gradients([p for group in optimizer.param_groups for p in group["params"]])
            norms = clip_gradients(optimizer, max_grad_norm)
            norm = norms[0]
            fault = None if bool(torch.isfinite(norms).all()) else "the gradient"
        if fault is not None:
            optimizer.zero_grad()
            self._skip(fault)
            return norm
        optimizer.step()
        if not _weights_finite(optimizer):
            raise NotFinite(
                "an update was so large that the weights are no longer finite; use a smaller optimizer.lr in a new run"
            )
        self.in_row = 0
        if self.average is not None:
            self.average.update()
        return norm

    def _whole(self, loss: Tensor) -> Tensor:
        return ranks.mean(loss) if self.shared else loss

    def _skip(self, fault: str) -> None:
        self.in_row += 1
        self._skipped += 1
        if self.in_row == 1:
            logger.warning("update skipped: %s is not finite", fault)
        if self.in_row >= self.limit:
            raise NotFinite(
                f"{self.in_row} updates in a row were skipped, because {fault} was not finite; use a smaller "
                "optimizer.lr in a new run"
            )

    def skipped(self) -> int:
        """Updates skipped since this was asked last: the column ``skipped_steps``."""
        count, self._skipped = self._skipped, 0
        return count

    def state_dict(self) -> dict[str, int]:
        """Updates skipped in a row."""
        return {"in_row": self.in_row}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.in_row = int(state["in_row"])


def clip_gradients(optimizer: torch.optim.Optimizer, max_norm: float | None) -> Tensor:
    """Clip the gradient norm of every parameter group by itself; returns their norms before that, [groups].

    ``max_norm``: above 0 (a negative one would turn the gradient round: UserError), None clips nothing.

    The output map's gradient is per metre and 100 times the rest: clipped together, it would shrink the rest to
    nothing, and the policy gradient, which never reaches the output map, with it.
    """
    if max_norm is None:
        max_norm = math.inf
    if not max_norm > 0:
        raise UserError(f"max_grad_norm={max_norm}: above 0; null: no clipping")
    norms = [torch.nn.utils.clip_grad_norm_(group["params"], max_norm) for group in optimizer.param_groups]
    return torch.stack(norms)


def _of_any_rank(fault: str | None) -> str | None:
    return (fault or "motion or score of another rank") if ranks.any_of(fault is not None) else None


def _first_not_finite(batch: TensorDictBase, names: Iterable[NestedKey], mask: Tensor) -> str | None:
    """The first of the entries that is not finite in a frame of the mask [B, T, 1]; others may hold anything."""
    for key in names:
        value = batch.get(key, None)
        if value is not None:
            # by the sum, which is one pass without a copy of [B, T, V*3]
            frames = torch.isfinite(value.reshape(*mask.shape[:2], -1).sum(-1, keepdim=True))
            if not bool((frames | ~mask).all()):
                return key if isinstance(key, str) else key[-1]
    return None


def _weights_finite(optimizer: torch.optim.Optimizer) -> bool:
    sums = [p.detach().sum().float() for group in optimizer.param_groups for p in group["params"]]
    return bool(torch.isfinite(torch.stack(sums).sum())) if sums else True
