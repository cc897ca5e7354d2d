"""Frame rates that the files of a corpus tell by their lengths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from s2f_rl.errors import UserError

USUAL = (10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120)
"""Frames per second that cameras, programs and corpora count in."""
_NEAR, _AGREE = 0.08, 0.03
OTHER = 0.15
"""Share by which a recording is off before its rate is another one."""


def nearest_known(rate: float) -> int | None:
    """The usual frame rate within 8% of a measured one; None where there is none."""
    nearest = min(USUAL, key=lambda known: abs(np.log(rate / known)))
    return nearest if abs(rate / nearest - 1) < _NEAR else None


def refuse_other_rate(rates: Sequence[float], stored_fps: float, root: Path) -> None:
    """Refuse a corpus whose recordings all run at one rate that is not the stated one.

    Args:
        rates: stored frames per second of sound of some recordings; fewer than two tell nothing.
        stored_fps: as stated. root: the corpus folder.

    Raises:
        UserError: the recordings agree with each other within 3% and lie more than 15% off.
    """
    if len(rates) < 2 or max(rates) > (1 + _AGREE) * min(rates):
        return
    rate = float(np.median(rates))
    if abs(rate / stored_fps - 1) > OTHER:
        guess = nearest_known(rate) or f"{rate:.1f}"
        raise UserError(
            f"{root / 'corpus.json'}: stored_fps is {stored_fps:g}, but the vertex files hold {rate:.1f} frames for "
            f"each second of sound; state stored_fps {guess} (and frame_step), or resample the motion"
        )
