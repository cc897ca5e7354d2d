"""Error of coefficients in their own terms, for corpora without a mesh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from torch import Tensor

from s2f_rl.data.coefficients.rig import METRES_PER_COEFFICIENT
from s2f_rl.data.contract import SpokenUtterance
from s2f_rl.metrics.measures import Measure
from s2f_rl.metrics.registry import Metric

MEAN = "coefficient_error"


def coefficient_error(vertices: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error of each coefficient over time, [K, C], in its own unit.

    Args:
        vertices: motions [K, T, C*3] of the stand-in that a corpus without a mesh is animated on, of C coefficients
            (see :class:`~s2f_rl.data.coefficients.rig.Rig`). truth: the same.
    """
    return (vertices - truth)[..., ::3].abs().mean(-2) / METRES_PER_COEFFICIENT


def coefficient_measures(names: Sequence[str]) -> list[Measure]:
    """Columns ``coefficient_error``, the mean over all coefficients, and ``error_NAME`` of each."""

    def measured(
        which: int | None,
        vertices: Tensor,
        truth: Tensor,
        utterance: SpokenUtterance,
        regions: Mapping[str, Tensor],
        fps: float,
    ) -> Tensor:
        errors = coefficient_error(vertices, truth)
        return errors.mean(-1) if which is None else errors[:, which]

    metric = Metric(MEAN, coefficient_error, "1", "lower", "this project; mean absolute error")
    columns = {MEAN: None, **{f"error_{name}": k for k, name in enumerate(names)}}
    return [Measure(column, metric, partial(measured, k)) for column, k in columns.items()]
