"""The clock of a corpus: its frame rate, and which piece of sound belongs to which frame."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from s2f_rl.data.audio import SPEECH_RATE_HZ, conv_frames
from s2f_rl.errors import UserError

LOWEST_FPS, HIGHEST_FPS = 10.0, 120.0
CONV_RATE_HZ = 50
"""Rate of the speech encoders' features before they are brought to the frames."""
_CONV_HOP, _CONV_WINDOW = 320, 400  # samples at 16 kHz, see conv_frames
_REFERENCE_FPS = 30
_SAME = 1e-5  # 29.97 and 30000/1001 are one rate
_ALIKE = 2e-3


@dataclass(frozen=True)
class Clock:
    """Frames per second of the motion, and audio features per frame.

    Frame t shows the face at t / fps seconds; its mel clip begins at the same instant.

    Attributes:
        fps: frames per second, 10 to 120.
        features_per_frame: A, features of the speech encoder for each frame (1 VOCASET, 2 BIWI).

    Raises:
        UserError: a rate outside 10 to 120, or no whole number of features from 1 to 8.
    """

    fps: float
    features_per_frame: int = 1

    def __post_init__(self) -> None:
        if not LOWEST_FPS <= self.fps <= HIGHEST_FPS:
            raise UserError(
                f"fps={self.fps}: a face is animated at {LOWEST_FPS:g} to {HIGHEST_FPS:g} frames per second; use every "
                "n-th frame (frame_step in corpus.json) or resample the motion"
            )
        if self.features_per_frame not in range(1, 9):
            raise UserError(f"audio_features_per_frame={self.features_per_frame}: must be a whole number from 1 to 8")

    @property
    def mel_rate_hz(self) -> int:
        """Rate at which sound is resampled for mel clips: 640 samples per frame."""
        return round(640 * self.fps)

    @property
    def whole_features(self) -> bool:
        """Whether features are handed out as they are, ``features_per_frame`` at a time (BIWI: 2 at 25 fps)."""
        return self.fps * self.features_per_frame == CONV_RATE_HZ

    @property
    def stretches(self) -> bool:
        """Whether features are stretched over the frames as FaceFormer does for VOCASET: one per frame at 30 fps."""
        return self.fps == _REFERENCE_FPS and self.features_per_frame == 1

    def frames_of_features(self, n_conv: int) -> int:
        """Frames that ``n_conv`` features at 50 Hz naturally make.

        Truncated in double precision exactly as FaceFormer does it (at 30 fps 205 features make 122 frames, not 123);
        an odd last feature of BIWI is dropped.
        """
        return n_conv // self.features_per_frame if self.whole_features else int(n_conv / CONV_RATE_HZ * self.fps)

    def natural_frames(self, n_samples: int) -> int:
        """Frames that ``n_samples`` of 16 kHz speech naturally make."""
        return self.frames_of_features(conv_frames(n_samples))

    def feature_positions(self, n_conv: int, n_frames: int) -> np.ndarray:
        """Where the features of the frames lie on the 50 Hz grid: float64 [n_frames * A], each 0 to n_conv - 1.

        Feature k hears the samples 320 k to 320 k + 400, so it stands for their middle. Frames beyond the sound hear
        its last feature. Not used where :attr:`stretches` or :attr:`whole_features`.
        """
        seconds = np.arange(n_frames * self.features_per_frame) / (self.fps * self.features_per_frame)
        return ((seconds * SPEECH_RATE_HZ - _CONV_WINDOW / 2) / _CONV_HOP).clip(0, max(n_conv - 1, 0))

    def difference(self, other: Clock) -> str | None:
        """How two clocks differ, for a message ("25 fps and 30 fps"); None when they are the same."""
        if not math.isclose(self.fps, other.fps, rel_tol=_SAME):
            return f"{self.fps:g} fps and {other.fps:g} fps"
        if self.features_per_frame != other.features_per_frame:
            return f"{self.features_per_frame} and {other.features_per_frame} audio features per frame"
        return None


PRESETS = {"vocaset": Clock(30, 1), "biwi": Clock(25, 2)}
"""Clocks of the published corpora, as FaceFormer uses them."""


def clock_of(preset: str, fps: float | None = None, features_per_frame: int | None = None) -> Clock:
    """The clock of a published corpus ("vocaset", "biwi"), with another rate or number of features where given."""
    if preset not in PRESETS:
        raise UserError(f"topology={preset!r} is unknown: use one of {', '.join(PRESETS)}")
    clock = PRESETS[preset]
    return replace(
        clock,
        fps=clock.fps if fps is None else fps,
        features_per_frame=clock.features_per_frame if features_per_frame is None else features_per_frame,
    )


def rates_alike(fps: float, other: float) -> bool:
    """Whether scores of 5-frame clips are the same at both rates: 29.97 and 30 are, 25 and 30 are not."""
    return math.isclose(fps, other, rel_tol=_ALIKE)
