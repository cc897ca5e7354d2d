"""A placebo for the reward: what is left of a run when its rewards belong to other samples."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from s2f_rl import ranks


class Placebo:
    """Which lane's rewards each lane is given: within every group a uniform permutation, itself included.

    Every sample of a group is given every reward of it with the same chance. So the expectation over permutations is
    the group's mean for all of them, and against a baseline of the group the expected advantage is 0 at every frame:
    noise of the size that the rewards have, without a direction.

    Args:
        group_size: G adjacent lanes that share utterance and style, and so their length.
        seed: of draws of its own, so that all others stay those of the same run without it. A draw follows from seed,
            rank and number alone: the ranks of a resumed run go on with those of an unbroken one.
    """

    def __init__(self, group_size: int, seed: int) -> None:
        self.group_size, self.seed, self.n_drawn = group_size, seed, 0

    def lanes(self, n_lanes: int) -> Tensor:
        """The next draw: int64 [n_lanes], lane i is given the rewards of lane ``lanes[i]``."""
        generator = torch.Generator().manual_seed(ranks.step_seed(self.seed, ranks.rank(), self.n_drawn))
        self.n_drawn += 1
        first = torch.arange(0, n_lanes, self.group_size)[:, None]
        within = torch.rand(len(first), self.group_size, generator=generator).argsort(1)
        return (first + within).flatten()

    def state_dict(self) -> dict[str, int]:
        """How many draws there were."""
        return {"n_drawn": self.n_drawn}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where ``state`` was taken."""
        self.n_drawn = int(state["n_drawn"])
