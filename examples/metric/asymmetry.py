"""A measure of one's own: does one half of the mouth move more than the other?

python examples/metric/asymmetry.py CORPUS
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import torch
from torch import Tensor

from s2f_rl.data import FaceCorpus
from s2f_rl.data.contract import SpokenUtterance
from s2f_rl.evaluation import evaluate_truth, summarise
from s2f_rl.metrics import Metric
from s2f_rl.metrics.measures import Measure


def lip_asymmetry(motions: Tensor, template: Tensor, lips: Tensor) -> Tensor:
    """|left - right| / (left + right) of the RMS lip motion around rest, [K] in [0, 1]; nan where nothing moves.

    Args:
        motions: [K, T, V*3], metres. template: [V*3]. lips: indices; x > 0 is the left half.
    """
    rest = template.unflatten(-1, (-1, 3))[lips]
    moved = motions.unflatten(-1, (-1, 3))[..., lips, :] - rest
    middle = rest[:, 0].mean()
    halves = (rest[:, 0] > middle, rest[:, 0] <= middle)
    left, right = (moved[:, :, half].square().mean((1, 2, 3)).sqrt() for half in halves)
    total = left + right
    return torch.where(total > 1e-6, (left - right).abs() / total, torch.nan)


def measured(
    motions: Tensor, truth: Tensor, utterance: SpokenUtterance, regions: Mapping[str, Tensor], fps: float
) -> Tensor:
    """:func:`lip_asymmetry` as an evaluation calls it."""
    return lip_asymmetry(motions, utterance.template, regions["lips"])


METRIC = Metric("lip_asymmetry", lip_asymmetry, unit="1", best="truth", source="this example", version=1)
ASYMMETRY = Measure("lip_asymmetry", METRIC, measured, region="lips")


def main(root: str) -> float:
    """Print and return the mean asymmetry of a corpus's own motion."""
    rows = evaluate_truth(FaceCorpus(root, split="all"), timing=False, more=[ASYMMETRY])
    mean = summarise(rows)["lip_asymmetry"]
    print(f"lip_asymmetry of the recorded motion: {mean:.3f}, over {len(rows)} utterances")
    return mean


if __name__ == "__main__":
    main(sys.argv[1])
