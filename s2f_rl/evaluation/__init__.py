"""Predictions, measures and reports of a trained actor."""

from s2f_rl.evaluation.evaluate import (
    evaluate_actor,
    evaluate_checkpoint,
    evaluate_truth,
    summaries,
    summarise,
    write_report,
    write_rows,
)
from s2f_rl.evaluation.measure import Scorer, motion_measures
from s2f_rl.evaluation.predict import predict_corpus

__all__ = [
    "Scorer",
    "evaluate_actor",
    "evaluate_checkpoint",
    "evaluate_truth",
    "motion_measures",
    "predict_corpus",
    "summaries",
    "summarise",
    "write_report",
    "write_rows",
]
