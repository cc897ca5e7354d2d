"""Plumbing that every recipe shares: opening parts, optimizers, batches, statistics, validation. No hidden loop.

Floor plan:

- opening: ``setup`` (corpora, the actor to start from), ``parts`` (all of an RL run), which ``build_policy`` (policy,
  critic), ``build_reward`` and ``build_terms`` (supervised term, KL, constraint) build
- during a run: ``parallel`` (where it collects), ``run`` (folder, resume, rows, checkpoints around the loop),
  ``reward_signal`` and its ``placebo``, ``constraint``, ``replay``
- updates: ``optimizers`` (Adam, rates, moments carried over), ``divergence`` (skips what is not finite)
- what a phone recogniser is taught on: ``spoken``; what a codebook of motion is: ``codes``
- looking on: ``statistics`` (of a batch), ``validation`` (of the actor, choice of the best checkpoint)

Not here: the loops (``recipes/``), losses (:mod:`s2f_rl.losses`), run folders and loggers (:mod:`s2f_rl.runs`).
"""

from s2f_rl.training.constraint import LipErrorConstraint
from s2f_rl.training.divergence import StepGuard, clip_gradients
from s2f_rl.training.optimizers import (
    cosine_decay,
    gradient_step,
    load_moments,
    make_optimizer,
    named_moments,
)
from s2f_rl.training.parallel import WorkerCollector, WorkerLost, make_collector
from s2f_rl.training.parts import RLParts, lane_minibatches, prepare_rl
from s2f_rl.training.replay import UtteranceBuffer
from s2f_rl.training.reward_signal import RewardSignal
from s2f_rl.training.run import RLRun
from s2f_rl.training.setup import (
    Start,
    actor_entry,
    actor_moments,
    frozen_encoder,
    load_start,
    open_corpora,
    plain,
)
from s2f_rl.training.statistics import AmplitudeReference, batch_statistics, mean_of, over_ranks
from s2f_rl.training.validation import Validation

__all__ = [
    "AmplitudeReference",
    "LipErrorConstraint",
    "RLParts",
    "RLRun",
    "RewardSignal",
    "Start",
    "StepGuard",
    "UtteranceBuffer",
    "Validation",
    "WorkerCollector",
    "WorkerLost",
    "actor_entry",
    "actor_moments",
    "batch_statistics",
    "clip_gradients",
    "cosine_decay",
    "frozen_encoder",
    "gradient_step",
    "lane_minibatches",
    "load_moments",
    "load_start",
    "make_collector",
    "make_optimizer",
    "mean_of",
    "named_moments",
    "open_corpora",
    "over_ranks",
    "plain",
    "prepare_rl",
]
