"""Spoken text as a phone recogniser is taught on it: log-mel at 50 Hz and the phone of each frame."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import lfilter
from torch import Tensor

from s2f_rl.data.audio import SPEECH_RATE_HZ, normalise, resample
from s2f_rl.data.synthetic.phones import PHONES
from s2f_rl.data.synthetic.pretraining import Voices, say
from s2f_rl.data.synthetic.sentences import N_SHARED_POOL, SENTENCES
from s2f_rl.data.synthetic.speech import Speech, speak_in_turn
from s2f_rl.data.synthetic.voices import VOICES
from s2f_rl.models.recogniser import PhoneRecogniser
from s2f_rl.signs import Watch
from s2f_rl.threads import available_cores

_CLEAN = 0.5  # share of utterances without noise
_SNR_DB = (10.0, 40.0)
_THROAT = 1.12  # largest factor of all frequencies
_TILT = 0.6  # largest coefficient of a first-order filter


class Spoken(NamedTuple):
    """An utterance: bands [C, 2 * n_mels] float16, and phones [C] uint8, numbers in ``PHONES``."""

    bands: Tensor
    phones: Tensor


def heard(recogniser: PhoneRecogniser, speech: Speech, rng: np.random.Generator | None = None) -> Spoken:
    """What a recogniser hears of speech; with ``rng`` of another throat, and through a channel (:func:`worsened`).

    The throat: played up to 12% faster or slower, which moves pitch, formants and tempo.
    """
    rate_hz, phones = speech.rate_hz, speech.phones
    if rng is not None:
        rate_hz = round(rate_hz * _THROAT ** rng.uniform(-1, 1))
        slower = speech.rate_hz / rate_hz
        phones = [(name, start * slower, end * slower) for name, start, end in phones]
    samples = resample(speech.samples.astype(np.float32) / 2**15, rate_hz, SPEECH_RATE_HZ)
    if rng is not None:
        samples = worsened(samples, rng)
    with torch.no_grad():
        bands = recogniser.bands(torch.from_numpy(normalise(samples))[None])[0].half()
    return Spoken(bands, phone_numbers(phones, len(bands)))


def phone_numbers(phones: Sequence[tuple[str, float, float]], n_frames: int) -> Tensor:
    """The phone in the middle of each frame at 50 Hz, uint8 [n_frames]; the last one goes on."""
    middles = (320 * np.arange(n_frames) + 280) / SPEECH_RATE_HZ
    ends = np.array([end for _, _, end in phones])
    names = np.array([PHONES.index(name) for name, _, _ in phones], np.uint8)
    return torch.from_numpy(names[np.searchsorted(ends, middles, side="right").clip(max=len(names) - 1)])


def worsened(samples: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Speech with a spectral tilt and, half the time, noise of some colour, 10 to 40 dB below it."""
    samples = lfilter([1.0, rng.uniform(-_TILT, _TILT)], [1.0], samples)
    if rng.random() > _CLEAN:
        noise = lfilter([1.0], [1.0, rng.uniform(-0.95, 0.3)], rng.standard_normal(len(samples)))
        snr = 10 ** (rng.uniform(*_SNR_DB) / 20)
        samples = samples + noise * (np.std(samples) / (np.std(noise) * snr))
    return samples.astype(np.float32)


def speak_for(
    recogniser: PhoneRecogniser, voices: Voices, n_utterances: int, seed: int, progress: bool = False
) -> list[Spoken]:
    """Utterances of all voices, as many of each, through channels. The same seed gives the same.

    Raises UserError when espeak-ng is not installed.
    """
    names = voices.names
    shares = [n_utterances // len(names) + (k < n_utterances % len(names)) for k in range(len(names))]

    def of_voice(k: int) -> list[Spoken]:
        rng = np.random.default_rng([seed, k])
        return [heard(recogniser, speech, rng) for speech in say(voices, names[k], shares[k], rng)] if shares[k] else []

    found: list[Spoken] = []
    with (
        ThreadPoolExecutor(available_cores()) as pool,
        Watch("speak", n_utterances, "utterance", enabled=progress) as bar,
    ):
        for each in pool.map(of_voice, range(len(names))):
            found += each
            bar.update(len(each))
    return found


def unheard(recogniser: PhoneRecogniser) -> list[Spoken]:
    """What no recogniser is taught: texts kept from training, by the last 16 built-in voices; four each, no channel."""
    texts = SENTENCES[N_SHARED_POOL:]
    return [
        heard(recogniser, speech)
        for k, voice in enumerate(VOICES[-16:])
        for speech in speak_in_turn([(texts[(2 * k + n) % len(texts)], voice) for n in range(4)])
    ]


class SpokenBatches:
    """Pieces of utterances: ``draw(rng) -> (bands [B, L, 2 * n_mels] float32, phones [B, L] int64)``.

    An utterance of fewer than L frames is followed by another one's beginning.
    """

    def __init__(self, spoken: Sequence[Spoken], batch_size: int, n_frames: int) -> None:
        self.bands = torch.cat([each.bands for each in spoken])
        self.phones = torch.cat([each.phones for each in spoken])
        self.batch_size, self.n_frames = batch_size, n_frames

    def draw(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Pieces that begin anywhere."""
        first = torch.randint(len(self.phones) - self.n_frames + 1, (self.batch_size, 1), generator=rng)
        rows = first + torch.arange(self.n_frames)
        return self.bands[rows].float(), self.phones[rows].long()
