"""The picture of ``docs/findings.md``: what each algorithm closes of the gap, on the judge and on the train reward.

    python benchmarks/figures/findings.py docs/images

Drawn from the rows of the test speakers in ``docs/results/algorithms_test``. Needs matplotlib.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.findings import LIP, NAMES, gap_to_control, measure, open_runs
from benchmarks.harness.plots import STYLE, looks
from benchmarks.harness.results import Measure, Runs
from s2f_rl.data.files import atomic_path


def shares(runs: Runs, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Per seed: share of the way from the own control to the truth on the judge's lip score, and from the start to the
    truth on the train reward."""
    lip = Measure("", LIP)
    ours, theirs = runs.pairs(name, lip)
    judged = (ours - theirs) / (runs.scores("truth", lip).mean() - theirs)
    return judged.ravel(), runs.scores(name, measure(runs, "train, share of gap closed")).ravel()


def draw(runs: Runs, path: Path) -> None:
    """One row per algorithm, the best on the judge first; small points are seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    styles = looks(runs)
    names = sorted(runs.variants, key=lambda name: gap_to_control(runs, name, LIP))
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(7, 3.4))
        for y, name in enumerate(names):
            colour = styles[name][0]
            judged, trained = shares(runs, name)
            end = gap_to_control(runs, name, LIP)
            axis.plot([end, trained.mean()], [y, y], "-", color=colour, alpha=0.35, linewidth=1)
            axis.plot(judged, np.full(judged.shape, y), ".", color=colour, alpha=0.5, markersize=4)
            axis.plot(trained, np.full(trained.shape, y), ".", color=colour, alpha=0.5, markersize=4)
            axis.plot(end, y, "o", color=colour, markersize=8, label="judge, lip" if not y else None)
            axis.plot(
                trained.mean(), y, "o", color=colour, markersize=8, markerfacecolor="white",
                label="train reward" if not y else None,
            )  # fmt: skip
        axis.axvline(1.0, color="black", linewidth=1)
        axis.text(1.0, len(names) - 0.45, " the truth's own score", fontsize=8, va="bottom")
        axis.set_yticks(range(len(names)), [NAMES[name] for name in names])
        axis.set_ylim(-0.6, len(names) - 0.4)
        axis.set_xlim(-0.05, 1.45)
        axis.set_xlabel("share of the gap closed (test speakers, 5 seeds)")
        axis.grid(axis="y", visible=False)
        axis.legend(loc="lower right", fontsize=8, labelcolor="black")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=110, bbox_inches="tight", format="png")
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for findings.png")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    draw(open_runs("algorithms_test"), out / "findings.png")


if __name__ == "__main__":
    main()
