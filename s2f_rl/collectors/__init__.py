"""Whole-utterance collection on TorchRL's collectors: batches [B, T], one utterance a row.

Floor plan: ``utterance`` collects in this process or in several, ``ray`` on a cluster (extra ``ray``).

Not here: the environment (:mod:`s2f_rl.envs`), a buffer of past batches (:mod:`s2f_rl.training`).
"""

from s2f_rl.collectors.ray import ray_utterance_collector
from s2f_rl.collectors.utterance import (
    ListeningCollector,
    UtteranceCollector,
    multi_utterance_collector,
    trim_to_longest,
    utterance_collector,
)

__all__ = [
    "ListeningCollector",
    "UtteranceCollector",
    "multi_utterance_collector",
    "ray_utterance_collector",
    "trim_to_longest",
    "utterance_collector",
]
