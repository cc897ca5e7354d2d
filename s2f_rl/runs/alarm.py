"""An alarm for the three ways in which reinforcement learning ruins a face: it freezes, it shouts, it runs away."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import SupportsFloat

from s2f_rl.errors import UserError

logger = logging.getLogger(__name__)


class MotionStopped(UserError):
    """The alarm ended a run (``action="stop"``)."""


class MotionAlarm:
    """Watches the metrics of an iteration and speaks up when motion collapses or explodes.

    Watched keys, each only where the metrics have it; None switches a bound off:

    - ``amplitude_ratio``: lip motion of the policy over that of a reference (ground truth or the start). Below 0.5
      the mouth is freezing, above 2 it over-articulates: the hack by which pure policy gradient raised its own
      reward on a toy of this task had ratios of 2.1 to 3.1.
    - ``kl``: nats per frame to the policy the run started from (or to the previous one). With a healthy update
      it stays far below 1.
    - ``noise_mm``: RMS of the decoded exploration noise at the lips, millimetres. Below the range nothing is explored;
      above it the reward mostly sees jitter.
    - any other watched value that is NaN or infinite alarms at once, without patience.

    Args:
        amplitude_ratio: allowed range.
        kl: largest allowed value.
        noise_mm: allowed range.
        patience: iterations in a row that a bound must be broken before it counts.
        action: ``"warn"`` logs one line when a bound starts to be broken; ``"stop"`` raises :class:`MotionStopped`.

    Example:
        >>> alarm = MotionAlarm(patience=1)
        >>> alarm.check({"amplitude_ratio": 0.9, "kl": 0.02})
        []
        >>> alarm.check({"amplitude_ratio": 2.6})
        ['amplitude_ratio 2.6 is above 2.0: motion explodes']
    """

    def __init__(
        self,
        amplitude_ratio: tuple[float, float] | None = (0.5, 2.0),
        kl: float | None = 1.0,
        noise_mm: tuple[float, float] | None = (0.01, 2.0),
        patience: int = 3,
        action: str = "warn",
    ) -> None:
        if action not in ("warn", "stop"):
            raise UserError(f"alarm action={action}: use warn or stop")
        if patience < 1:
            raise UserError(f"alarm patience={patience}: must be at least 1")
        self.bounds: dict[str, tuple[float, float, str, str]] = {}
        if amplitude_ratio is not None:
            self.bounds["amplitude_ratio"] = (*amplitude_ratio, "motion collapses", "motion explodes")
        if kl is not None:
            self.bounds["kl"] = (-math.inf, kl, "", "the policy runs away from its start")
        if noise_mm is not None:
            self.bounds["noise_mm"] = (*noise_mm, "exploration has died", "exploration drowns the motion")
        self.patience = patience
        self.action = action
        self.broken = dict.fromkeys(self.bounds, 0)

    def check(self, metrics: Mapping[str, SupportsFloat | None]) -> list[str]:
        """Look at one iteration's metrics; returns the warnings that hold now, one line each.

        Raises:
            MotionStopped: a bound has been broken ``patience`` times in a row and ``action`` is ``"stop"``.
        """
        warnings = []
        for key, (low, high, below, above) in self.bounds.items():
            told = metrics.get(key)
            if told is None:
                continue
            value = float(told)
            if not math.isfinite(value):
                line, needed = f"{key} is {value}: the update has diverged", 1
            elif value < low:
                line, needed = f"{key} {value:.3g} is below {low}: {below}", self.patience
            elif value > high:
                line, needed = f"{key} {value:.3g} is above {high}: {above}", self.patience
            else:
                self.broken[key] = 0
                continue
            self.broken[key] += 1
            if self.broken[key] >= needed:
                warnings.append(line)
                if self.broken[key] == needed:
                    logger.warning("%s", line)
        if warnings and self.action == "stop":
            raise MotionStopped(
                f"stopped: {'; '.join(warnings)}. Lower the learning rate or the policy weight, or raise the "
                "supervised or KL weight; alarm.action=warn goes on regardless"
            )
        return warnings

    def state_dict(self) -> dict[str, int]:
        """How often in a row each bound is broken."""
        return dict(self.broken)

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore :meth:`state_dict`; bounds that are switched off now are left out."""
        self.broken.update({key: int(count) for key, count in state.items() if key in self.broken})
