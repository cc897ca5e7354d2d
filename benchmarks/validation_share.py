"""Does validation with fewer clips and styles choose as validation with all of them does?

    python benchmarks/validation_share.py [SEED] [RATE]

After `make demo`: one PPO run of its corpus, start and reward, validated every second iteration by each share; a few
minutes. Prints for each how its scores and its choice of the best checkpoint differ from those of everything.
"""

from __future__ import annotations

import s2f_rl.patient  # noqa: F401 (before torch)

import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np

from s2f_rl.runs import load_recipe
from s2f_rl.training import Validation

EVERYTHING = (1, None)
SHARES: tuple[tuple[int, int | None], ...] = (
    EVERYTHING,
    (5, None),
    (1, 2),
    (3, 2),
    (5, 2),
    (5, 1),
    (10, 2),
)  # stride, styles


class Seen(NamedTuple):
    score: float
    lve: float
    value: float
    seconds: float


def main() -> None:
    seed, rate = (*sys.argv[1:], *("0", "1e-4")[len(sys.argv) - 1 :])
    points: list[dict[tuple[int, int | None], Seen]] = []
    others: dict[tuple[int, int | None], Validation] = {}
    ordinary = Validation.__call__

    def all_of_them(self: Validation) -> dict[str, float]:
        for share in SHARES if not others else ():
            options = (self.actor, self.corpus, self.scorer, self.conditions, self.select, self.max_lve_ratio)
            others[share] = Validation(*options, counts=self.counts, stride=share[0], styles=share[1])
            others[share].audio = self.audio
        point = {}
        for share, validation in others.items():
            started = time.perf_counter()
            found = ordinary(validation)
            seconds = time.perf_counter() - started
            score = found["lip_score"] + found["real_score"]
            point[share] = Seen(score, found["lve"], validation.value(found), seconds)
        points.append(point)
        return ordinary(self)

    Validation.__call__ = all_of_them  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as root:
        load_recipe("ppo").run(
            ["corpus=demo", "start=checkpoints/demo/supervised", "reward.folder=checkpoints/demo/reward",
             "iterations=60", "evaluation.every=2", f"seed={seed}", f"optimizer.lr={rate}", "logger=none",
             "page=none", f"root={root}"]
        )  # fmt: skip
    exact = np.array([point[EVERYTHING] for point in points])
    print(f"{len(points)} points; score {exact[0, 0]:.4f} to {exact[-1, 0]:.4f}")
    for share in SHARES:
        seen = np.array([point[share] for point in points])
        difference = seen[:, 0] - exact[:, 0]
        rank = np.corrcoef(_ranks(seen[:, 0]), _ranks(exact[:, 0]))[0, 1]
        lve = np.abs(seen[:, 1] / seen[0, 1] - exact[:, 1] / exact[0, 1]).max()
        lost = exact[exact[:, 2].argmax(), 0] - exact[seen[:, 2].argmax(), 0]
        print(
            f"stride {share[0]}, styles {share[1] or 'all'}: score {difference.mean():+.4f} sd {difference.std():.4f}, "
            f"rank correlation {rank:.3f}, LVE ratio within {lve:.4f}, best checkpoint {lost:.4f} lower, "
            f"{seen[:, 3].sum() / exact[:, 3].sum():.2f} of the time"
        )


def _ranks(values: np.ndarray) -> np.ndarray:
    return values.argsort().argsort()


if __name__ == "__main__":
    main()
