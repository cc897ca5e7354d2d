"""The motion that vertex MSE leads to: a linear least-squares prediction of motion from speech.

A generator that is trained with MSE predicts the mean motion for its speech. A reward that is to improve such a
generator must know what that looks like before one has been trained; this regressor shows it, in a second.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from s2f_rl.data.mel import CLIP_FRAMES
from s2f_rl.rewards.corruptions import smoothed
from s2f_rl.rewards.motion.subspace import MotionSubspace

_CLIP_OFFSETS = (-7, -2, 3)
_BANDS = 16


class SpeechRegressor:
    """Ridge regression of motion coefficients [K] on the 15 frames of mel around a frame.

    Args:
        motion: the subspace that is predicted.
        weight: [features + 1, K], the last row the intercept.
        smoothing_frames: the prediction is smoothed by this sigma, as a sequence model's would be smooth.
    """

    def __init__(self, motion: MotionSubspace, weight: Tensor, smoothing_frames: float = 1.0) -> None:
        self.motion = motion
        self.weight = weight
        self.smoothing_frames = smoothing_frames

    @classmethod
    def fit(
        cls,
        motion: MotionSubspace,
        examples: Iterable[tuple[Tensor, Tensor]],
        ridge: float = 1e-2,
        smoothing_frames: float = 1.0,
    ) -> SpeechRegressor:
        """Fit on pairs of displacement [T, V*3] and mel clips [n, 20, 128]; ``ridge`` is a weight per row of data."""
        gram: Tensor | None = None
        moment: Tensor | None = None
        n_rows = 0
        for displacement, mel_clips in examples:
            x = _features(mel_clips, len(displacement)).double()
            y = motion.coefficients(displacement).double()
            gram = x.T @ x if gram is None else gram + x.T @ x
            moment = x.T @ y if moment is None else moment + x.T @ y
            n_rows += len(x)
        assert gram is not None and moment is not None, "no examples"
        penalty = torch.full((len(gram),), ridge * n_rows, dtype=torch.float64)
        penalty[-1] = 1e-6
        weight = torch.linalg.solve(gram + torch.diag(penalty), moment)
        return cls(motion, weight.float(), smoothing_frames)

    def coefficients(self, mel_clips: Tensor, n_frames: int) -> Tensor:
        """Mel clips [n, 20, 128] -> motion coefficients [n_frames, K] for ``motion.decode``."""
        return smoothed(_features(mel_clips, n_frames) @ self.weight, self.smoothing_frames)

    def __call__(self, mel_clips: Tensor, n_frames: int) -> Tensor:
        """Mel clips [n, 20, 128] -> displacement [n_frames, V*3], metres."""
        return self.motion.decode(self.coefficients(mel_clips, n_frames))


def _features(mel_clips: Tensor, n_frames: int) -> Tensor:
    """Mel clips [n, 20, 128] -> [n_frames, features + 1]: 15 frames x 16 bands around each frame, and a one."""
    n_clips = len(mel_clips)
    if n_clips == 0:
        bands = mel_clips.new_zeros(1, CLIP_FRAMES * _BANDS)
    else:
        bands = mel_clips.reshape(n_clips, CLIP_FRAMES, 4, _BANDS, -1).mean((2, 4)).flatten(1)
    frame = torch.arange(n_frames)
    parts = [bands[(frame + offset).clamp(0, len(bands) - 1)] for offset in _CLIP_OFFSETS]
    return torch.cat([*parts, torch.ones(n_frames, 1)], dim=1)
