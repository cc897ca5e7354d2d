"""Phones as a density reads them: features at video rate, and the mistakes of transcripts."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from s2f_rl.data.alignment import SILENCE
from s2f_rl.data.annotations import read_phones
from s2f_rl.data.contract import Corpus, Phone, SpokenUtterance, place_of
from s2f_rl.data.phone_classes import CLASSES, UNKNOWN, phone_class
from s2f_rl.errors import UserError

N_FEATURES = len(CLASSES) + 2
_SILENCE = phone_class(SILENCE)
_LONG_S = 0.1  # a usual phone


def phone_features(phones: Sequence[Phone], fps: float) -> Tensor:
    """What is said in each frame up to the end of the last phone, [T, 42 + 1], float32.

    Frame t is the instant t / fps. The first columns are the share that each class has of the time from half a frame
    before it to half a frame after, so that boundaries are known finer than frames; the last two are the place within
    the phone at that instant, -1 at its start to 1 at its end, and the logarithm of its length over 100 ms. A frame
    that no phone touches, as in timings that leave pauses out, is silence.

    Args:
        phones: (name, start, end), seconds. fps: frames per second.
    """
    n_frames = math.ceil(max((end for _, _, end in phones), default=0.0) * fps - 1e-6)
    features = torch.zeros(n_frames, N_FEATURES, dtype=torch.float64)
    time = torch.arange(n_frames, dtype=torch.float64) / fps
    half = 0.5 / fps
    for name, start, end in phones:
        if end <= start:
            continue
        shared = (time + half).clamp(max=end) - (time - half).clamp(min=start)
        features[:, phone_class(name)] += shared.clamp(min=0) * fps
        here = (time >= start) & (time < end)
        features[here, -2] = 2 * (time[here] - start) / (end - start) - 1
        features[here, -1] = math.log((end - start) / _LONG_S)
    features[features[:, :-2].sum(1) == 0, _SILENCE] = 1.0
    return features.float()


def with_mistakes(
    phones: Sequence[Phone], generator: torch.Generator, substituted: float = 0.0, boundary_noise_s: float = 0.0
) -> list[Phone]:
    """The same phones as a bad transcript or aligner would have them.

    Args:
        phones: (name, start, end), seconds, one after another.
        generator: of the draws.
        substituted: share of the phones, silence aside, that become another one, drawn evenly from ARPAbet.
        boundary_noise_s: standard deviation of what is added to each boundary between two phones, seconds. Their order
            stays: a boundary does not pass the one before it.
    """
    if not phones:
        return []
    others = CLASSES[1:-1]
    wrong = torch.rand(len(phones), generator=generator) < substituted
    drawn = torch.randint(len(others) - 1, (len(phones),), generator=generator).tolist()
    noise = (torch.randn(len(phones), generator=generator) * boundary_noise_s).tolist()
    found: list[Phone] = []
    begin = phones[0][1]
    for k, (name, _, end) in enumerate(phones):
        if bool(wrong[k]) and phone_class(name) != 0:
            name = [other for other in others if other != CLASSES[phone_class(name)]][drawn[k]]
        last = k == len(phones) - 1
        until = end if last else min(max(begin, end + noise[k]), phones[-1][2])
        found.append((name, begin, until))
        begin = until
    return found


class PhoneSource:
    """Where the phones of utterances come from: the corpus itself, or a folder that ``s2f-rl align --out`` wrote.

    Args:
        folder: of ``NAME.json``; None: what the corpus has.

    Raises:
        UserError: no such folder.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None and not self.folder.is_dir():
            raise UserError(f"{self.folder}: no such folder of phones; make it with `s2f-rl align CORPUS --out FOLDER`")

    def of(self, utterance: SpokenUtterance) -> list[Phone]:
        """The phones of an utterance; empty where they are not known."""
        if self.folder is None:
            return utterance.phones or []
        return read_phones(self.folder / f"{utterance.name}.json") or []

    def require(self, corpus: Corpus) -> None:
        """Raise UserError where no utterance of the corpus has phones, or most of them have names we do not know."""
        where, out = (place_of(corpus), "") if self.folder is None else (str(self.folder), f" --out {self.folder}")
        names = [name for i in range(len(corpus)) for name, _, _ in self.of(corpus[i])]
        if not names:
            raise UserError(
                f"{where}: no utterance has phone timings, which the articulation reward needs; make them with "
                f"`s2f-rl align {place_of(corpus)}{out}`"
            )
        unknown = [name for name in names if phone_class(name) == phone_class(UNKNOWN)]
        if 2 * len(unknown) > len(names):
            raise UserError(
                f"{where}: most of its phones have names that are not ARPAbet ({unknown[0][:20]!r}); write them as "
                f"`s2f-rl align {place_of(corpus)}{out} --overwrite` does"
            )
