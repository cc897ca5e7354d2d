"""Speech in as it is recorded, frames of a face out as they are due."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from s2f_rl.data.audio import LARGEST_SAMPLE, SPEECH_RATE_HZ
from s2f_rl.data.sound_decoding import RATES_HZ
from s2f_rl.errors import UserError
from s2f_rl.models.latent_actor import LatentActor
from s2f_rl.models.latent_stream import LatentStream
from s2f_rl.models.time_norms import SoundStatistics
from s2f_rl.models.windowed_audio import Windows


class SpeechStream:
    """Frames of a face from speech that goes on arriving.

    Sound is heard in windows: every ``step_ms`` the frames of that step are handed out, after ``look_ahead_ms`` more of
    sound. So a frame is late by at most both together, and the time that a window takes; with a listener, whose
    recogniser hears .36 s behind a feature, by as much more. The frames do not depend on how the sound is cut up into
    blocks (resampled sound: but for rounding).

    Args:
        actor: a FaceFormer, or another :class:`~s2f_rl.models.latent_actor.LatentActor` whose encoder takes windows.
        template: [V*3] or [V, 3], metres.
        style: a style column, or weights [S].
        look_ahead_ms: sound that is heard behind the frames of a step.
        step_ms: frames that are made together.
        context_ms: sound that is heard again before the frames of a step.
        rate_hz: of the samples, 4 to 384 kHz.
        memory_s: motion that the decoder looks back on. None: as long as it has any weight; a frame then costs more and
            more in the first 68 minutes.
        statistics: what normalises the sound (:func:`~s2f_rl.models.windowed_audio.measure_sound`, ``raw=True``), such
            as of an earlier recording of the speaker with this microphone. None: of the sound so far, which is little
            in the first seconds.

    Raises:
        UserError: an actor that needs whole utterances, or a template, style or setting that cannot be used.

    Example:
        >>> stream = SpeechStream(actor, template, style=0)  # doctest: +SKIP
        >>> for samples in microphone:  # doctest: +SKIP
        ...     show(stream.push(samples))  # [n, V*3], often none
        >>> show(stream.finish())  # doctest: +SKIP
    """

    def __init__(
        self,
        actor: LatentActor,
        template: Tensor,
        style: Tensor | int,
        look_ahead_ms: float = 200.0,
        step_ms: float = 600.0,
        context_ms: float = 1000.0,
        rate_hz: int = SPEECH_RATE_HZ,
        memory_s: float | None = 60.0,
        statistics: SoundStatistics | None = None,
    ) -> None:
        if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
            raise UserError(f"rate_hz={rate_hz}: give {RATES_HZ[0]} to {RATES_HZ[1]} Hz")
        for name, ms in (("look_ahead_ms", look_ahead_ms), ("context_ms", context_ms)):
            if not 0 <= ms < math.inf:
                raise UserError(f"{name}={ms}: give 0 or more milliseconds")
        if not 0 < step_ms < math.inf:
            raise UserError(f"step_ms={step_ms}: give a step above 0 milliseconds")
        if memory_s is not None and not 0 < memory_s < math.inf:
            raise UserError(f"memory_s={memory_s}: give seconds above 0; None: as long as the past has any weight")
        if isinstance(style, int):
            if not 0 <= style < actor.n_styles:
                raise UserError(f"style={style}: the actor has style columns 0 to {actor.n_styles - 1}")
            style = torch.nn.functional.one_hot(torch.tensor(style), actor.n_styles)
        self.actor = actor
        parameter = next(actor.parameters())
        self._template = actor.flat(template.reshape(-1), "template").to(parameter)
        windows = Windows(step_ms / 1000, context_ms / 1000, look_ahead_ms / 1000)
        statistics = SoundStatistics(raw=True) if statistics is None else statistics
        self._latents = LatentStream(actor, style.to(parameter), windows, None, statistics, memory_s)
        self._resampler = None
        if rate_hz != SPEECH_RATE_HZ:
            import soxr

            self._resampler = soxr.ResampleStream(rate_hz, SPEECH_RATE_HZ, 1, "float32", "soxr_hq")

    def push(self, samples: npt.ArrayLike) -> Tensor:
        """Hear mono samples [n], in -1..1; returns the vertices [T, V*3], metres, that they complete, often none.

        Raises UserError where they are not one row of finite numbers, or beyond a million, and after the end.
        """
        block = np.asarray(samples)
        if block.ndim != 1 or not (np.abs(block) <= LARGEST_SAMPLE).all():
            raise UserError(f"samples of shape {list(block.shape)}: give one row of finite numbers, within -1 to 1")
        return self._hear(block.astype(np.float32), last=False)

    def finish(self) -> Tensor:
        """End the sound; returns the vertices [T, V*3] of the frames that are left. To be called once."""
        left = self._hear(np.zeros(0, np.float32), last=True)
        return torch.cat([left, self._decode(self._latents.finish())])

    def _hear(self, block: np.ndarray, last: bool) -> Tensor:
        if self._resampler is not None:
            block = self._resampler.resample_chunk(block, last=last)
            self._resampler = None if last else self._resampler
        return self._decode(self._latents.push(torch.from_numpy(block)))

    @torch.no_grad()
    def _decode(self, windows: list[Tensor]) -> Tensor:
        # window by window, so that no last bit hangs on how many came at once
        frames = [self.actor.decode(latents) + self._template for latents in windows]
        return torch.cat(frames) if frames else self._template.new_zeros(0, len(self._template))
