"""Plumbing that every recipe shares: opening parts, optimizers, batches, statistics, validation. No hidden loop."""

from s2f_rl.training.optimizers import clip_gradients, cosine_decay, load_moments, make_optimizer, named_moments
from s2f_rl.training.reinforce import RLParts, lane_minibatches, prepare_rl
from s2f_rl.training.setup import Start, actor_entry, load_start, open_corpora, plain
from s2f_rl.training.statistics import batch_statistics, mean_of
from s2f_rl.training.validation import Validation

__all__ = [
    "RLParts",
    "Start",
    "Validation",
    "actor_entry",
    "batch_statistics",
    "clip_gradients",
    "cosine_decay",
    "lane_minibatches",
    "load_moments",
    "load_start",
    "make_optimizer",
    "mean_of",
    "named_moments",
    "open_corpora",
    "plain",
    "prepare_rl",
]
