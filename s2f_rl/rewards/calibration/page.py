"""The calibration report as one self-contained page."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from s2f_rl.pages import document, escape
from s2f_rl.rewards.calibration.auc import NOTICED, SUM, of_heads, unnoticed
from s2f_rl.rewards.calibration.figures import LABEL, Row
from s2f_rl.rewards.calibration.spoiled_versions import TRUTH

Report = Mapping[str, Any]
"""What :func:`~s2f_rl.rewards.calibration.report.reward_report` returns."""

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1b1b; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
p { max-width: 52rem; } img { max-width: 100%; height: auto; display: block; margin: .8rem 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; margin: .6rem 0; }
th, td { padding: .22rem .6rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid #888; } td:first-child, th:first-child { text-align: left; }
td.text, th.text { text-align: left; } .about { color: #555; font-size: 13px; overflow-wrap: anywhere; }
.bad { color: #b00020; font-weight: 600; } li { margin: .2rem 0; }
"""


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], text_columns: int = 1) -> str:
    """An HTML table; numbers with three decimals, None as a dash; the first ``text_columns`` are set to the left."""
    head = "".join(f'<th class="{"text" if i < text_columns else ""}">{escape(h)}</th>' for i, h in enumerate(headers))
    lines = []
    for row in rows:
        cells = (f'<td class="{"text" if i < text_columns else ""}">{_cell(value)}</td>' for i, value in enumerate(row))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def picture(content: bytes, alt: str) -> str:
    """A PNG inside the page."""
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(content).decode()}">'


def page(report: Report, figures: Mapping[str, bytes]) -> str:
    """The page.

    Args:
        report: what :func:`~s2f_rl.rewards.calibration.report.reward_report` returns.
        figures: name -> PNG: ``auc``, ``strength``, ``reliability``, ``speakers``, ``attack``, ``damage``; those
            that are missing are left out.
    """
    about = report["about"]
    parts = [
        "<h1>Calibration of a reward</h1>",
        f"<p>Reward <b>{escape(str(about['reward']))}</b> on {about['utterances']} utterances of "
        f"{about['speakers']} speakers, split {escape(str(about['split']))} of {escape(str(about['corpus']))}.</p>",
        *_trained_on(about),
        "<ul>" + "".join(f"<li>{line}</li>" for line in findings(report)) + "</ul>",
        *_discrimination(report, figures),
        *_family(report),
        *_reliability(report, figures),
        *_speakers(report, figures),
        *_attack(report, figures),
    ]
    parts.append("<h2>How this was made</h2>")
    lines = "<br>".join(f"{escape(str(key))}: {escape(str(value))}" for key, value in about.items())
    parts.append(f'<p class="about">{lines}</p>')
    return document(f"Calibration of {about['reward']}", _STYLE, parts)


def _trained_on(about: Row) -> list[str]:
    count = about["training_speakers"]
    if not count:
        return []
    text = f"{count} of the {about['speakers']} speakers are training speakers: of new speakers this says less."
    return [f'<p class="bad">{escape(text)}</p>']


def findings(report: Report) -> list[str]:
    """The report in a few lines of HTML, worst news first."""
    lines = []
    rows = [row for row in report["discrimination"] if row["auc"] is not None]  # None: a score that is not finite
    unknown = dict.fromkeys(row["corruption"] for row in report["discrimination"] if row["auc"] is None)
    if unknown:
        lines.append(f'<span class="bad">Scores that are not finite:</span> {escape(", ".join(unknown))}')
    heads, missed = of_heads(rows), unnoticed(rows)
    if missed:
        names = ", ".join(f"{LABEL[row['score']]} on {row['corruption']} ({row['auc']:.2f})" for row in missed)
        lines.append(
            f'<span class="bad">AUC below {NOTICED} where a head ought to notice:</span> {escape(names)}. RL can '
            "trade it for score: train longer, on more voices, or weigh the reward less"
        )
    elif heads:
        worst = min(heads, key=lambda row: row["auc"])
        lines.append(f"Every head notices what it ought to; least, {worst['corruption']} with AUC {worst['auc']:.2f}")
    flat = [row for row in heads if row["spearman"] is not None and row["spearman"] > -0.5]
    if flat:
        names = ", ".join(f"{LABEL[row['score']]} on {row['corruption']} ({row['spearman']:+.2f})" for row in flat)
        lines.append(f"Score hardly falls with strength (Spearman above -0.5): {escape(names)}")
    preferred = [row for row in rows if row["score"] == SUM and row["auc_high"] is not None and row["auc_high"] < 0.5]
    if preferred:
        names = ", ".join(f"{row['corruption']} ({row['auc']:.2f})" for row in preferred)
        lines.append(f'<span class="bad">Preferred to the truth</span> (sum of scores): {escape(names)}')
    for row in report["attack_summary"]:
        if (row["objective"], row["start"], row["radius_mm"]) == ("sum", TRUTH, 0.5):
            text = (
                f"Attack within 0.5 mm of the ground truth, {row['space']} space: reward {_number(row.get('before'))} "
                f"to {_number(row.get('after'))} (a random change: {_number(_sum(row, 'before', 'random_gain'))})"
            )
            for judge in report["about"]["judges"]:
                before, after = (_sum(row, f"{judge}_lip_{e}", f"{judge}_real_{e}") for e in ("before", "after"))
                if before is not None and after is not None:
                    text += f"; {judge} {before:.2f} to {after:.2f}"
            lines.append(escape(text))
    return lines


def _discrimination(report: Report, figures: Mapping[str, bytes]) -> list[str]:
    rows = report["discrimination"]
    parts = [
        "<h2>Does it tell spoiled motion from true?</h2>",
        "<p>Each utterance is spoiled in every way the corpus allows. AUC: the chance that a true utterance scores "
        "higher than a spoiled one, over all pairs; paired: the same within an utterance. Spearman: rank correlation "
        "of score and strength within an utterance, averaged; -1 is best. A star marks a score that ought to notice. "
        "Families without a star are controls. The intervals draw utterances anew, as if independent.</p>",
    ]
    parts += _shown(figures, "auc", "AUC per corruption and score")
    cells = []
    scores = [score for score in LABEL if any(row["score"] == score for row in rows)]
    for name, base in dict.fromkeys((row["corruption"], row["base"]) for row in rows):
        own = {row["score"]: row for row in rows if (row["corruption"], row["base"]) == (name, base)}
        line: list[object] = [name, "truth" if base == TRUTH else "smoothed", next(iter(own.values()))["family"]]
        for score in scores:
            row = own[score]
            star = "*" if row["routed"] and score != SUM else ""
            line.append(f"{_number(row['auc'])}{star} [{_number(row['auc_low'])}, {_number(row['auc_high'])}]")
            line += [_number(row["paired"]), _number(row["spearman"], "+.2f")]
        cells.append([*line, next(iter(own.values()))["utterances"]])
    headers = ["corruption", "over", "family"]
    for score in scores:
        headers += [f"{LABEL[score]}: AUC", "paired", "Spearman"]
    parts.append(table([*headers, "utterances"], cells, 3))
    parts += _shown(figures, "strength", "mean score against strength of each corruption")
    return parts


def _family(report: Report) -> list[str]:
    rows = report["leave_one_out"]
    if not rows:
        return []
    cells = [
        [
            *(row["left_out"], row["corruption"], LABEL.get(row["score"], row["score"])),
            *(row["auc"], row["auc_full"], row["auc"] - row["auc_full"], row["utterances"]),
        ]
        for row in rows
        if row["routed"]
    ]
    return [
        "<h2>Does it notice what it was not trained on?</h2>",
        "<p>For each family a reward was trained without its corruptions and tested on them, beside the reward that "
        "was trained on all. Only scores that ought to notice are shown.</p>",
        table(
            ["family left out", "corruption", "score", "AUC without", "AUC with", "difference", "utterances"], cells, 3
        ),
    ]


def _reliability(report: Report, figures: Mapping[str, bytes]) -> list[str]:
    rows = report["reliability"]
    parts = ["<h2>Are the scores probabilities?</h2>"]
    if not rows:
        return [*parts, "<p>The scores do not lie in [0, 1], so they are no probabilities.</p>"]
    parts.append(
        "<p>True motion, and motion spoiled at strength 1 in the ways that the head ought to notice, pooled so that "
        "each half weighs the same. On the diagonal, of the clips with score 0.8 eight in ten are true. ECE is the "
        "mean distance from it by weight (0 is best), Brier the mean squared error.</p>"
    )
    parts += _shown(figures, "reliability", "reliability diagram of each head")
    keys = ("level", "ece", "brier", "true_count", "spoiled_count")
    cells = [[LABEL[row["score"]], *(row[key] for key in keys)] for row in rows]
    return [*parts, table(["score", "over", "ECE", "Brier", "true", "spoiled"], cells, 2)]


def _speakers(report: Report, figures: Mapping[str, bytes]) -> list[str]:
    parts = [
        "<h2>Is every speaker's truth worth the same?</h2>",
        "<p>Scores of ground truth by speaker. A spread between speakers that is larger than that within them means "
        "that a policy would be paid for whom it animates.</p>",
    ]
    parts += _shown(figures, "speakers", "scores of ground truth by speaker")
    cells = [
        [
            *(LABEL[row["score"]], "training" if row["seen"] else "unseen"),
            *(row["speakers"], row["mean"], row["between_sd"], row["within_sd"]),
        ]
        for row in report["spread"]
    ]
    return [*parts, table(["score", "speakers", "number", "mean", "sd between", "sd within"], cells, 2)]


def _attack(report: Report, figures: Mapping[str, bytes]) -> list[str]:
    rows = report["attack_summary"]
    if not rows:
        return []
    judges = report["about"]["judges"]
    parts = [
        "<h2>How much can be had for nothing?</h2>",
        "<p>Gradient ascent on the motion itself. The radius bounds the RMS length of the change over the sequence, "
        "over the lips and over the whole face alike. Free: every vertex coordinate may move. Motion: only the "
        "directions in which faces (or the actor) move. Random: white noise in the same space, as large as "
        "the change that was found. Judges were never climbed. Means over utterances.</p>",
    ]
    parts += _shown(figures, "attack", "scores after the attack against its radius")
    parts += _shown(figures, "damage", "measures against ground truth after the attack")
    headers = ["climbed", "from", "space", "radius", "lips mm", "before", "after", "gain", "gain/mm", "random"]
    columns = [("lip", "lip"), ("real", "real")]
    for judge in judges:
        columns += [(f"{judge}_lip", f"{judge} lip"), (f"{judge}_real", f"{judge} real")]
    columns += [("lip_error_mm", "lip error mm"), ("amplitude_ratio", "amplitude"), ("jitter_ratio", "jitter")]
    columns += [("closure_rate", "closure")]
    columns = [(key, label) for key, label in columns if any(f"{key}_after" in row for row in rows)]
    cells = []
    for row in rows:
        line: list[object] = [
            LABEL.get(row["objective"], "lip + real"),
            row["start"],
            row["space"],
            f"{row['radius_mm']:g}",
        ]
        line += [row.get(key) for key in ("lip_mm", "before", "after", "gain", "gain_per_mm", "random_gain")]
        line += [_pair(row, key) for key, _ in columns]
        cells.append(line)
    return [*parts, table([*headers, *(label for _, label in columns)], cells, 3)]


def _pair(row: Row, key: str) -> str | None:
    if f"{key}_after" not in row:
        return None
    return f"{_number(row.get(f'{key}_before'))} → {_number(row.get(f'{key}_after'))}"


def _number(value: float | None, form: str = ".2f") -> str:
    """A number, or a dash for one that is missing because it was not finite."""
    return "-" if value is None else format(value, form)


def _sum(row: Row, *names: str) -> float | None:
    values = [row[name] for name in names if row.get(name) is not None]
    return float(sum(values)) if len(values) == len(names) else None


def _shown(figures: Mapping[str, bytes], name: str, alt: str) -> list[str]:
    return [picture(figures[name], alt)] if name in figures else []


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else escape(str(value))
