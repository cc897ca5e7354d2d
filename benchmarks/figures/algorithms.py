"""The picture of every page in ``docs/algorithms``: its curve beside its control's, and what each seed ended with.

    python benchmarks/figures/algorithms.py docs/images/algorithms

Curves are those of ``docs/results/curves`` (one seed, the corpus of the demo), the points those of
``docs/results/algorithms`` and ``algorithms_test`` (five seeds, the corpus of the benchmark). Needs matplotlib.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.findings import ALGORITHMS, LIP, NAMES, RESULTS, open_runs
from benchmarks.harness.plots import COLOURS, STYLE, looks
from benchmarks.harness.results import Measure, Row, Runs, read_lines
from benchmarks.harness.tables import over_seeds
from s2f_rl.data.files import atomic_path

CURVES = RESULTS / "curves" / "curves.jsonl"
SUPERVISED = RESULTS / "curves" / "supervised.jsonl"
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


def told(rows: Iterable[Row], variant: str, control: str) -> str:
    """What the page says below its picture: where reward and lip error of the run and its control end."""
    rows, ends = list(rows), []
    for (columns, factor), digits in zip(SHOWN.values(), (2, 2), strict=False):
        start, own, other = (curve(rows, name, columns)[1][k] * factor for name, k in
                             ((variant, 0), (variant, -1), (control, -1)))  # fmt: skip
        ends += [f"{value:.{digits}f}" for value in (start, own, other)]
    return (
        f"The train reward goes from {ends[0]} to {ends[1]} (its control: {ends[2]}), the lip error from {ends[3]} to "
        f"{ends[4]} mm² ({ends[5]})."
    )


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
    """Three curves over frames and the points of the seeds."""
    import matplotlib.pyplot as plt

    runs = open_runs("algorithms")
    colour = looks(runs)[variant][0]
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(2, 2, figsize=(7, 4.8))
        axes = grid.flat
        for axis, (title, (columns, factor)) in zip(axes, SHOWN.items(), strict=False):
            for name, look, label in ((str(runs.control_of[variant]), CONTROL, "control"), (variant, colour, "")):
                frames, values = curve(rows, name, columns)
                axis.plot(frames / 1e3, values * factor, color=look, linewidth=1.6, label=label or NAMES[variant])
            axis.set_title(f"{title} (1 seed)", fontsize=9)
            axis.set_xlabel("thousand frames")
        axes[0].legend(fontsize=8)
        draw_points(axes[-1], variant, colour)
        save(figure, path)


def draw_supervised(rows: list[Row], path: Path) -> None:
    """The error of the batches and the validation's lip error over iterations."""
    import matplotlib.pyplot as plt

    panels = {
        "position error of the batches, mm²": ("loss_position_mm2", 1.0, "-"),
        "LVE mm², validation": ("validation/lve", 1e6, "o-"),
        "amplitude ratio, validation": ("validation/amplitude_ratio", 1.0, "o-"),
    }
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(panels), figsize=(2.7 * len(panels), 2.4))
        for axis, (title, (column, factor, style)) in zip(axes, panels.items(), strict=True):
            points = [(row["iteration"], row[column] * factor) for row in rows if column in row]
            axis.plot(*zip(*points, strict=True), style, color=COLOURS[0], linewidth=1.2, markersize=4)
            axis.set_title(title, fontsize=9)
            axis.set_xlabel("iteration")
        save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG and close it."""
    import matplotlib.pyplot as plt

    figure.subplots_adjust(wspace=0.28, hspace=0.48)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=95, bbox_inches="tight", format="png")
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for NAME.png of every algorithm")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    import matplotlib

    matplotlib.use("Agg")
    draw_supervised(read_lines(SUPERVISED), out / "supervised.png")
    rows = read_lines(CURVES)
    for variant in ALGORITHMS:
        draw(rows, variant, out / f"{variant}.png")


if __name__ == "__main__":
    main()
