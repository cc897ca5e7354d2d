"""Speech to score against without a corpus: a folder of sound files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from s2f_rl.data import mel_clips
from s2f_rl.data.audio import SPEECH_RATE_HZ, read_wav, resample, resampled_length, wav_header
from s2f_rl.data.clock import Clock, clock_of
from s2f_rl.data.listing import list_sounds
from s2f_rl.errors import UserError


@dataclass(frozen=True)
class SoundFile:
    """One sound file: ``mel_clips`` [n, 20, 128] for motion on ``clock``."""

    path: Path
    clock: Clock

    @property
    def mel_clips(self) -> torch.Tensor:
        """Log-mel clips, made when asked for."""
        waveform, rate = read_wav(self.path)
        return mel_clips(resample(waveform, rate, self.clock.mel_rate_hz))


class WavFolder:
    """The sound files of a folder as a sequence of :class:`SoundFile`, as far as scoring needs a corpus.

    Args:
        folder: holds ``NAME.wav``, the suffix in any case.
        topology: published corpus whose clock the motion has: "vocaset" (30 fps) or "biwi" (25 fps).
        fps: frame rate of the motion where it is another, 10 to 120.

    Raises:
        UserError: no such folder, no sound file in it, or an impossible frame rate.
    """

    def __init__(self, folder: str | os.PathLike[str], topology: str | None = None, fps: float | None = None) -> None:
        self.root = Path(folder)
        if not self.root.is_dir():
            raise UserError(f"{self.root}: no such folder; give a folder of NAME.wav")
        self.clock = clock_of(topology or "vocaset", fps)
        self.fps = self.clock.fps
        self._wavs = list_sounds(self.root)
        self.names = list(self._wavs)
        if not self.names:
            raise UserError(f"{self.root}: holds no .wav file; give the folder with the speech")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> SoundFile:
        return SoundFile(self.wav(i), self.clock)

    def wav(self, i: int) -> Path:
        """The sound file of recording i."""
        return self._wavs[self.names[i]]

    def n_frames(self, i: int) -> int:
        """Frames that the speech naturally makes, from its header. Raises UserError when it is no readable sound."""
        samples = resampled_length(*wav_header(self.wav(i)), SPEECH_RATE_HZ)
        return self.clock.natural_frames(samples)
