"""A reward of one's own: does the mouth move smoothly? A short start is tuned by RLOO against it.

python examples/reward/jitter_reward.py CORPUS [OUT]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s2f_rl.rewards import Reward


class JitterReward(Reward):
    """``smooth_score`` = 1 / (1 + a / limit), a: RMS over the lips of the second difference of three frames, metres.

    Args:
        corpus: says which vertices are the lips. device: not needed. limit_mm: where the score is a half.
    """

    score_names = ("smooth_score",)
    look_back = 2  # a frame's score is of it and the two before it

    def __init__(self, corpus: Any, device: Any = "cpu", limit_mm: float = 0.5) -> None:
        self.limit_m = limit_mm / 1e3
        self.lips = tuple(torch.as_tensor(corpus.regions["lips"]).tolist())

    def score_motion(
        self, vertices: Tensor, prepared: Sequence[Any], frame_mask: Tensor, stride: int = 1, first_frame: Any = None
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Scores and mask [B, T] of motions [B, T, V*3]; the caller takes the first two frames off the mask."""
        lips = vertices.unflatten(-1, (-1, 3))[:, :, list(self.lips)]
        jitter = lips.diff(n=2, dim=1).square().sum(-1).mean(-1).clamp(min=1e-18).sqrt()
        score = torch.nn.functional.pad(1 / (1 + jitter / self.limit_m), (2, 0))
        return {"smooth_score": (score, frame_mask)}


def main(corpus: str, out: str = "checkpoints/example_reward") -> dict[str, float]:
    """A short supervised start, and RLOO on the reward above, named by its import path."""
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "recipes")]
    import rloo
    import supervised

    common = [f"corpus.root={corpus}", f"root={out}", "resume=true", "logger=none", "progress=false", "iterations=4"]
    supervised.main.run([*common, "name=start", "batch_size=2", "evaluation.every=4"])
    part = "reward.parts.jitter={kind: examples.reward.jitter_reward:JitterReward, weight: 1.0, limit_mm: 0.2}"
    return rloo.main.run([*common, "name=rloo", f"start={out}/start", part, "lanes=4", "group_size=2"])


if __name__ == "__main__":
    print(f"smooth_score of validation: {main(*sys.argv[1:])['smooth_score']:.3f}")
