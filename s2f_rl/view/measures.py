"""What is measured in every frame of what is shown: lips, distances, scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from s2f_rl.data.audio import resample
from s2f_rl.data.clock import Clock
from s2f_rl.data.mel import mel_clips
from s2f_rl.keys import SCORE_MASK
from s2f_rl.render.curves import lip_openings
from s2f_rl.rewards.model.sequence_scorer import SequenceScorer

_AT_ONCE = 256
_MM = 1000.0


@dataclass(frozen=True)
class Measured:
    """One measure by frame: ``values`` has [T] of every sequence, NaN where there is none; None where it says nothing.

    ``unit`` may be empty.
    """

    title: str
    unit: str
    values: Sequence[np.ndarray | None]


def face_measures(sequences: Sequence[np.ndarray], first: str, regions: Mapping[str, npt.ArrayLike]) -> list[Measured]:
    """Lip opening, where ``regions`` has ``upper_lip`` and ``lower_lip``, and distance to the first sequence, both mm.

    Args:
        sequences: each [T, V, 3] of one V, metres.
        first: what the first sequence is called.
        regions: vertex indices by name; the distance is that of the ``lips``, else of the whole face, on average.
    """
    found = []
    if "upper_lip" in regions and "lower_lip" in regions:

        def opening(frames: np.ndarray, _: int) -> np.ndarray:
            return lip_openings([frames], regions)[0]

        found.append(Measured("Lip opening", "mm", [_by_part(sequence, opening) for sequence in sequences]))
    if len(sequences) > 1:
        index = np.asarray(regions["lips"], np.int64).reshape(-1) if "lips" in regions else slice(None)

        def distance(frames: np.ndarray, start: int) -> np.ndarray:
            true = np.asarray(sequences[0][start : start + len(frames)], np.float32)
            apart = np.linalg.norm(frames[: len(true), index] - true[:, index], axis=-1).mean(-1)
            return np.pad(_MM * apart, (0, len(frames) - len(true)), constant_values=np.nan)

        title = f"Distance to {first}, {'lips' if 'lips' in regions else 'whole face'}"
        found.append(Measured(title, "mm", [None, *(_by_part(sequence, distance) for sequence in sequences[1:])]))
    return found


@torch.no_grad()
def score_measures(
    sequences: Sequence[np.ndarray], scorer: SequenceScorer, kind: str, waveform: np.ndarray, rate: int, clock: Clock
) -> list[Measured]:
    """Scores of a reward or a judge in every frame: of the window that ends with it.

    Args:
        sequences: each [T, V, 3], metres, at the clock's rate.
        kind: what the scorer is called.
        waveform: their speech [N], -1..1, at ``rate`` Hz.

    Raises:
        UserError: sequences of another mesh than the scorer's.
    """
    clips = mel_clips(resample(waveform, rate, clock.mel_rate_hz))
    scores = []
    for sequence in sequences:
        frames = np.array(sequence[: len(sequence)], np.float32)
        found = scorer.score(frames.reshape(len(frames), -1), clips[: max(0, len(frames) - 4)])
        scored = found.pop(SCORE_MASK)
        scores.append({name: torch.where(scored, v, torch.nan).cpu().numpy() for name, v in found.items()})
    names = scores[0]
    return [Measured(f"{kind}: {name.removesuffix('_score')}", "", [s[name] for s in scores]) for name in names]


def _by_part(sequence: np.ndarray, measure: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
    """[T] measured some frames [n, V, 3] at a time, beginning at some frame."""
    starts = range(0, len(sequence), _AT_ONCE)
    return np.concatenate([measure(np.array(sequence[a : a + _AT_ONCE], np.float32), a) for a in starts])
