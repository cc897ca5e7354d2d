"""The report's figures, each a PNG: a variant has one colour in all of them, controls are grey."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.results import Measure, Results, Runs
from benchmarks.harness.scores import SCORES, score_columns
from benchmarks.harness.statistics import (
    interquartile_mean,
    mean_t_interval,
    pareto_front,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap,
)
from s2f_rl.data.files import atomic_path

# Okabe and Ito: told apart with any colour vision; with more variants the line style changes
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B8A000")
GREYS = ("#555555", "#999999", "#BBBBBB")
STYLES = ("-", "--", ":", "-.")
N_RESAMPLES = 1000
STYLE: dict[str, Any] = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "legend.frameon": False,
}  # fmt: skip
"""Matplotlib's settings for every figure."""
Look = tuple[str, str]


def looks(results: Runs) -> dict[str, Look]:
    """Colour and line style of every variant and control."""
    found = {name: (GREYS[k % len(GREYS)], STYLES[k // len(GREYS) % 4]) for k, name in enumerate(results.controls)}
    n = len(COLOURS)
    return found | {name: (COLOURS[k % n], STYLES[k // n % 4]) for k, name in enumerate(results.variants)}


def _families(results: Results) -> dict[str, tuple[str, str]]:
    """Of the variants that are points of a sweep: the name of the sweep, and the point's values."""
    found = {}
    for row in results.rows:
        if row["variant"] in results.variants and row["settings"]:
            found[row["variant"]] = (str(row["family"]), ", ".join(str(value) for value in row["settings"].values()))
    return {name: found[name] for name in results.variants if name in found}


def draw_all(results: Results, out: Path) -> list[tuple[str, str, Path]]:
    """Draw every figure for which there are rows; returns (title, what it shows, file)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figures: dict[str, tuple[str, str, Callable[[Results, Mapping[str, Look]], Any]]] = {
        "efficiency": (
            "Sample efficiency",
            "Validation measures during training against frames collected: mean over runs, band: 95% t interval.",
            _efficiency,
        ),
        "iqm": (
            "Interquartile means",
            "With 95% stratified bootstrap intervals; grey line: the supervised start.",
            _iqm,
        ),
        "profile": (
            "Performance profiles",
            "Share of sequences whose judge score (lip + real) exceeds the threshold; band: resampled runs.",
            _profile,
        ),
        "improvement": (
            "Probability of improvement over the control",
            "Right of one half the variant beats its control more often than not; 95% bootstrap over pairs.",
            _improvement,
        ),
        "pareto": (
            "Perception against fidelity",
            "Judge score against lip vertex error. Squares: controls, crosses: their motion times a constant. "
            "The line joins the points that none beats on both.",
            _pareto,
        ),
        "gap": (
            "Train reward against judge",
            "Share of the gap to the ground truth that is closed. Below the diagonal the reward is fooled.",
            _gap,
        ),
        "training": (
            "Gradients and exploration during training",
            "Gradient norms before balancing, size of the noise at the lips, amplitude of the sampled motion.",
            _training,
        ),
    }
    drawn = []
    with plt.rc_context(STYLE):  # type: ignore[arg-type]
        for name, (title, note, draw) in figures.items():
            figure = draw(results, looks(results))
            if figure is None:
                continue
            path = out / f"{name}.png"
            with atomic_path(path) as temporary:
                figure.savefig(temporary, dpi=130, bbox_inches="tight", format="png")
            plt.close(figure)
            drawn.append((title, note, path))
    return drawn


def _panels(n: int, width: float = 3.6, height: float = 2.7, columns: int = 3) -> tuple[Any, list[Any]]:
    import matplotlib.pyplot as plt

    columns = min(n, columns)
    rows = -(-n // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False)
    flat = list(axes.flat)
    for axis in flat[n:]:
        axis.set_visible(False)
    figure.subplots_adjust(hspace=0.45, wspace=0.3)
    return figure, flat[:n]


def _legend(figure: Any, axis: Any) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="center left", bbox_to_anchor=(0.92, 0.5))


def _curves(
    results: Results, styles: Mapping[str, Look], columns: Mapping[str, tuple[str, float]], log: str = ""
) -> Any:
    present = {c: spec for c, spec in columns.items() if any(c in row for row in results.curves)}
    if not present:
        return None
    figure, axes = _panels(len(present))
    for axis, (column, (label, factor)) in zip(axes, present.items(), strict=True):
        for name, (colour, line) in styles.items():
            frames, values = results.curve(name, column)
            if not len(frames):
                continue
            found = [mean_t_interval(values[:, k] * factor) for k in range(len(frames))]
            axis.plot(frames / 1e3, [e.value for e in found], color=colour, linestyle=line, label=name, linewidth=1.5)
            if len(values) > 1:
                low, high = [e.low for e in found], [e.high for e in found]
                axis.fill_between(frames / 1e3, low, high, color=colour, alpha=0.12, linewidth=0)
        axis.set_title(label, fontsize=9)
        axis.set_xlabel("thousand frames")
        if log and log in column:
            axis.set_yscale("log")
    _legend(figure, axes[0])
    return figure


def _efficiency(results: Results, styles: Mapping[str, Look]) -> Any:
    columns = {
        **{f"validation/{column}": (f"{name} score (train reward)", 1.0) for name, column in SCORES.items()},
        "validation/lve": ("LVE mm²", 1e6),
        "validation/amplitude_ratio": ("amplitude ratio", 1.0),
        "validation/jitter_ratio": ("jitter ratio", 1.0),
        "validation/closure_rate": ("closure rate", 1.0),
    }
    return _curves(results, styles, columns)


def _training(results: Results, styles: Mapping[str, Look]) -> Any:
    columns = {
        "grad_norm_policy": ("gradient norm, policy", 1.0),
        "grad_norm_supervised": ("gradient norm, supervised", 1.0),
        "noise_mm": ("exploration noise at the lips, mm", 1.0),
        "reward": ("reward of the samples", 1.0),
        "sampled_amplitude_ratio": ("amplitude ratio of the samples", 1.0),
        "policy_kl_approx": ("KL of an update, nats per frame", 1.0),
    }
    return _curves(results, styles, columns, log="grad_norm")


def _iqm(results: Results, styles: Mapping[str, Look]) -> Any:
    shown = [m for m in results.measures if m.aim != "none"]
    names = list(reversed([*results.controls, *results.variants]))
    figure, axes = _panels(len(shown), width=2.9, height=0.9 + 0.22 * len(names), columns=4)
    for k, (axis, measure) in enumerate(zip(axes, shown, strict=True)):
        for y, name in enumerate(names):
            scores = results.scores(name, measure)
            if not len(scores):
                continue
            e = stratified_bootstrap(interquartile_mean, scores, n_resamples=N_RESAMPLES)
            colour = styles[name][0]
            if np.isfinite(e.low):
                axis.plot([e.low, e.high], [y, y], color=colour, linewidth=5, alpha=0.35, solid_capstyle="butt")
            axis.plot(e.value, y, "|", color=colour, markersize=11, markeredgewidth=2)
        start, truth = results.scores("start", measure), results.scores("truth", measure)
        if len(start):
            axis.axvline(start.mean(), color="#999999", linewidth=1)
        # written, not drawn: it lies so far away that the variants would fall on one spot
        own = f" (truth {truth.mean():.{measure.digits}f})" if len(truth) else ""
        axis.set_title(measure.label + own, fontsize=8)
        axis.set_yticks(range(len(names)), names if k % 4 == 0 else [""] * len(names))
        axis.set_ylim(-0.6, len(names) - 0.4)
        axis.locator_params(axis="x", nbins=4)
    figure.subplots_adjust(hspace=min(0.6, 1.1 / len(names) + 0.15), wspace=0.12)
    return figure


def _judged(results: Results) -> tuple[str, ...]:
    return score_columns(results.judges[0])


def _profile(results: Results, styles: Mapping[str, Look]) -> Any:
    columns = _judged(results)
    scores = {name: results.sequence_scores(name, columns) for name in ("truth", *styles)}
    scores = {name: runs for name, runs in scores.items() if runs and all(len(run) for run in runs)}
    if not scores:
        return None
    everything = np.concatenate([run for runs in scores.values() for run in runs])
    at = np.linspace(everything.min(), everything.max(), 101)
    figure, (axis,) = _panels(1, width=6, height=3.4)
    for name, runs in scores.items():
        share, low, high = performance_profile(runs, at)
        colour, line = styles.get(name, ("black", ":"))
        axis.plot(at, share, color=colour, linestyle=line, label="ground truth" if name == "truth" else name)
        if len(runs) > 1:
            axis.fill_between(at, low, high, color=colour, alpha=0.12, linewidth=0)
    axis.set_xlabel(f"{results.judges[0]}: {' + '.join(SCORES)} score of a sequence")
    axis.set_ylabel("share of scored sequences above")
    _legend(figure, axis)
    return figure


def _improvement(results: Results, styles: Mapping[str, Look]) -> Any:
    shown = [m for m in results.measures if m.aim in ("up", "down") and not m.closed]
    names = list(reversed([name for name in results.variants if len(results.pairs(name, shown[0])[0])]))
    if not names:
        return None
    figure, axes = _panels(len(shown), width=2.6, height=0.9 + 0.22 * len(names), columns=4)
    for k, (axis, measure) in enumerate(zip(axes, shown, strict=True)):
        sign = 1 if measure.aim == "up" else -1
        for y, name in enumerate(names):
            ours, theirs = results.pairs(name, measure)
            if not len(ours):
                continue
            e = probability_of_improvement(sign * ours, sign * theirs, n_resamples=N_RESAMPLES)
            if np.isfinite(e.low):
                axis.plot([e.low, e.high], [y, y], color=styles[name][0], linewidth=5, alpha=0.35)
            axis.plot(e.value, y, "|", color=styles[name][0], markersize=11, markeredgewidth=2)
        axis.axvline(0.5, color="black", linewidth=0.8)
        axis.set_xlim(-0.05, 1.05)
        axis.set_ylim(-0.6, len(names) - 0.4)
        axis.set_title(measure.label, fontsize=8)
        axis.set_yticks(range(len(names)), names if k % 4 == 0 else [""] * len(names))
    figure.subplots_adjust(hspace=min(0.6, 1.1 / len(names) + 0.15), wspace=0.12)
    return figure


def _find(results: Results, label: str) -> Measure | None:
    return next((m for m in results.measures if m.label == label), None)


def _pareto(results: Results, styles: Mapping[str, Look]) -> Any:
    lve, judge = _find(results, "LVE mm²"), Measure("judge", _judged(results))
    if lve is None:
        return None

    def point(name: str, gain: float = 1.0) -> tuple[float, float]:
        found = [results.scores(name, m, gain=gain) for m in (lve, judge)]
        return (float(found[0].mean()), float(found[1].mean())) if all(len(f) for f in found) else (np.nan, np.nan)

    points = {name: point(name) for name in styles}
    points = {name: p for name, p in points.items() if np.isfinite(p).all()}
    if not points:
        return None
    figure, (axis,) = _panels(1, width=6, height=4)
    swept = _families(results)
    families = list(dict.fromkeys(family for family, _ in swept.values()))
    for name, (x, y) in points.items():
        family, value = swept.get(name, (None, name))
        colour = styles[name][0] if family is None else COLOURS[families.index(family) % len(COLOURS)]
        for run in zip(results.scores(name, lve).flat, results.scores(name, judge).flat, strict=False):
            axis.plot(*run, ".", color=colour, alpha=0.3, markersize=4)
        axis.plot(x, y, "s" if name in results.controls else "o", color=colour, markersize=7)
        axis.annotate(value, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=7)
    for k, family in enumerate(families):
        own = [points[name] for name, (of, _) in swept.items() if of == family and name in points]
        axis.plot([x for x, _ in own], [y for _, y in own], "-", color=COLOURS[k % len(COLOURS)], label=family)
    if families:
        axis.legend(fontsize=8, frameon=False, loc="lower right")
    for control in results.controls:
        line = [p for p in (point(control, g) for g in (1.0, *(results.suite["gains"] or ()))) if np.isfinite(p).all()]
        axis.plot(
            [p[0] for p in line], [p[1] for p in line], "x-", color="#BBBBBB", linewidth=1, markersize=5, zorder=0
        )
    front = [list(points.values())[k] for k in pareto_front(list(points.values()))]
    axis.plot([p[0] for p in front], [p[1] for p in front], color="black", linewidth=0.8, alpha=0.5, zorder=0)
    truth, start = results.scores("truth", judge), point("start")
    # the baseline's line may leave the picture: the variants are what it is about
    for k, limits in enumerate((axis.set_xlim, axis.set_ylim)):
        shown = [p[k] for p in (*points.values(), start) if np.isfinite(p[k])]
        margin = max(0.5 * (max(shown) - min(shown)), 0.02 * abs(max(shown)))
        limits(min(shown) - margin, max(shown) + margin)
    if len(truth):
        axis.set_title(f"ground truth's own score: {truth.mean():.3f}", fontsize=9)
    axis.plot(*start, "D", color="#999999", markersize=6)
    axis.annotate("start", start, xytext=(5, -9), textcoords="offset points", fontsize=7)
    axis.set_xlabel("LVE mm² (lower is more faithful)")
    axis.set_ylabel(f"{results.judges[0]}: {' + '.join(SCORES)}")
    return figure


def _gap(results: Results, styles: Mapping[str, Look]) -> Any:
    train = _find(results, "train, share of gap closed")
    judged = _find(results, f"{results.judges[0]}, share of gap closed")
    if train is None or judged is None:
        return None
    figure, (axis,) = _panels(1, width=4.6, height=4)
    ends = [0.0]
    for name, (colour, _) in styles.items():
        x, y = results.scores(name, train), results.scores(name, judged)
        if not len(x) or x.shape != y.shape:
            continue
        ends += [*x.flat, *y.flat]
        axis.plot(x.flat, y.flat, ".", color=colour, alpha=0.4, markersize=5)
        marker = "s" if name in results.controls else "o"
        axis.plot(x.mean(), y.mean(), marker, color=colour, markersize=8, label=name)
    axis.plot([min(ends), max(ends)], [min(ends), max(ends)], color="black", linewidth=0.8)
    axis.set_xlabel("train reward, share of the gap closed")
    axis.set_ylabel(f"{results.judges[0]}, share of the gap closed")
    _legend(figure, axis)
    return figure
