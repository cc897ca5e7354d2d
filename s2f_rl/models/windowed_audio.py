"""Speech of any length through an audio encoder: window by window, each hearing some of the sound around it.

What an encoder makes of a frame hangs on all the sound it is given. Memory grows with that sound (wav2vec2-base: 13 MB
for each second), and sound that has yet to be spoken is not there. So frames are encoded in windows, each of which also
hears sound before and after its own frames. Everything else that spans a recording is kept exact: the moments of norms
over time (:mod:`s2f_rl.models.time_norms`), and where the frames lie on the features' grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from s2f_rl.data.audio import SPEECH_RATE_HZ, conv_frames
from s2f_rl.data.clock import CONV_RATE_HZ
from s2f_rl.errors import UserError
from s2f_rl.models.audio_encoders import AudioEncoder, evaluating
from s2f_rl.models.time_norms import SoundStatistics, listening, normed_by, norms_over_time

_HOP, _WINDOW = 320, 400  # samples, see conv_frames
_PIECE = 500  # features of the convolutions at once: 10 s


@dataclass(frozen=True)
class Windows:
    """How much sound is encoded together, in seconds.

    Attributes:
        step_s: frames that a window hands out.
        before_s, after_s: sound that it hears before and after these.
    """

    step_s: float
    before_s: float
    after_s: float

    def __post_init__(self) -> None:
        if not (self.step_s > 0 and self.before_s >= 0 and self.after_s >= 0):
            raise UserError(f"{self}: give a step above 0, and no negative times")

    @property
    def total_s(self) -> float:
        """Sound in a whole window."""
        return self.step_s + self.before_s + self.after_s


LONG = Windows(step_s=40.0, before_s=10.0, after_s=10.0)
"""For recordings: what fits into one such window is encoded at once."""


def takes_windows(encoder: AudioEncoder) -> bool:
    """Whether an encoder can be given a recording in pieces: its ``windowed`` says so, and it has one norm at most."""
    return encoder.windowed and len(norms_over_time(encoder)) <= 1


def encode_long(encoder: AudioEncoder, waveform: Tensor, n_frames: int | None = None) -> Tensor:
    """``encoder(waveform, n_frames)``, in windows (:data:`LONG`) where the sound is longer than one.

    Never in windows: with a gradient or in training mode, for a stated number of frames, and by an encoder that takes
    none.

    Args:
        encoder: any audio encoder.
        waveform: [B, N] at 16 kHz, zero mean and unit variance, none padded.

    Returns:
        features [B, T*A, D].
    """
    short = waveform.shape[-1] <= LONG.total_s * SPEECH_RATE_HZ
    if short or torch.is_grad_enabled() or encoder.training or n_frames is not None or not takes_windows(encoder):
        return encoder(waveform, n_frames)
    rows = [torch.cat(list(encode_in_windows(encoder, row, LONG))).flatten(0, 1) for row in waveform]
    return torch.stack(rows) if len(rows) > 1 else rows[0][None]


def encode_in_windows(encoder: AudioEncoder, waveform: Tensor, windows: Windows) -> Iterator[Tensor]:
    """Features [n, A, D] of a whole recording [N] (16 kHz, zero mean, unit variance), window by window."""
    stream = WindowedEncoder(encoder, windows, len(waveform), measure_sound(encoder, waveform))
    for samples in waveform.split(_PIECE * _HOP):
        yield from stream.push(samples)
    yield from stream.finish()


@torch.no_grad()
def measure_sound(encoder: AudioEncoder, waveform: Tensor, raw: bool = False) -> SoundStatistics:
    """Statistics of a whole recording [N] at 16 kHz, piece by piece; fixed.

    Args:
        raw: it is as recorded; else it already has zero mean and unit variance.
    """
    statistics, n_conv = SoundStatistics(raw), conv_frames(len(waveform))
    parameter = next(encoder.parameters())
    if raw:
        for part in waveform.split(_PIECE * _HOP):
            statistics.waveform.add(part[None].to(parameter))
    statistics.fixed = True
    if norms_over_time(encoder):
        for begin in range(0, n_conv, _PIECE):
            samples, n_own = _piece(waveform, 0, begin, min(begin + _PIECE, n_conv), n_conv)
            samples = statistics.normalise(samples.to(parameter), len(samples))
            with evaluating(encoder), listening(encoder, statistics, len(samples), n_own):
                encoder.local_features(samples[None])
    return statistics


class WindowedEncoder:
    """Sound in, features out as soon as their windows are complete; the same however the sound is cut up.

    Args:
        encoder: used in evaluation mode and without gradient.
        windows: how much is encoded together.
        n_samples: of the whole recording at 16 kHz, if known. At 30 fps frames are stretched over the features of the
            whole recording (:func:`~s2f_rl.models.audio_encoders.resample_to_frames`); without an end in sight frame t
            lies at feature 5/3 t, which is up to 40 ms earlier at the recording's end.
        statistics: what normalises the sound; not fixed ones learn from every piece.

    Raises:
        UserError: an encoder that takes no windows.
    """

    def __init__(
        self,
        encoder: AudioEncoder,
        windows: Windows,
        n_samples: int | None = None,
        statistics: SoundStatistics | None = None,
    ) -> None:
        if not takes_windows(encoder):
            raise UserError(f"an audio encoder of kind {encoder.kind} cannot be given sound in pieces")
        self.encoder, self.n_samples = encoder, n_samples
        self.statistics = SoundStatistics() if statistics is None else statistics
        fps = encoder.clock.fps
        self.step, self.before, self.after = (
            round(seconds * fps) for seconds in (windows.step_s, windows.before_s, windows.after_s)
        )
        self.step = max(1, self.step)
        self._parameter = next(encoder.parameters())
        self._samples = self._parameter.new_zeros(0)  # from feature _heard on
        self._local: Tensor | None = None  # the last before feature _heard, not widened
        self._features: Tensor | None = None  # the last before feature _convolved
        self._heard = self._convolved = self._n_samples = self._frame = 0
        self._ended = False

    def push(self, samples: Tensor) -> list[Tensor]:
        """Hear samples [n] at 16 kHz; returns the features [n, A, D] of each window that they complete.

        Raises UserError after the end.
        """
        if self._ended:
            raise UserError("the sound has ended; begin a new stream")
        self._samples = torch.cat([self._samples, samples.to(self._parameter)])
        self._n_samples += len(samples)
        return list(self._complete())

    def finish(self) -> list[Tensor]:
        """End the sound: the features of the windows that are left.

        Raises UserError where the sound has another length than was stated.
        """
        if self.n_samples not in (None, self._n_samples):
            raise UserError(f"the sound has {self._n_samples} samples at 16 kHz, {self.n_samples} were stated")
        self._ended = True
        return list(self._complete())

    @torch.no_grad()
    def _complete(self) -> Iterator[Tensor]:
        clock = self.encoder.clock
        n_conv = conv_frames(self._n_samples) - (not self._ended)  # the last one's mel windows end later
        n_frames = clock.frames_of_features(max(0, n_conv))
        while self._frame < n_frames:
            start, end = max(0, self._frame - self.before), self._frame + self.step
            until = end + self.after
            if self._ended:
                end, until = min(end, n_frames), min(until, n_frames)
            elif until > n_frames:
                return
            position = self._positions(start, until)
            n_needed = int(position[-1]) + 2  # it lies between two
            if self._ended:
                n_needed = min(n_needed, n_conv)
            elif n_needed + self.encoder.look_around > n_conv:
                return
            with evaluating(self.encoder):
                self._convolve(n_needed, n_conv)
                hidden = self.encoder.contextualise(self._at(position)[None])[0]
            yield hidden.unflatten(0, (-1, clock.features_per_frame))[self._frame - start : end - start]
            self._frame = end
            self._forget(max(0, end - self.before))

    def _positions(self, start: int, until: int) -> Tensor:
        """Where the features of frames lie on the 50 Hz grid, float64 [n * A]."""
        clock = self.encoder.clock
        first, last = start * clock.features_per_frame, until * clock.features_per_frame
        index = torch.arange(first, last, dtype=torch.float64)
        if clock.whole_features:
            return index
        if not clock.stretches:
            return torch.from_numpy(clock.feature_positions(2**62, until)[first:])
        if self.n_samples is None:
            return index * (CONV_RATE_HZ / clock.fps)
        n_conv = conv_frames(self.n_samples)
        return index * ((n_conv - 1) / max(1, clock.frames_of_features(n_conv) - 1))

    def _convolve(self, n_needed: int, n_conv: int) -> None:
        """Make the features up to ``n_needed``, of sound that has ``n_conv``."""
        if self._convolved >= n_needed:
            return
        around = self.encoder.look_around
        self._hear(min(n_needed + around, n_conv), n_conv)
        local = self._local
        assert local is not None
        first = self._heard - len(local)
        new = self.encoder.widened(local[None])[0, self._convolved - first : n_needed - first]
        self._features = new if self._features is None else torch.cat([self._features, new])
        self._local = local[max(0, n_needed - around - first) :]
        self._convolved = n_needed

    def _hear(self, n_needed: int, n_conv: int) -> None:
        while self._heard < n_needed:
            begin, end = self._heard, min(self._heard + _PIECE, n_needed)
            samples, n_own = _piece(self._samples, begin, begin, end, n_conv + (not self._ended))
            samples = self.statistics.normalise(samples, len(samples) if n_own is None else n_own * _HOP)
            with normed_by(self.encoder, self.statistics, len(samples), n_own):
                new = self.encoder.local_features(samples[None])[0, : end - begin]
            self._local = new if self._local is None else torch.cat([self._local, new])
            self._samples = self._samples[(end - begin) * _HOP :]
            self._heard = end

    def _at(self, position: Tensor) -> Tensor:
        """Features at positions, interpolated: [n, D0]."""
        features = self._features
        assert features is not None
        first = self._convolved - len(features)
        before = position.floor().long().clamp_max(self._convolved - 1)
        share = (position - before).clamp_max(1.0).to(features)[:, None]
        before = (before - first).to(features.device)
        return features[before].lerp(features[(before + 1).clamp_max(len(features) - 1)], share)

    def _forget(self, start: int) -> None:
        """Drop the features that lie before frame ``start``."""
        if self._features is not None:
            first = self._convolved - len(self._features)
            self._features = self._features[max(0, int(self._positions(start, start + 1)[0]) - first) :]


def _piece(samples: Tensor, offset: int, begin: int, end: int, n_conv: int) -> tuple[Tensor, int | None]:
    """Samples for the features ``begin`` to ``end`` of ``n_conv``, and how many of the features no later piece makes.

    ``samples`` start at feature ``offset``. A piece makes one feature more, whose neighbour then hears all it should;
    the last piece takes in whatever sound is left.
    """
    samples = samples[(begin - offset) * _HOP :]
    return (samples, None) if end == n_conv else (samples[: (end - begin) * _HOP + _WINDOW], end - begin)
