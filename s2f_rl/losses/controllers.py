"""Coefficients that follow a measurement: the weight of a KL term, of PPO's penalty, of a constraint.

Each is called for its value (so a loss can hold it as a weight), is told once per batch what was measured, and has a
state that a resumed run restores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from s2f_rl.errors import UserError


class _Coefficient:
    """A number with a state."""

    def __init__(self, value: float) -> None:
        self.value = float(value)

    def __call__(self) -> float:
        return self.value

    def state_dict(self) -> dict[str, float]:
        """The value."""
        return {"value": self.value}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore :meth:`state_dict`."""
        self.value = float(state["value"])


class AdaptiveKL(_Coefficient):
    """Weight of the KL to the frozen reference, steered towards a target (Ziegler et al., 2019, sec. 2.2).

    beta <- beta * (1 + gain * e), where e is (KL - target) / target, clipped to [-0.2, 0.2].

    Args:
        value: weight at the start, positive (a weight of 0 would stay 0).
        target: wanted KL, nats per frame.
        gain: of the proportional controller, per batch. At 1 the weight changes by a fifth at most: a factor of 400, as
            from 0.05 to what a strong reward needs, takes 33 batches; at the paper's 0.1 it takes 300.
        bounds: of the weight; a KL that stays on one side would take it to 0 or infinity.
    """

    def __init__(
        self, value: float, target: float, gain: float = 1.0, bounds: tuple[float, float] = (1e-8, 1e8)
    ) -> None:
        if not (value > 0 and target > 0 and gain > 0):
            raise UserError(f"kl.weight={value}, kl.target={target}, kl.gain={gain}: all must be positive; or kl=fixed")
        super().__init__(value)
        self.target, self.gain, self.bounds = float(target), float(gain), bounds

    def update(self, kl: float) -> float:
        """Take a batch's mean KL into account (one that is not finite is ignored); returns the new weight."""
        if math.isfinite(kl):
            error = min(max((kl - self.target) / self.target, -0.2), 0.2)
            self.value = min(max(self.value * (1 + self.gain * error), self.bounds[0]), self.bounds[1])
        return self.value


class PenaltyCoefficient(_Coefficient):
    """beta of PPO with a KL penalty: doubled or halved after a batch (Schulman et al., 2017, sec. 4).

    Args:
        value: beta at the start, positive.
        target: wanted KL of old and new policy, nats per frame; beta stays while the KL is within a factor of 1.5.
        bounds: of beta; without them a run of quiet batches would switch the penalty off for good.
    """

    def __init__(self, value: float, target: float, bounds: tuple[float, float] = (1e-4, 1e4)) -> None:
        if not (value > 0 and target > 0):
            raise UserError(f"penalty.beta={value}, penalty.target={target}: both must be positive")
        super().__init__(value)
        self.target, self.bounds = float(target), bounds

    def update(self, kl: float) -> float:
        """Take a batch's mean KL into account (one that is not finite is ignored); returns the new beta."""
        if math.isfinite(kl):
            factor = 2.0 if kl > 1.5 * self.target else 0.5 if kl < self.target / 1.5 else 1.0
            self.value = min(max(factor * self.value, self.bounds[0]), self.bounds[1])
        return self.value


class LagrangeMultiplier(_Coefficient):
    """Multiplier of a constraint ``measured <= limit``: projected dual ascent (Altman, 1999; Tessler et al., 2019).

    lambda <- clip(lambda + rate * (measured / limit - 1), 0, max_value).

    The dual step must be slow against the policy's: on a toy of this task a fast one made the run oscillate.

    Args:
        limit: what the measurement may reach, positive.
        rate: of the dual step, per batch.
        value: at the start. 1 leaves the term that it multiplies as it is.
        max_value: bound from above.
    """

    def __init__(self, limit: float, rate: float = 0.2, value: float = 1.0, max_value: float = 10.0) -> None:
        if not (limit > 0 and rate > 0 and 0 <= value <= max_value):
            raise UserError(
                f"constraint: limit {limit} and rate {rate} must be positive, and the multiplier {value} within 0 and "
                f"{max_value}"
            )
        super().__init__(value)
        self.limit, self.rate, self.max_value = float(limit), float(rate), float(max_value)

    def update(self, measured: float) -> float:
        """Take a batch's measurement into account (one that is not finite is ignored); returns the new multiplier."""
        if math.isfinite(measured):
            self.value = min(max(self.value + self.rate * (measured / self.limit - 1), 0.0), self.max_value)
        return self.value
