"""The picture of every page in ``docs/algorithms``: its curve beside its control's, and what each seed ended with.

    python benchmarks/figures/algorithms.py docs/images/algorithms

Curves are those of ``docs/results/curves`` (one seed), the points those of ``docs/results/algorithms`` and
``algorithms_test`` (five seeds). Needs matplotlib.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.findings import ALGORITHMS, LIP, NAMES, RESULTS, open_runs
from benchmarks.harness.plots import STYLE, looks
from benchmarks.harness.results import Measure, Row, Runs, read_lines
from benchmarks.harness.tables import over_seeds
from s2f_rl.data.files import atomic_path

CURVES = RESULTS / "curves" / "curves.jsonl"
SHOWN = {
    "train reward (lip + real)": (("validation/lip_score", "validation/real_score"), 1.0),
    "LVE mm²": (("validation/lve",), 1e6),
    "closure rate": (("validation/closure_rate",), 1.0),
}
CONTROL = "#888888"


def curve(rows: Iterable[Row], variant: str, columns: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Frames [K] and the sum of ``columns`` [K] at the iterations of one run that were validated."""
    own = [row for row in rows if row["variant"] == variant and all(row.get(name) is not None for name in columns)]
    own.sort(key=lambda row: row["iteration"])
    frames = np.asarray([row["frames"] for row in own], dtype=float)
    return frames, np.asarray([sum(row[name] for name in columns) for row in own], dtype=float)


def gaps(runs: Runs, variant: str) -> np.ndarray:
    """Per seed [n, 1]: share of the way from the own control to the truth on the judge's lip score."""
    lip = Measure("", LIP)
    ours, theirs = runs.pairs(variant, lip)
    return (ours - theirs) / (runs.scores("truth", lip).mean() - theirs)


def draw_points(axis: Any, variant: str, colour: str) -> None:
    """Every seed, and their mean with its 95% t-interval, on the validation and on the test speakers."""
    places = {"validation": "algorithms", "test": "algorithms_test"}
    for x, place in enumerate(places.values()):
        found = gaps(open_runs(place), variant)
        mean = over_seeds(found)
        axis.plot(np.full(found.size, x - 0.12), found.ravel(), ".", color=colour, alpha=0.5, markersize=6)
        axis.errorbar(x + 0.08, mean.value, mean.value - mean.low, fmt="o", color=colour, markersize=6, capsize=3)
    axis.set_xticks(range(len(places)), list(places))
    axis.set_xlim(-0.6, len(places) - 0.4)
    axis.set_ylim(-0.05, 1.05)
    axis.axhline(1.0, color="black", linewidth=0.8)
    axis.text(-0.55, 0.94, "ground truth", fontsize=7)
    axis.axhline(0.0, color=CONTROL, linewidth=0.8)
    axis.set_title("judge lip, gap closed (5 seeds)", fontsize=9)


def draw(rows: list[Row], variant: str, path: Path) -> None:
    """Three curves over frames and the points of the seeds; without rows of curves the points alone."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    runs = open_runs("algorithms")
    colour = looks(runs)[variant][0]
    shown = SHOWN if rows else {}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(shown) + 1, figsize=(2.7 * (len(shown) + 1), 2.4), squeeze=False)
        for axis, (title, (columns, factor)) in zip(axes[0], shown.items(), strict=False):
            for name, look, label in ((str(runs.control_of[variant]), CONTROL, "control"), (variant, colour, "")):
                frames, values = curve(rows, name, columns)
                axis.plot(frames / 1e3, values * factor, color=look, linewidth=1.6, label=label or NAMES[variant])
            axis.set_title(f"{title} (1 seed)", fontsize=9)
            axis.set_xlabel("thousand frames")
        if len(shown):
            axes[0][0].legend(fontsize=8)
        draw_points(axes[0][-1], variant, colour)
        figure.subplots_adjust(wspace=0.32)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=100, bbox_inches="tight", format="png")
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for NAME.png of every algorithm")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    rows = read_lines(CURVES) if CURVES.exists() else []
    for variant in ALGORITHMS:
        draw(rows, variant, out / f"{variant}.png")


if __name__ == "__main__":
    main()
