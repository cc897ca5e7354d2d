"""Keys of ``recipes/listener.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from s2f_rl.runs.schema import Count, NonNegative, Range, Size, key
from s2f_rl.schemas.reward import HeadOptimizer
from s2f_rl.schemas.shared import OwnRun


@dataclass
class Recogniser:
    """``recogniser``."""

    width: Size = key("channels")
    n_layers: Annotated[int, Range(1, 64)] = key("residual convolutions")
    n_mels: Annotated[int, Range(1, 257)] = key("mel bands")


@dataclass
class Measuring:
    """``evaluation``."""

    every: Count = key("iterations between evaluations, a checkpoint at each; the last is always one")


@dataclass
class ListenerRun(OwnRun):
    """``listener``."""

    utterances: Annotated[int, Range(1, 10**6)] = key("of all voices together")
    invented_voices: Annotated[int, Range(0, 200, note="espeak-ng knows 350 voices at most")] = key(
        "beside those that come with espeak-ng"
    )
    iterations: Count = key("updates")
    batch_size: Size = key("pieces of utterances")
    batch_frames: Annotated[int, Range(11, 10**4, note="the neighbours are 10 frames away")] = key("of a piece, 50 Hz")
    neighbours: NonNegative = key("weight of telling the phones 100 and 200 ms away as well")
    recogniser: Recogniser = key("sizes")
    optimizer: HeadOptimizer = key("AdamW")
    evaluation: Measuring = key("on voices and texts that are not heard in training")
