"""Predictions, measures and reports of a trained actor."""

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
