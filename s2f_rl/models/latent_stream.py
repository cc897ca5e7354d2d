"""Speech to latents as it arrives: windows of audio features, then the frame loop, which keeps its past."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from s2f_rl.data.audio import SPEECH_RATE_HZ
from s2f_rl.errors import UserError
from s2f_rl.models.contract import Actor
from s2f_rl.models.decoder import FrameSteps
from s2f_rl.models.latent_actor import LatentActor
from s2f_rl.models.time_norms import SoundStatistics
from s2f_rl.models.windowed_audio import WindowedEncoder, Windows, measure_sound, takes_windows
from s2f_rl.threads import one_thread


def can_stream(actor: Actor) -> bool:
    """Whether an actor makes its motion frame by frame, of sound in pieces: see :class:`LatentStream`."""
    return isinstance(actor, LatentActor) and takes_windows(actor.audio_encoder)


class LatentStream:
    """An actor's deterministic latents of one utterance, the same however the sound is cut up.

    Args:
        actor: a :class:`~s2f_rl.models.latent_actor.LatentActor`.
        style: [S].
        windows, n_samples, statistics: see :class:`~s2f_rl.models.windowed_audio.WindowedEncoder`.
        memory_s: seconds that the decoder looks back; None: as long as the past has any weight. An actor with a
            decoder of its own looks back as it likes.

    Raises:
        UserError: an actor that decodes whole utterances, or whose encoder takes no windows.
    """

    def __init__(
        self,
        actor: LatentActor,
        style: Tensor,
        windows: Windows,
        n_samples: int | None = None,
        statistics: SoundStatistics | None = None,
        memory_s: float | None = None,
    ) -> None:
        if not can_stream(actor):
            raise UserError(f"an actor of kind {actor.kind} needs whole utterances, so it cannot be streamed")
        self._audio = WindowedEncoder(actor.audio_encoder, windows, n_samples, statistics)
        self._actor = actor
        with torch.no_grad():
            self._steps = actor.decoder.steps(actor.checked_style(style[None]).to(actor.device))
        if memory_s is not None and isinstance(self._steps, FrameSteps):
            self._steps.cache.forget_after(round(memory_s * actor.fps))
        self._last: Tensor | None = None

    def push(self, samples: Tensor) -> list[Tensor]:
        """Hear samples [n] at 16 kHz; returns the latents [T, H] of each window that they complete, often none."""
        return [self._advance(features) for features in self._audio.push(samples)]

    def finish(self) -> list[Tensor]:
        """End the sound; returns the latents [T, H] of each window that is left."""
        return [self._advance(features) for features in self._audio.finish()]

    @torch.no_grad()
    def _advance(self, features: Tensor) -> Tensor:
        latents = []
        heard = self._steps.hear(features[None])
        with one_thread():
            for frame in heard.unbind(1):
                self._last = self._steps.advance(frame, self._last, None)
                latents.append(self._last)
        return torch.cat(latents)


def stream_latents(actor: LatentActor, waveform: Tensor, style: Tensor, windows: Windows) -> Iterator[Tensor]:
    """Latents [n, H] of a whole recording [N] (16 kHz, zero mean, unit variance), window by window; style [S].

    But for the windows, those of ``actor.generate(actor.encode(waveform))``.
    """
    stream = LatentStream(actor, style, windows, len(waveform), measure_sound(actor.audio_encoder, waveform))
    for samples in waveform.split(round(windows.step_s * SPEECH_RATE_HZ)):
        yield from stream.push(samples)
    yield from stream.finish()
