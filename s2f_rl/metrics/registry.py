"""Every metric with its version, unit and source, so that each result row can say exactly what it holds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from s2f_rl.metrics._meshes import Indices, as_tensor
from s2f_rl.metrics.amplitude import amplitude_ratio
from s2f_rl.metrics.closure import closure_rate, false_closure_rate
from s2f_rl.metrics.correlation import speech_intensity, speech_lip_correlation, speech_lip_correlation_within
from s2f_rl.metrics.diversity import diversity
from s2f_rl.metrics.dynamics import upper_face_dynamics_deviation
from s2f_rl.metrics.error import lip_vertex_error, max_vertex_error
from s2f_rl.metrics.intensity import lip_intensity
from s2f_rl.metrics.jitter import jitter_ratio
from s2f_rl.metrics.lag import lag_ms
from s2f_rl.metrics.misalignment import mean_temporal_misalignment
from s2f_rl.metrics.plausibility import true_distance
from s2f_rl.metrics.readability import perceptual_lip_readability


@dataclass(frozen=True)
class Metric:
    """One metric. ``version`` rises whenever the same input would give another number; ``best`` is where to aim:
    ``lower``, ``higher``, ``zero`` or ``one`` (deviations to both sides are faults), or ``truth`` (compare with the
    same figure of the ground truth)."""

    name: str
    function: Callable
    unit: str
    best: Literal["lower", "higher", "zero", "one", "truth"]
    source: str
    version: int = 1


_ALL = (
    Metric("lip_vertex_error", lip_vertex_error, "m^2", "lower", "Richard et al., ICCV 2021; squared distance"),
    Metric("max_vertex_error", max_vertex_error, "m^2", "lower", "lip_vertex_error over all vertices"),
    Metric("upper_face_dynamics_deviation", upper_face_dynamics_deviation, "m^2", "zero", "Xing et al., CVPR 2023"),
    Metric(
        "mean_temporal_misalignment", mean_temporal_misalignment, "frames", "lower", "Chae-Yeon et al., CVPR 2025", 2
    ),
    Metric("perceptual_lip_readability", perceptual_lip_readability, "1", "higher", "Chae-Yeon et al., CVPR 2025"),
    Metric("lip_intensity", lip_intensity, "m/frame", "truth", "Chae-Yeon et al., CVPR 2025"),
    Metric("speech_intensity", speech_intensity, "1", "truth", "Chae-Yeon et al., CVPR 2025; RMS of the waveform"),
    Metric("speech_lip_correlation", speech_lip_correlation, "1", "truth", "Chae-Yeon et al., CVPR 2025 (SLCC)"),
    Metric("speech_lip_correlation_within", speech_lip_correlation_within, "1", "truth", "this project, after SLCC", 2),
    Metric("closure_rate", closure_rate, "1", "higher", "this project", 2),
    Metric("false_closure_rate", false_closure_rate, "1", "lower", "this project", 2),
    Metric("amplitude_ratio", amplitude_ratio, "1", "one", "this project", 2),
    Metric("jitter_ratio", jitter_ratio, "1", "one", "this project", 2),
    Metric("lag_ms", lag_ms, "ms", "zero", "this project", 2),
    Metric("diversity", diversity, "m", "truth", "Stan et al., 2023"),
    Metric("true_distance", true_distance, "m", "lower", "this project; built-in corpus only"),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
"""All metrics by name."""


def vertex_mask_hash(indices: Indices) -> str:
    """Twelve hex digits that name a vertex mask in a result row: SHA-256 of the sorted distinct indices.

    A boolean mask [V] and the list of its True indices have the same hash.
    """
    tensor = as_tensor(indices, "indices").cpu()
    if tensor.dtype == torch.bool:
        tensor = tensor.nonzero()
    text = ",".join(map(str, sorted(set(tensor.reshape(-1).tolist()))))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
