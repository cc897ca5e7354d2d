"""Predictions, measures and reports of a trained actor. TorchRL is not loaded.

Floor plan:

- a split, from checkpoint to report: ``evaluate`` over ``predict`` (motions in every style), ``motions`` (in which
  batches they are measured), ``scorer`` (:class:`Scorer`: rewards and judges of one motion), ``truth`` (distance to
  motions that could have been)
- of an actor that draws its motion: ``takes`` (several of one utterance, and what they are worth)
- its rows and figures: ``tables``, ``partial_rows`` (kept when a command is stopped), ``summary``, ``intervals``
- a command each: ``animate`` with ``coefficients`` (of a rig), and ``score`` with ``speech`` (sound files in place of a
  corpus)

Not here: the measures themselves (:mod:`s2f_rl.metrics`), how far a reward can be trusted
(:mod:`s2f_rl.rewards.calibration`), films (:mod:`s2f_rl.render`), tables of a whole benchmark
(``benchmarks/``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from s2f_rl import moved
from s2f_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from s2f_rl.evaluation.evaluate import (
        evaluate_actor,
        evaluate_checkpoint,
        evaluate_truth,
        measure_motions,
        write_report,
    )
    from s2f_rl.evaluation.intervals import bootstrap_intervals
    from s2f_rl.evaluation.predict import predict_corpus
    from s2f_rl.evaluation.scorer import Scorer
    from s2f_rl.evaluation.summary import counts, summaries, summarise
    from s2f_rl.evaluation.tables import long_rows, write_rows
    from s2f_rl.evaluation.truth import TrueDistances, true_distances
    from s2f_rl.metrics.measures import motion_measures

_HOMES = {
    "Scorer": "scorer",
    "TrueDistances": "truth",
    "bootstrap_intervals": "intervals",
    "counts": "summary",
    "evaluate_actor": "evaluate",
    "evaluate_checkpoint": "evaluate",
    "evaluate_truth": "evaluate",
    "long_rows": "tables",
    "measure_motions": "evaluate",
    "motion_measures": "evaluate",
    "predict_corpus": "predict",
    "summaries": "summary",
    "summarise": "summary",
    "true_distances": "truth",
    "write_report": "evaluate",
    "write_rows": "tables",
}
__all__ = [
    "Scorer",
    "TrueDistances",
    "bootstrap_intervals",
    "counts",
    "evaluate_actor",
    "evaluate_checkpoint",
    "evaluate_truth",
    "long_rows",
    "measure_motions",
    "motion_measures",
    "predict_corpus",
    "summaries",
    "summarise",
    "true_distances",
    "write_report",
    "write_rows",
]
moved.install()
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
