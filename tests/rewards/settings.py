"""Settings of a small ClipSampler."""

from __future__ import annotations

from typing import Any

CLIPS: dict[str, Any] = {
    **{"n_stretches": 2, "n_windows": 2, "stretch_frames": 16, "min_spacing": 3, "n_corruptions": 3, "emphasis": {}},
    **{"on_base": 0.3, "identity_spread": 1.0, "scale_range": 1.1, "capture_noise_mm": 0.0},
}
