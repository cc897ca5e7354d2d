"""Means over the rows of an evaluation, and over how many of them each mean is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from s2f_rl.errors import NotFinite
from s2f_rl.evaluation.tables import Row
from s2f_rl.metrics import speech_lip_correlation

MEAN = "mean"  # condition of the style-independent prediction


def summarise(rows: Iterable[Row]) -> dict[str, float]:
    """Mean of every numeric column over the rows where it could be measured (it is not nan), which :func:`counts`
    counts; ``fdd_abs`` is the mean of |fdd|, and ``slcc``
    the :func:`~s2f_rl.metrics.speech_lip_correlation` over all rows, an identity being a
    subject in one style condition: another style moves the lips more or less at the same loudness.

    Raises:
        NotFinite: a value is infinite, which no motion that can be measured gives.
    """
    rows = list(rows)
    values: dict[str, list[float]] = {}
    for row in rows:
        for column, value in row.items():
            if not isinstance(value, float) or math.isnan(value):
                continue
            if math.isinf(value):
                raise NotFinite(f"{row.get('utterance', 'a row')}: {column} is infinite; measure a sound prediction")
            values.setdefault(column, []).append(value)
            if column == "fdd":
                values.setdefault("fdd_abs", []).append(abs(value))
    means = {column: sum(v) / len(v) for column, v in values.items()}
    both = [row for row in rows if "speech_intensity" in row and "lip_intensity" in row]
    if both:
        speech, lips = ([row[name] for row in both] for name in ("speech_intensity", "lip_intensity"))
        slcc = speech_lip_correlation(speech, lips, [(row["subject"], row.get("condition")) for row in both])
        means |= {"slcc": slcc} if math.isfinite(slcc) else {}
    return means


def counts(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Over how many rows each value of :func:`summarise` is, and how many it could not be measured in.

    Returns:
        column -> ``utterances`` (with at least one measured row), ``utterances_not_measured``, ``sequences`` (rows)
        and ``sequences_not_measured``. A row without the column (no vertices, no sound) counts as one with nan: no
        extrema, no /m b p/, too short. For ``slcc`` a row is measured that has both intensities.
    """
    names = {row["utterance"] for row in rows}
    measured: dict[str, list[str]] = {
        name: [] for row in rows for name, value in row.items() if isinstance(value, float)
    }
    for name, own in measured.items():
        own += [row["utterance"] for row in rows if isinstance(row.get(name), float) and not math.isnan(row[name])]
    if "fdd" in measured:
        measured["fdd_abs"] = measured["fdd"]
    if {"speech_intensity", "lip_intensity"} <= set(measured):
        both = [[row.get(name, math.nan) for name in ("speech_intensity", "lip_intensity")] for row in rows]
        measured["slcc"] = [row["utterance"] for row, pair in zip(rows, both, strict=True) if not math.isnan(sum(pair))]
    return {
        name: {
            "utterances": len(set(own)),
            "utterances_not_measured": len(names - set(own)),
            "sequences": len(own),
            "sequences_not_measured": len(rows) - len(own),
        }
        for name, own in measured.items()
    }


def told(count: Mapping[str, int]) -> str:
    """A count of :func:`counts` in words: ``8 utterances, 3 of 16 sequences not measured``."""
    missing, whole = count["sequences_not_measured"], count["sequences"] + count["sequences_not_measured"]
    words = f"{count['utterances']} utterance{'s' * (count['utterances'] != 1)}"
    return words + (f", {missing} of {whole} sequences not measured" if missing else "")


def summaries(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """``style_dependent`` (mean over utterances x training subjects) and ``style_independent`` (mean predictions)."""
    dependent = [row for row in rows if row["condition"] != MEAN]
    independent = [row for row in rows if row["condition"] == MEAN]
    out = {"style_dependent": summarise(dependent)}
    if independent:
        out["style_independent"] = summarise(independent)
    return out
