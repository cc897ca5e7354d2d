"""A replay buffer of whole utterances on TorchRL's, whose state goes into a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torch.nn import functional as F
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer

from s2f_rl import keys, ranks
from s2f_rl.errors import NotFinite, UserError

# What losses and critics read; displacements [T, V*3] are left out, they follow from the latents.
STORED = (
    keys.AUDIO, keys.STYLE, keys.UTTERANCE, keys.FRAME_MASK, keys.FRAME_INDEX, keys.LATENT, keys.LATENT_LOG_PROB,
    keys.ADVANTAGE, keys.VALUE_TARGET, ("next", keys.MESH_FEATURE), ("next", keys.AUDIO_FEATURE),
)  # fmt: skip


class UtteranceBuffer:
    """The last ``capacity`` utterances, each a row padded to ``horizon`` frames; drawn uniformly with replacement.

    Of several ranks each keeps and draws its own; numbers of rows are those of all together.

    Args:
        capacity: rows.
        horizon: frames of the longest utterance (``env.horizon``).
        device: where the rows live.
        parameters: the entries of the policy's distribution (``policy.core.out_keys``).
    """

    def __init__(
        self,
        capacity: int,
        horizon: int,
        device: torch.device | str = "cpu",
        parameters: Sequence[str] = (keys.LOC, keys.SCALE),
    ) -> None:
        if capacity < 1:
            raise UserError(f"replay.capacity={capacity}: at least one utterance")
        self.capacity, self.horizon = ranks.share_of(int(capacity), "replay.capacity"), int(horizon)
        self.device = torch.device(device)
        self._stored = (*STORED, *parameters)
        self._buffer = self._new()

    def _new(self) -> TensorDictReplayBuffer:
        return TensorDictReplayBuffer(storage=LazyTensorStorage(self.capacity, device=self.device))

    def __len__(self) -> int:
        return len(self._buffer)

    def extend(self, batch: TensorDictBase) -> None:
        """Store the rows of a batch [B, T] whose numbers are finite; the oldest are overwritten."""
        rows = batch.select(*self._stored, strict=False).detach()
        rows = rows.apply(self._pad, batch_size=[len(batch), self.horizon])
        rows = rows[torch.stack([torch.isfinite(v).flatten(1).all(1) for v in rows.values(True, True)]).all(0)]
        if not len(rows):
            return
        # More rows than the buffer holds would overwrite each other in no stated order.
        with _quiet_torchrl():
            self._buffer.extend(rows[-self.capacity :])

    def _pad(self, x: Tensor) -> Tensor:
        room = self.horizon - x.shape[1]
        return F.pad(x, (*(0, 0) * (x.ndim - 2), 0, room)) if room else x

    def sample(self, lanes: int) -> TensorDictBase:
        """``lanes`` rows [lanes, T], cut after the longest; drawn with torch's global generator."""
        if not len(self):
            raise NotFinite("not one of the utterances collected so far has numbers that are all finite; check start")
        rows = self._buffer.sample(ranks.share_of(lanes, "minibatch_lanes")).exclude("index")
        longest = int(rows.get(keys.FRAME_MASK).sum((1, 2)).max())
        return rows[:, :longest].clone()

    def state_dict(self) -> dict[str, Any]:
        """Stored rows and where the next one goes; of several ranks those of all, to be asked for on all."""
        rows = self._buffer[:] if len(self) else TensorDict({}, [0])
        flat = {"/".join(k if isinstance(k, tuple) else (k,)): v.clone() for k, v in rows.items(True, True)}
        flat.pop("index", None)
        cursor = int(self._buffer.writer.state_dict()["_cursor"])
        if ranks.count() == 1:
            return {"rows": flat, "cursor": cursor}
        of_ranks = ranks.rows_of_all(torch.tensor([[len(self), cursor]])).tolist()
        return {
            "rows": {k: ranks.rows_of_all(v.cpu()) for k, v in flat.items()},
            "cursor": cursor,
            "of_ranks": of_ranks,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self._buffer = self._new()
        own, cursor = self._own(state.get("of_ranks", [[0, state["cursor"]]]))
        flat = {tuple(k.split("/")): v[own] for k, v in state["rows"].items()}
        if flat:
            n = len(next(iter(flat.values())))
            rows = TensorDict({}, [n, self.horizon], device=self.device)
            for key, value in flat.items():
                rows.set(key, value.to(self.device))
            with _quiet_torchrl():
                self._buffer.extend(rows)
            self._buffer.writer.load_state_dict({"_cursor": n % self.capacity if cursor is None else cursor})

    def _own(self, of_ranks: Sequence[Sequence[int]]) -> tuple[slice, int | None]:
        """Which of the stored rows are this rank's, and its cursor if as many ranks had stored them."""
        if len(of_ranks) != ranks.count():
            return slice(ranks.rank(), self.capacity * ranks.count(), ranks.count()), None
        if len(of_ranks) == 1:
            return slice(None), of_ranks[0][1]
        first = sum(n for n, _ in of_ranks[: ranks.rank()])
        return slice(first, first + of_ranks[ranks.rank()][0]), of_ranks[ranks.rank()][1]


@contextmanager
def _quiet_torchrl() -> Iterator[None]:
    """TorchRL announces a new storage on stdout."""
    logger = logging.getLogger("torchrl")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
