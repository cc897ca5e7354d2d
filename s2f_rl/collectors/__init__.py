"""Whole-utterance collection on TorchRL's collectors."""

from s2f_rl.collectors.ray import ray_utterance_collector
from s2f_rl.collectors.utterance import (
    UtteranceCollector,
    multi_utterance_collector,
    trim_to_longest,
    utterance_collector,
)

__all__ = [
    "UtteranceCollector",
    "multi_utterance_collector",
    "ray_utterance_collector",
    "trim_to_longest",
    "utterance_collector",
]
