"""The clock of the benchmarks: seconds that pass or, on a machine that is not idle, seconds of the processor."""

from __future__ import annotations

import os
import time

PROCESSOR = "S2F_RL_PROCESSOR_TIME"
"""Set in the environment: processor seconds of this process."""


def now() -> float:
    """Seconds since some moment."""
    return time.process_time() if os.environ.get(PROCESSOR) else time.perf_counter()
