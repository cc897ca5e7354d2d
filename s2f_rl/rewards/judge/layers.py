"""Convolutions over time without padding: the two halves of the judge."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2f_rl.data.mel import CLIP_SHAPE, mel_filter_bank

LOCAL_FRAMES = 11
"""Frames that a local feature sees."""
WINDOW_FRAMES = 21
"""Frames that a window feature sees, and with it a score."""
_ROWS_PER_FRAME = 4
_FRAMES_PER_CLIP = CLIP_SHAPE[0] // _ROWS_PER_FRAME
_VELOCITY_SCALE, _ACCELERATION_SCALE = 3.0, 5.0
_BANDS = 30


class TimeBlock(nn.Module):
    """Residual dilated convolution over time: [B, T, C] -> [B, T - dilation * (taps - 1), C], no padding.

    Normalised over channels only, so that an output depends on nothing but the frames it sees.
    """

    def __init__(self, width: int, taps: int, dilation: int) -> None:
        super().__init__()
        self.taps, self.dilation = taps, dilation
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Linear(taps * width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        length = max(0, x.shape[1] - self.dilation * (self.taps - 1))
        normed = self.norm(x)
        starts = [tap * self.dilation for tap in range(self.taps)]
        seen = torch.cat([normed[:, start : start + length] for start in starts], dim=-1)
        change = self.out(F.gelu(self.mix(seen)))
        centre = self.dilation * (self.taps // 2)
        return x[:, centre : centre + length] + change


class MeshHalf(nn.Module):
    """Projected frames, their velocities and accelerations -> local and window features.

    Args:
        n_inputs: R, numbers per projected frame. width: W, channels.
    """

    def __init__(self, n_inputs: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(3 * n_inputs, width)
        self.near = nn.Sequential(*(TimeBlock(width, 3, dilation) for dilation in (1, 2, 1)))
        self.far = nn.Sequential(*(TimeBlock(width, 3, dilation) for dilation in (1, 3, 1)))
        self.local_norm, self.window_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, R] -> [B, T-10, W], [B, T-20, W]; T at least 21."""
        velocity = frames.diff(dim=1)
        parts = [frames[:, 2:], _VELOCITY_SCALE * velocity[:, 1:], _ACCELERATION_SCALE * velocity.diff(dim=1)]
        local = self.near(self.embed(torch.cat(parts, dim=-1)))
        return self.local_norm(local), self.window_norm(self.far(local))


class AudioHalf(nn.Module):
    """Log-mel frames -> local and window features, seeing the same frames as the mesh half. W channels."""

    live: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("live", live_bins(), persistent=False)
        self.embed = nn.Linear(_ROWS_PER_FRAME * _BANDS, width)
        self.near = nn.Sequential(*(TimeBlock(width, 3, dilation) for dilation in (1, 2, 2)))
        self.far = nn.Sequential(*(TimeBlock(width, 3, dilation) for dilation in (1, 3, 1)))
        self.local_norm, self.window_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, 4, 128] -> [B, T-10, W], [B, T-20, W]; T at least 21 (11 for the first alone)."""
        bands = frames[..., self.live].unflatten(-1, (_BANDS, -1)).mean(-1)
        local = self.near(self.embed(2 * bands.flatten(2)))
        return self.local_norm(local), self.window_norm(self.far(local))


def live_bins() -> Tensor:
    """[90] the mel filters that hold a bin; the others are constant (:func:`s2f_rl.data.mel.mel_filter_bank`)."""
    with torch.device("cpu"):  # a judge may be built on "meta", and the filters are kept for everybody
        return (mel_filter_bank().sum(1) > 0).nonzero().flatten()


def mel_frames(mel_clips: Tensor) -> Tensor:
    """Mel clips [..., n, 20, 128] of successive frames -> every frame's own four rows [..., n + 4, 4, 128].

    Clip i holds the frames i..i+4, so the first four rows of each and the rest of the last are all there is.
    """
    first = mel_clips[..., :_ROWS_PER_FRAME, :]
    last = mel_clips[..., -1, _ROWS_PER_FRAME:, :].unflatten(-2, (_FRAMES_PER_CLIP - 1, _ROWS_PER_FRAME))
    return torch.cat([first, last], dim=-3)
