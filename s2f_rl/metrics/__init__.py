"""Measures of a talking face: pure functions of arrays or tensors, metres in, float64 tensors out.

Meshes are [.., T, V*3] or [.., T, V, 3]; a result has the batch shape of its sequences (a scalar for one). Too short
a sequence gives nan, shapes that do not fit raise :class:`s2f_rl.errors.UserError`.

Floor plan: one file per measure, or family of measures:

- near the truth: ``error``, ``dynamics``, ``misalignment``, ``lag``, ``amplitude``, ``jitter``, ``closure``, and
  ``plausibility``: the nearest motion that could have been (``_nearest`` searches for it among ``_takes``)
- without it: ``intensity``, ``correlation``, ``diversity``, ``coverage`` (of true motions by samples),
  ``readability``
- ``coefficients``: of a rig without a mesh, in their own terms
- ``measures``: all of one motion as a row, and how to add one of your own
- what they need: ``lips`` (opening), ``warping`` (of two curves), ``_meshes`` (arguments); ``registry``
  (:data:`METRICS`) lists each with version, unit, aim and source, and a new one goes there

Not here: measures of a whole split and their tables (:mod:`s2f_rl.evaluation`), learnt scores (:mod:`s2f_rl.rewards`).
"""

from s2f_rl.metrics.amplitude import STILL_M, amplitude_ratio, motion_amplitude
from s2f_rl.metrics.closure import (
    bilabial_frames,
    closure_rate,
    closure_threshold,
    false_closure_rate,
    is_bilabial,
)
from s2f_rl.metrics.correlation import (
    correlated_sequences,
    speech_intensity,
    speech_lip_correlation,
    speech_lip_correlation_within,
)
from s2f_rl.metrics.coverage import density_and_coverage, motion_distances
from s2f_rl.metrics.diversity import diversity
from s2f_rl.metrics.dynamics import upper_face_dynamics_deviation
from s2f_rl.metrics.error import (
    lip_vertex_error,
    lip_vertex_error_per_frame,
    max_vertex_error,
    max_vertex_error_per_frame,
)
from s2f_rl.metrics.intensity import lip_intensity
from s2f_rl.metrics.jitter import jitter_ratio, rms_jerk
from s2f_rl.metrics.lag import lag_ms
from s2f_rl.metrics.lips import lip_distance, rest_lip_distance
from s2f_rl.metrics.misalignment import mean_temporal_misalignment
from s2f_rl.metrics.plausibility import PlausibleTake, TakeMeter, true_distance
from s2f_rl.metrics.readability import lip_readability_per_clip, perceptual_lip_readability
from s2f_rl.metrics.registry import METRICS, Metric, vertex_mask_hash

__all__ = [
    "METRICS",
    "STILL_M",
    "Metric",
    "PlausibleTake",
    "TakeMeter",
    "amplitude_ratio",
    "bilabial_frames",
    "closure_rate",
    "closure_threshold",
    "correlated_sequences",
    "density_and_coverage",
    "diversity",
    "false_closure_rate",
    "is_bilabial",
    "jitter_ratio",
    "lag_ms",
    "lip_distance",
    "lip_intensity",
    "lip_readability_per_clip",
    "lip_vertex_error",
    "lip_vertex_error_per_frame",
    "max_vertex_error",
    "max_vertex_error_per_frame",
    "mean_temporal_misalignment",
    "motion_amplitude",
    "motion_distances",
    "perceptual_lip_readability",
    "rest_lip_distance",
    "rms_jerk",
    "speech_intensity",
    "speech_lip_correlation",
    "speech_lip_correlation_within",
    "true_distance",
    "upper_face_dynamics_deviation",
    "vertex_mask_hash",
]
