"""Phone timings of an aligner, moved to where a phone recogniser hears those phones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from s2f_rl.data.audio import SPEECH_RATE_HZ, normalise, resample
from s2f_rl.data.contract import Phone
from s2f_rl.data.phone_classes import CLASSES, phone_class
from s2f_rl.data.synthetic.phones import PHONES
from s2f_rl.errors import UserError
from s2f_rl.models.recogniser_files import SHIPPED, load_recogniser

_HOP, _MIDDLE = 320, 280
"""Frame k of the recogniser is about sample 320 k + 280 at 16 kHz."""
_REACH_S = 0.5
"""A boundary moves by at most this."""
_DOUBT = 0.01
"""Added to every probability: a phone that is taken for another one keeps a place of its own."""
_LEAST_HEARD = 0.25


class Retimer:
    """Moves the boundaries between known phones to where they are most probable.

    The phones and their order stay those of the text, but for pauses, which may vanish. Dynamic programming over the
    recogniser's frames (20 ms) finds the boundaries, half a second away at most, that have the largest product of the
    probabilities of the phones.

    Args:
        recogniser: folder that ``recipes/listener.py`` wrote; default: the one that comes with the package.

    Raises:
        UserError: no such recogniser, or one of other phones.
    """

    def __init__(self, recogniser: str | Path = SHIPPED) -> None:
        self._recogniser = load_recogniser(recogniser)
        if self._recogniser.n_phones != len(PHONES):
            raise UserError(f"{recogniser}: tells {self._recogniser.n_phones} phones apart, not our {len(PHONES)}")
        self._classes = torch.zeros(len(PHONES), len(CLASSES))
        self._classes[torch.arange(len(PHONES)), torch.tensor([phone_class(name) for name in PHONES])] = 1.0

    @torch.no_grad()
    def __call__(self, waveform: np.ndarray, rate: int, phones: Sequence[Phone]) -> list[Phone] | None:
        """The same phones with other times, without gaps from 0 on to the last end; None: they were not heard there.

        Not heard means: a quarter of the probability, on average over speech, or less. Then the voice is too far from
        those that the recogniser knows, or the text is wrong.

        Args:
            waveform: float [N], -1..1, mono. rate: its sample rate, Hz.
            phones: (name, start, end), seconds, one after another.
        """
        sound = normalise(resample(np.asarray(waveform, dtype=np.float32), int(rate), SPEECH_RATE_HZ))
        logits = self._recogniser(self._recogniser.bands(torch.as_tensor(sound)[None]))[0]
        heard = (logits.softmax(-1) @ self._classes).double().numpy()
        numbers = [phone_class(name) for name, _, _ in phones]
        path = most_probable(np.log(heard + _DOUBT), phones)
        if path is None:
            return None
        spoken = [heard[frame, numbers[k]] for frame, k in enumerate(path) if numbers[k] != 0]
        if not spoken or float(np.mean(spoken)) <= _LEAST_HEARD:
            return None
        found: list[Phone] = []
        for frame, k in enumerate(path):
            if frame == 0:
                found.append((phones[k][0], phones[0][1], phones[-1][2]))
            elif k != path[frame - 1]:
                boundary = (_HOP * (frame - 0.5) + _MIDDLE) / SPEECH_RATE_HZ
                name, start, _ = found[-1]
                found[-1] = (name, start, boundary)
                found.append((phones[k][0], boundary, max(phones[-1][2], boundary)))
        return found


def most_probable(scores: np.ndarray, phones: Sequence[Phone]) -> list[int] | None:
    """Which phone each frame belongs to: the path with the largest sum of scores.

    It begins with the first phone and ends with the last one, in order, a frame or more for each; silences may be
    passed over. A frame's phone is one whose own time is at most half a second away.

    Args:
        scores: float64 [C, classes], logarithms. phones: (name, start, end), seconds.

    Returns:
        C indices of phones; None: there is no such path.
    """
    numbers = np.array([phone_class(name) for name, _, _ in phones], dtype=np.int64)
    if not len(numbers) or not len(scores):
        return None
    starts, ends = (np.array([phone[k] for phone in phones]) for k in (1, 2))
    silent = numbers == 0
    best = np.full(len(numbers) + 2, -np.inf)  # two in front, which are never reached
    best[1] = 0.0  # before the first phone
    came = []
    for frame in range(len(scores)):
        second = (_HOP * frame + _MIDDLE) / SPEECH_RATE_HZ
        first = int(np.searchsorted(ends, second - _REACH_S))
        last = int(np.searchsorted(starts, second + _REACH_S, side="right"))
        here = np.arange(first, last)
        over = np.where(silent[here - 1] & (here > 0), best[here], -np.inf)
        options = np.stack([best[here + 2], best[here + 1], over])  # the same phone, the next, the one after a pause
        choice = options.argmax(0)
        reached = np.full_like(best, -np.inf)
        reached[here + 2] = options[choice, np.arange(len(here))] + scores[frame, numbers[here]]
        best = reached
        came.append((first, choice.astype(np.int8)))
    at = len(numbers) - 1
    if at and silent[-1] and best[at + 1] > best[at + 2]:
        at -= 1
    if not np.isfinite(best[at + 2]):
        return None
    path = []
    for first, choice in reversed(came):
        path.append(at)
        at -= int(choice[at - first])
    return path[::-1]
