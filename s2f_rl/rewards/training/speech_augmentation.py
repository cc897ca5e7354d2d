"""The same words over another microphone: so that the audio half does not key on the sound of a recording.

Eight training voices are few. Speed perturbation makes further ones (pitch, formants and rate together; see
``MotionBank``); gain, equaliser and noise, here, change the sound alone and work on the log-mel clips, at no cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from s2f_rl.data.mel import NATS_PER_UNIT

_FLOOR = -1.2775939  # value of an empty filter
_EQUALISER_POINTS = 6


@dataclass(frozen=True)
class SpeechAugmentation:
    """Random gain, equaliser and noise on normalised log-mel clips.

    Attributes:
        gain_db: standard deviation of the level. equaliser_db: of a smooth curve over frequency.
        noise_db: noise lies up to this far above the level of silence at the strongest, and is absent half of the time.
    """

    gain_db: float
    equaliser_db: float
    noise_db: float

    def __call__(self, mel: Tensor, generator: torch.Generator) -> Tensor:
        """Clips [N, 20, 128] -> clips of the same shape; each has its own draws, and empty filters stay empty."""
        n, n_rows, n_bins = mel.shape
        per_db = math.log(10.0) / 10.0 / NATS_PER_UNIT
        level = self.gain_db * torch.randn(n, 1, 1, generator=generator)
        curve = self.equaliser_db * torch.randn(n, 1, _EQUALISER_POINTS, generator=generator)
        curve = torch.nn.functional.interpolate(curve, size=n_bins, mode="linear", align_corners=True)
        heard = mel + per_db * (level + curve)
        # independent exponential power in every cell: what a periodogram of white noise looks like
        ripple = torch.rand(n, n_rows, n_bins, generator=generator).clamp(1e-6, 1 - 1e-6)
        quiet = mel.flatten(1).quantile(0.1, dim=1)[:, None, None].clamp_min(_FLOOR + 10 * per_db)
        loud = self.noise_db * (2 * torch.rand(n, 1, 1, generator=generator) - 1)
        noise = quiet + per_db * loud + (-(1 - ripple).log()).log() / NATS_PER_UNIT
        noisy = torch.logaddexp(heard * NATS_PER_UNIT, noise * NATS_PER_UNIT) / NATS_PER_UNIT
        heard = torch.where(loud > 0, noisy, heard).clamp_min(_FLOOR)
        return torch.where(mel <= _FLOOR + 1e-6, mel, heard)
