"""A placebo for the reward: what is left of a run when its rewards belong to other samples."""

from __future__ import annotations

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
        seed: of a generator of its own, so that all other draws stay those of the same run without it.
    """

    def __init__(self, group_size: int, seed: int) -> None:
        self.group_size = group_size
        self.generator = torch.Generator().manual_seed(ranks.step_seed(seed, ranks.rank(), 0))

    def lanes(self, n_lanes: int) -> Tensor:
        """The next draw: int64 [n_lanes], lane i is given the rewards of lane ``lanes[i]``."""
        first = torch.arange(0, n_lanes, self.group_size)[:, None]
        within = torch.rand(len(first), self.group_size, generator=self.generator).argsort(1)
        return (first + within).flatten()
