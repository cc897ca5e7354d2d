"""Codes that nothing is near to any more: they are never chosen, so nothing trains them. They can be placed anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from s2f_rl.models.codetalker.codebook import Autoencoded, Codebook


class DeadCodes:
    """Puts codes that were not chosen for a while where the encoder's outputs are.

    The published training has none of this: its codes that are never chosen stay where they are.

    Args:
        codebook: whose codes are watched.
        after: updates in a row without being chosen, after which a code is placed anew; None: never.
        seed: of the draws.
    """

    def __init__(self, codebook: Codebook, after: int | None, seed: int) -> None:
        self.codebook, self.after = codebook, after
        self._idle = torch.zeros(codebook.n_codes, dtype=torch.int64)
        self._draws = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def update(self, batch: Sequence[Autoencoded], optimizer: torch.optim.Optimizer) -> int:
        """After an update: place what has been idle for ``after`` updates on outputs of this batch's encoder.

        Adam's moments of these codes begin anew.

        Returns:
            how many were placed.
        """
        chosen = counts_of(batch, self.codebook.n_codes).cpu() > 0
        self._idle = torch.where(chosen, 0, self._idle + 1)
        dead = torch.nonzero(self._idle >= self.after).flatten() if self.after is not None else self._idle[:0]
        if not len(dead):
            return 0
        outputs = torch.cat([passed.hidden.flatten(0, -2) for passed in batch])
        drawn = torch.randint(len(outputs), (len(dead),), generator=self._draws)
        codes, dead_there = self.codebook.codes, dead.to(outputs.device)
        codes[dead_there] = outputs[drawn.to(outputs.device)]
        for name, moment in optimizer.state.get(codes, {}).items():
            if name != "step":
                moment[dead_there] = 0.0
        self._idle[dead] = 0
        return len(dead)

    def state_dict(self) -> dict[str, Tensor]:
        """Where the draws and the counts are."""
        return {"idle": self._idle, "draws": self._draws.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on where ``state`` was taken."""
        self._idle = state["idle"].cpu().clone()
        self._draws.set_state(state["draws"].cpu())


def counts_of(batch: Sequence[Autoencoded], n_codes: int) -> Tensor:
    """How often each code was chosen: [K], int64."""
    return sum(
        (torch.bincount(passed.indices.flatten(), minlength=n_codes) for passed in batch[1:]),
        torch.bincount(batch[0].indices.flatten(), minlength=n_codes),
    )
