"""All measures of one motion against its utterance, as a flat row, and what its columns mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from s2f_rl import metrics
from s2f_rl.data.contract import SpokenUtterance
from s2f_rl.errors import UserError
from s2f_rl.metrics.registry import Metric
from s2f_rl.registry import Registry


@dataclass(frozen=True)
class Measure:
    """A measure of one's own: one more column of every row, beside those of :func:`motion_measures`.

    Attributes:
        column: its name; none of ours.
        metric: what it is, with unit, version and source.
        function: (motions [K, T, V*3], truth [K, T, V*3], utterance, regions, fps) -> [K], nan where it cannot be
            measured. Both are in metres and equally long.
        region: the vertices it is taken over, for the record.
    """

    column: str
    metric: Metric
    function: Callable[[Tensor, Tensor, SpokenUtterance, Mapping[str, Tensor], float], Tensor]
    region: str | None = None


MEASURES: Registry[Measure] = Registry("measures", {})
"""Measures of one's own by name; a person may name ``package.module:NAME``."""


def own_measures(names: Sequence[str]) -> list[Measure]:
    """The measures that a person names. Raises UserError for what is none, or has a column of ours."""
    found = [MEASURES.named_by_person(name) for name in names]
    taken = set(COLUMNS)
    for name, measure in zip(names, found, strict=True):
        if not isinstance(measure, Measure):
            raise UserError(f"{name}: is a {type(measure).__name__}, not a s2f_rl.metrics.measures.Measure")
        if measure.column in taken:
            raise UserError(f"{name}: there is a column {measure.column!r} already; give it another name")
        taken.add(measure.column)
    return found


class LipPair(TypedDict):
    """Vertices of both lips, as the measures of their opening take them."""

    upper_lip: Tensor
    lower_lip: Tensor


def motion_measures(
    vertices: Tensor,
    utterance: SpokenUtterance,
    regions: Mapping[str, Tensor],
    fps: float,
    timing: bool = True,
    more: Sequence[Measure] = (),
) -> list[dict[str, float]]:
    """Geometric measures of motions [K, T, V*3] (metres) of one utterance against its ground truth, a row for each.

    Columns, with unit, version and source in :data:`s2f_rl.metrics.METRICS`: ``lve``, ``mve``, ``fdd`` (signed),
    ``amplitude_ratio``, ``jitter_ratio``, ``lip_intensity`` and its ratio to the truth's; with ``timing`` also ``mtm``,
    ``lag_ms``, and where there is sound ``speech_intensity`` and ``slcc_within``; with phone timings
    ``closure_rate`` and ``false_closure_rate``; then those of ``more``. Rows are empty for an utterance without
    vertices. Prediction and truth are cut to the shorter; a region that the corpus does not have leaves its measures
    out, and what cannot be measured (a truth that does not move, no extrema, no /m b p/) is nan.
    """
    truth, template = utterance.vertices, utterance.template
    if truth is None:
        return [{} for _ in vertices]
    n = min(len(truth), vertices.shape[1])
    vertices = vertices[:, :n]
    truth = truth[:n]
    if not bool(torch.isfinite(truth).all()):
        raise UserError(f"{utterance.name}: its vertices hold NaN or infinite values; run s2f-rl check on the corpus")
    truth = truth.expand_as(vertices)
    columns = {"mve": metrics.max_vertex_error(vertices, truth)}
    if "lips" in regions:
        lips = regions["lips"]
        columns["lve"] = metrics.lip_vertex_error(vertices, truth, lips)
        columns["amplitude_ratio"] = metrics.amplitude_ratio(vertices, truth, lips)
        columns["jitter_ratio"] = metrics.jitter_ratio(vertices, truth, lips)
        columns["lip_intensity"] = metrics.lip_intensity(vertices, lips)
        strength = metrics.lip_intensity(truth, lips)
        columns["lip_intensity_ratio"] = torch.where(
            strength > metrics.STILL_M, columns["lip_intensity"] / strength, torch.nan
        )
        if timing and getattr(utterance, "waveform_raw", None) is not None:
            sound, rate = utterance.waveform_raw, utterance.sample_rate
            columns["slcc_within"] = metrics.speech_lip_correlation_within(
                vertices, sound, lips, fps=fps, sample_rate=rate
            )
            columns["speech_intensity"] = metrics.speech_intensity(sound).expand(len(vertices))
    if "upper_face" in regions:
        columns["fdd"] = metrics.upper_face_dynamics_deviation(vertices, truth, template, regions["upper_face"])
    if "upper_lip" in regions and "lower_lip" in regions:
        pair = LipPair(upper_lip=regions["upper_lip"], lower_lip=regions["lower_lip"])
        if timing:
            columns["mtm"] = metrics.mean_temporal_misalignment(vertices, truth, **pair)
            columns["lag_ms"] = metrics.lag_ms(vertices, truth, fps=fps, **pair)
        if utterance.phones is not None:
            threshold = metrics.closure_threshold(template, truth=truth[0], **pair)
            for name in ("closure_rate", "false_closure_rate"):
                columns[name] = getattr(metrics, name)(
                    vertices, truth, utterance.phones, fps=fps, threshold_m=threshold, **pair
                )
    for measure in more:
        columns[measure.column] = measure.function(vertices, truth, utterance, regions, fps)
    return [{name: float(values[k]) for name, values in columns.items()} for k in range(len(vertices))]


# column of a row -> (metric, region that it is taken over: None for all vertices)
COLUMNS: dict[str, tuple[str, str | None]] = {
    "mve": ("max_vertex_error", None),
    "lve": ("lip_vertex_error", "lips"),
    "fdd": ("upper_face_dynamics_deviation", "upper_face"),
    "mtm": ("mean_temporal_misalignment", "upper_lip"),
    "amplitude_ratio": ("amplitude_ratio", "lips"),
    "jitter_ratio": ("jitter_ratio", "lips"),
    "lip_intensity": ("lip_intensity", "lips"),
    "lip_intensity_ratio": ("lip_intensity", "lips"),
    "speech_intensity": ("speech_intensity", None),
    "slcc_within": ("speech_lip_correlation_within", "lips"),
    "lag_ms": ("lag_ms", "upper_lip"),
    "closure_rate": ("closure_rate", "upper_lip"),
    "false_closure_rate": ("false_closure_rate", "upper_lip"),
    "plrs": ("perceptual_lip_readability", None),
    "diversity_over_styles": ("diversity", "lips"),
    "true_distance": ("true_distance", "lips"),
    "true_distance_relative": ("true_distance", "lips"),
    "true_distance_face": ("true_distance", None),
}
_RATIOS = {"lip_intensity_ratio": "one", "true_distance_relative": "lower"}  # without unit, and where to aim


def definitions(regions: Mapping[str, Tensor], more: Sequence[Measure] = ()) -> dict[str, dict[str, str | int | None]]:
    """What each column of a row means: metric, version, unit, aim and the hash of the vertex mask it was taken over.

    A measure of the lips' opening is named by the upper lip's mask; it takes the lower lip's as well.
    """
    ours = [(column, metrics.METRICS[name], region) for column, (name, region) in COLUMNS.items()]
    out: dict[str, dict[str, str | int | None]] = {}
    for column, metric, region in [*ours, *((measure.column, measure.metric, measure.region) for measure in more)]:
        known = region is not None and region in regions
        out[column] = {
            "metric": metric.name,
            "version": metric.version,
            "unit": "1" if column in _RATIOS else metric.unit,
            "best": _RATIOS.get(column, metric.best),
            "region": region if known else None,
            "mask": metrics.vertex_mask_hash(regions[str(region)]) if known else None,
        }
    return out
