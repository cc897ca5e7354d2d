"""Import this before torch: OpenMP's threads then wait for each other asleep, after a moment, instead of spinning.

A thread that spins takes the time of the one that it waits for as soon as other processes run: a training iteration
then costs twice its CPU time and several times its wall time. The moment (some 20 microseconds) is enough where nothing
else runs. GNU's OpenMP, which torch uses on Linux, reads this when torch is loaded, so no later call can set it.

Recipes, benchmarks and the command do it; what the user's own environment says stays.
"""

from __future__ import annotations

import os

SPIN_COUNT = "1000"

if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
