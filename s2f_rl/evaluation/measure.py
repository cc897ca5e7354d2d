"""All measures of one motion against its utterance, as a flat row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from s2f_rl import keys, metrics
from s2f_rl.errors import UserError
from s2f_rl.rewards import RewardModel
from s2f_rl.rewards.cache import AudioFeatureCache


class Scorer:
    """Reward models under names (``"train"``, ``"judge"``) with their cached audio halves.

    Args:
        models: name -> reward model. Two names must not hold the same model: a judge that the policy was trained
            against is no judge (checked by content hash).
        corpus: whose mel clips are scored against.
        cache_folder: where the audio halves are kept on disk; None: in memory only.

    Raises:
        UserError: the same model twice, or a model for another number of vertices.
    """

    def __init__(self, models: Mapping[str, RewardModel], corpus: Any, cache_folder: Any = None) -> None:
        hashes: dict[str, str] = {}
        for name, model in models.items():
            if model.n_vertices != corpus.n_vertices:
                raise UserError(
                    f"reward model {name!r} scores {model.n_vertices} vertices, the corpus has {corpus.n_vertices}: "
                    "use a reward model of the same topology"
                )
            digest = model.content_hash()
            if digest in hashes:
                raise UserError(
                    f"reward models {hashes[digest]!r} and {name!r} are the same ({digest[:12]}): a judge must not be "
                    "the model that was trained against; train one with another seed"
                )
            hashes[digest] = name
        self.models = dict(models)
        self.hashes = {name: digest for digest, name in hashes.items()}
        self.audio = {name: AudioFeatureCache(model, corpus, cache_folder) for name, model in models.items()}

    @torch.no_grad()
    def scores(self, utterance: int, vertices: Tensor) -> list[dict[str, float]]:
        """Mean lip and real score over the scored frames, for each motion in ``vertices`` [K, T, V*3] (metres).

        Columns are ``lip_score``, ``real_score`` for the model named ``train`` and ``<name>_lip_score``, .. for others;
        nan where no clip could be scored.
        """
        rows: list[dict[str, float]] = [{} for _ in vertices]
        for name, model in self.models.items():
            prefix = "" if name == "train" else f"{name}_"
            features = self.audio[name].get(utterance)
            n_clips = max(0, min(len(features), vertices.shape[1] - 4))
            out = model.score_batch(
                vertices, features.expand(len(vertices), *features.shape), torch.full((len(vertices),), n_clips)
            )
            mask = out[keys.SCORE_MASK]
            for key in (keys.LIP_SCORE, keys.REAL_SCORE):
                if key in out:
                    for row, score, valid in zip(rows, out[key], mask, strict=True):
                        row[prefix + key] = float(score[valid].mean()) if bool(valid.any()) else float("nan")
        return rows


def motion_measures(
    vertices: Tensor, utterance: Any, regions: Mapping[str, Tensor], fps: float, timing: bool = True
) -> list[dict[str, float]]:
    """Geometric measures of motions [K, T, V*3] (metres) of one utterance against its ground truth, a row for each.

    Columns, with unit, version and source in :data:`s2f_rl.metrics.METRICS`: ``lve``, ``mve``, ``fdd`` (signed),
    ``amplitude_ratio``, ``jitter_ratio``; with ``timing`` also ``mtm`` and ``lag_ms``; with phone timings
    ``closure_rate`` and ``false_closure_rate``. Rows are empty for an utterance without vertices. Prediction and
    truth are cut to the shorter; a region that the corpus does not have leaves its measures out.
    """
    truth, template = utterance.vertices, utterance.template
    if truth is None:
        return [{} for _ in vertices]
    n = min(len(truth), vertices.shape[1])
    vertices = vertices[:, :n]
    truth = truth[:n].expand_as(vertices)
    columns = {"mve": metrics.max_vertex_error(vertices, truth)}
    if "lips" in regions:
        lips = regions["lips"]
        columns["lve"] = metrics.lip_vertex_error(vertices, truth, lips)
        columns["amplitude_ratio"] = metrics.amplitude_ratio(vertices, truth, lips)
        columns["jitter_ratio"] = metrics.jitter_ratio(vertices, truth, lips)
    if "upper_face" in regions:
        columns["fdd"] = metrics.upper_face_dynamics_deviation(vertices, truth, template, regions["upper_face"])
    if "upper_lip" in regions and "lower_lip" in regions:
        pair: dict[str, Any] = {"upper_lip": regions["upper_lip"], "lower_lip": regions["lower_lip"]}
        if timing:
            columns["mtm"] = metrics.mean_temporal_misalignment(vertices, truth, **pair)
            columns["lag_ms"] = metrics.lag_ms(vertices, truth, fps=fps, **pair)
        if utterance.phones is not None:
            threshold = metrics.closure_threshold(template, **pair)
            for name in ("closure_rate", "false_closure_rate"):
                columns[name] = getattr(metrics, name)(
                    vertices, truth, utterance.phones, fps=fps, threshold_m=threshold, **pair
                )
    return [{name: float(values[k]) for name, values in columns.items()} for k in range(len(vertices))]


METRIC_OF_COLUMN = {
    "mve": "max_vertex_error",
    "lve": "lip_vertex_error",
    "fdd": "upper_face_dynamics_deviation",
    "mtm": "mean_temporal_misalignment",
    "amplitude_ratio": "amplitude_ratio",
    "jitter_ratio": "jitter_ratio",
    "lag_ms": "lag_ms",
    "closure_rate": "closure_rate",
    "false_closure_rate": "false_closure_rate",
}
_REGION_OF_COLUMN = {
    "lve": "lips",
    "amplitude_ratio": "lips",
    "jitter_ratio": "lips",
    "fdd": "upper_face",
    "mtm": "upper_lip",
    "lag_ms": "upper_lip",
    "closure_rate": "upper_lip",
    "false_closure_rate": "upper_lip",
}


def definitions(regions: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    """What each column of a row means: metric, version, unit, aim and the hash of the vertex mask it was taken over."""
    out = {}
    for column, name in METRIC_OF_COLUMN.items():
        metric = metrics.METRICS[name]
        region = _REGION_OF_COLUMN.get(column)
        known = region is not None and region in regions
        out[column] = {
            "metric": name,
            "version": metric.version,
            "unit": metric.unit,
            "best": metric.best,
            "region": region if known else None,
            "mask": metrics.vertex_mask_hash(regions[str(region)]) if known else None,
        }
    return out
