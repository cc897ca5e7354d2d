"""Means over the rows of an evaluation, and over how many of them each mean is."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from s2f_rl.errors import NotFinite
from s2f_rl.evaluation.tables import Row
from s2f_rl.metrics import correlated_sequences, speech_lip_correlation

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
    slcc = speech_lip_correlation(*_intensities(both)) if both else math.nan
    means |= {"slcc": slcc} if math.isfinite(slcc) else {}
    return means


def counts(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Over how many rows each value of :func:`summarise` is, and how many it could not be measured in.

    Returns:
        column -> ``utterances`` (with at least one measured row), ``utterances_not_measured``, ``sequences`` (rows)
        and ``sequences_not_measured``. A row without the column (no vertices, no sound) counts as one with nan: no
        extrema, no /m b p/, too short. For ``slcc`` a row is measured that enters the correlation.
    """
    names = {row["utterance"] for row in rows}
    measured: dict[str, list[str]] = {
        name: [] for row in rows for name, value in row.items() if isinstance(value, float)
    }
    for name, own in measured.items():
        own += [row["utterance"] for row in rows if isinstance(row.get(name), float) and not math.isnan(row[name])]
    if "fdd" in measured:
        measured["fdd_abs"] = measured["fdd"]
    both = [row for row in rows if "speech_intensity" in row and "lip_intensity" in row]
    if both:
        measured["slcc"] = [both[k]["utterance"] for k in correlated_sequences(*_intensities(both))]
    return {
        name: {
            "utterances": len(set(own)),
            "utterances_not_measured": len(names - set(own)),
            "sequences": len(own),
            "sequences_not_measured": len(rows) - len(own),
        }
        for name, own in measured.items()
    }


def _intensities(rows: Sequence[Row]) -> tuple[list[float], list[float], list[Hashable]]:
    """Of speech and lips, and whose: a subject in one style condition is one identity."""
    identities: list[Hashable] = [(row["subject"], row.get("condition")) for row in rows]
    return [row["speech_intensity"] for row in rows], [row["lip_intensity"] for row in rows], identities


def described(summary: Mapping[str, Any], kind: str) -> list[tuple[str, float, str]]:
    """Name, value (nan: in no sequence) and :func:`told` of every measure of a ``summary.json``, to be shown."""
    values, found = summary.get(kind, {}), summary.get("counts", {}).get(kind, {})
    names = dict.fromkeys([*values, *found])
    return [(name, values.get(name, math.nan), told(found[name]) if name in found else "") for name in names]


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
