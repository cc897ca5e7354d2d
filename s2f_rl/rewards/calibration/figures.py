"""Figures of a reward's calibration report, drawn without a display and without global state."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from s2f_rl.errors import UserError
from s2f_rl.keys import LIP_SCORE, REAL_SCORE
from s2f_rl.rewards.calibration.auc import SUM, Row
from s2f_rl.rewards.calibration.spoiled_versions import TRUTH

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Rows = Sequence[Row]

COLOUR = {LIP_SCORE: "#1f6fb4", REAL_SCORE: "#d1642b", SUM: "#555555"}
LABEL = {LIP_SCORE: "lip", REAL_SCORE: "real", SUM: "lip + real"}
_SPACE_COLOUR = ("#8a3fa0", "#1b8a5a", "#b08900")


def drawable(rows: Rows) -> list[Row]:
    """The rows with nan, of which nothing is drawn, in place of None, which stands for numbers that are not finite."""
    return [{key: math.nan if value is None else value for key, value in row.items()} for row in rows]


def auc_figure(rows: Rows) -> bytes:
    """AUC at strength 1 with intervals, a line per corruption and base, filled where the score ought to notice."""
    names = list(dict.fromkeys((row["corruption"], row["base"]) for row in rows))
    scores = [score for score in COLOUR if any(row["score"] == score for row in rows)]
    figure, axes = _figure(9.5, 1.3 + 0.36 * len(names))
    for place, score in enumerate(scores):
        for row in (row for row in rows if row["score"] == score):
            y = names.index((row["corruption"], row["base"])) + (place - (len(scores) - 1) / 2) * 0.24
            colour = COLOUR[score]
            axes.plot([row["auc_low"], row["auc_high"]], [y, y], color=colour, lw=1.6, alpha=0.8, zorder=2)
            fill = colour if row["routed"] else "white"
            axes.plot([row["auc"]], [y], "o", ms=5.5, mec=colour, mfc=fill, mew=1.3, zorder=3, clip_on=False)
    for y in range(1, len(names), 2):
        axes.axhspan(y - 0.5, y + 0.5, color="#f2f2f2", zorder=0, lw=0)
    axes.axvline(0.5, color="black", lw=1, ls=":", zorder=1)
    axes.set_yticks(range(len(names)), [_name(corruption, base) for corruption, base in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("AUC of utterance means, true against spoiled at strength 1 (bar: 95% bootstrap interval)")
    handles = [_line(COLOUR[score], LABEL[score], marker="o") for score in scores]
    handles += [_line("black", "hollow: need not notice", marker="o", hollow=True)]
    handles += [_line("black", "chance", ls=":")]
    axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(handles), frameon=False)
    return _png(figure)


def strength_figure(rows: Rows) -> bytes:
    """Mean score against strength, a panel per corruption of the ground truth."""
    names = list(dict.fromkeys(row["corruption"] for row in rows if row["base"] == TRUTH))
    columns = 5
    lines = -(-len(names) // columns)
    figure, grid = _figure(11.5, 1.0 + 1.75 * lines, lines, columns, sharex=True, sharey=True)
    panels = np.atleast_1d(grid).ravel()
    for panel, name in zip(panels, names, strict=False):
        for row in rows:
            if (row["corruption"], row["base"]) == (name, TRUTH) and row["score"] != SUM:
                style = "-" if row["routed"] else (0, (3, 2))
                panel.plot(row["strengths"], row["curve"], ls=style, color=COLOUR[row["score"]], marker=".", ms=4)
        panel.set_title(name, fontsize=8.5, pad=3)
        panel.grid(alpha=0.25)
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    for panel in panels[max(0, len(names) - columns) : len(names)]:  # the lowest of each column
        panel.tick_params(labelbottom=True)
    figure.supxlabel("strength of the corruption", fontsize=10)
    figure.supylabel("mean score", fontsize=10)
    scores = [score for score in (LIP_SCORE, REAL_SCORE) if any(row["score"] == score for row in rows)]
    handles = [_line(COLOUR[score], LABEL[score]) for score in scores]
    handles.append(_line("black", "dashed: need not notice", ls="--"))
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
    return _png(figure)


def reliability_figure(rows: Rows) -> bytes:
    """Share of true motion against score, and how the scores are spread, per head: over clips and utterances."""
    scores = list(dict.fromkeys(row["score"] for row in rows))
    figure, grid = _figure(
        4.6 * len(scores), 5.2, 2, len(scores), sharex=True, squeeze=False, gridspec_kw={"height_ratios": [3, 1]}
    )
    for column, score in enumerate(scores):
        upper, lower = grid[0, column], grid[1, column]
        upper.plot([0, 1], [0, 1], color="black", lw=1, ls=":", label="calibrated")
        for row in (row for row in rows if row["score"] == score):
            clip = row["level"] == "clip"
            full = [b for b in row["bins"] if b["true"] is not None]
            label = f"{row['level']}s, ECE {row['ece']:.3f}"
            colour = COLOUR[score] if clip else "#777777"
            x, y = [b["score"] for b in full], [b["true"] for b in full]
            upper.plot(x, y, "o-" if clip else "s--", color=colour, ms=4.5, label=label)
            middles = np.array([(b["low"] + b["high"]) / 2 for b in row["bins"]]) + (-0.02 if clip else 0.02)
            lower.bar(middles, [b["weight"] for b in row["bins"]], width=0.038, color=colour)
        upper.set(xlim=(0, 1), ylim=(0, 1.02), title=f"{LABEL[score]} score")
        upper.set_ylabel("share of true motion" if column == 0 else "")
        upper.legend(loc="upper left", frameon=False, fontsize=8.5)
        upper.grid(alpha=0.25)
        lower.set_xlabel("score")
        lower.set_ylabel("weight" if column == 0 else "")
    return _png(figure)


def speaker_figure(rows: Rows) -> bytes:
    """Scores of ground truth by speaker: mean and standard deviation over utterances."""
    scores = [score for score in (LIP_SCORE, REAL_SCORE) if any(row["score"] == score for row in rows)]
    speakers = list(dict.fromkeys((row["subject"], row["seen"]) for row in rows))
    figure, axes = _figure(max(6.5, 1.6 + 0.62 * len(speakers)), 3.9)
    for place, score in enumerate(scores):
        for row in (row for row in rows if row["score"] == score):
            x = speakers.index((row["subject"], row["seen"])) + (place - (len(scores) - 1) / 2) * 0.25
            fill = "white" if row["seen"] else COLOUR[score]
            axes.errorbar(
                [x], [row["mean"]], [row["sd"]], fmt="o", color=COLOUR[score], mfc=fill, ms=6, capsize=3, lw=1.4
            )
    axes.set_xticks(range(len(speakers)), [subject for subject, _ in speakers], rotation=30, ha="right")
    axes.set_ylabel("score of ground truth")
    axes.set_xlabel("speaker (bar: standard deviation over utterances)")
    axes.grid(alpha=0.25, axis="y")
    handles = [_line(COLOUR[score], LABEL[score], marker="o") for score in scores]
    handles.append(_line("black", "hollow: training speaker", marker="o", hollow=True))
    axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(handles), frameon=False)
    return _png(figure)


def attack_figure(summary: Rows, judges: Sequence[str]) -> bytes:
    """Scores (lip + real) of the reward and of the judges after the attack on the sum, against the radius, a panel per
    start; beside them a random change as large as the one found."""
    rows = [row for row in summary if row["objective"] == "sum"]
    starts = list(dict.fromkeys(row["start"] for row in rows))
    spaces = list(dict.fromkeys(row["space"] for row in rows))
    figure, grid = _figure(4.9 * len(starts), 4.9, 1, len(starts), sharey=True, squeeze=False)
    handles = []
    for panel, start in zip(grid[0], starts, strict=True):
        for space, colour in zip(spaces, _SPACE_COLOUR, strict=False):
            own = sorted((r for r in rows if (r["start"], r["space"]) == (start, space)), key=lambda r: r["radius_mm"])
            radius = [0.0, *(row["radius_mm"] for row in own)]
            before = own[0].get("before", math.nan)
            panel.plot(radius, [before, *(row.get("after", math.nan) for row in own)], "o-", color=colour, ms=4)
            gains = [row.get("before", math.nan) + row.get("random_gain", math.nan) for row in own]
            noise = [before, *gains]
            panel.plot(radius, noise, "x:", color=colour, ms=5)
            for index, judge in enumerate(judges):
                told = _judged(own, judge)
                if told:
                    panel.plot(radius, told, ls="--", marker="s^Dv"[index % 4], color=colour, ms=4, mfc="white")
        panel.set_title(f"from {_start(start)}", fontsize=10)
        panel.set_xlabel("radius of the trust region, mm RMS")
        panel.grid(alpha=0.25)
    grid[0, 0].set_ylabel("score, lip + real")
    for space, colour in zip(spaces, _SPACE_COLOUR, strict=False):
        handles.append(_line(colour, f"{space} space", marker=None))
    handles.append(_line("black", "reward, attacked", marker="o"))
    handles.append(_line("black", "reward, random change", marker="x", ls=":"))
    for index, judge in enumerate(judges):
        handles.append(_line("black", f"{judge}, attacked", marker="s^Dv"[index % 4], ls="--", hollow=True))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return _png(figure)


def damage_figure(summary: Rows) -> bytes:
    """What ground truth says of the attacked motions (attack on the sum): measures against the radius."""
    rows = [row for row in summary if row["objective"] == "sum"]
    titles = {
        "lip_error_mm": "lip error, mm (root of LVE)",
        "amplitude_ratio": "amplitude / truth",
        "jitter_ratio": "jitter / truth",
        "closure_rate": "closure on /m b p/",
    }
    shown = [name for name in titles if any(f"{name}_after" in row for row in rows)]
    starts = list(dict.fromkeys(row["start"] for row in rows))
    spaces = list(dict.fromkeys(row["space"] for row in rows))
    figure, grid = _figure(3.1 * max(2, len(shown)), 3.7, 1, max(1, len(shown)), squeeze=False)
    for panel, name in zip(grid[0], shown, strict=False):
        for start, style in zip(starts, ("o-", "s--", "^:"), strict=False):
            for space, colour in zip(spaces, _SPACE_COLOUR, strict=False):
                own = [r for r in rows if (r["start"], r["space"]) == (start, space) and f"{name}_after" in r]
                own.sort(key=lambda row: row["radius_mm"])
                if own:
                    before = own[0].get(f"{name}_before", math.nan)
                    values = [before, *(row[f"{name}_after"] for row in own)]
                    panel.plot([0.0, *(row["radius_mm"] for row in own)], values, style, color=colour, ms=4)
        panel.set_title(titles[name], fontsize=10)
        panel.set_xlabel("radius, mm RMS")
        panel.grid(alpha=0.25)
    handles = [_line(colour, f"{space} space") for space, colour in zip(spaces, _SPACE_COLOUR, strict=False)]
    for start, marker, ls in zip(starts, "os^", ("-", "--", ":"), strict=False):
        handles.append(_line("black", f"from {_start(start)}", marker=marker, ls=ls))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return _png(figure)


def _judged(rows: Rows, judge: str) -> list[float]:
    try:
        after = [row[f"{judge}_lip_after"] + row[f"{judge}_real_after"] for row in rows]
        return [rows[0][f"{judge}_lip_before"] + rows[0][f"{judge}_real_before"], *after]
    except KeyError:  # too short for its window, or a judge without a head
        return []


def _name(corruption: str, base: str) -> str:
    return corruption if base == TRUTH else f"{corruption}, over smoothed"


def _start(start: str) -> str:
    return {TRUTH: "ground truth", "regression_to_mean": "smoothed motion", "policy": "a policy's motion"}.get(
        start, start
    )


def _figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure of its own, in inches, and its axes; needs matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(f"the report's figures need matplotlib ({error}); run: pip install matplotlib") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, **options)


def _line(colour: str, label: str, marker: str | None = None, ls: str = "-", hollow: bool = False) -> Line2D:
    from matplotlib.lines import Line2D

    fill = "white" if hollow else colour
    return Line2D([], [], color=colour, label=label, marker=marker, ls=ls, mfc=fill, ms=5)


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    return content.getvalue()
