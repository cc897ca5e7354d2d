"""Ways to spoil a motion, each a small pure function with a strength in [0, 1]; strength 1 is fixed in units.

A reward is only as good as its negatives, so every axis has both sides. A corruption maps a displacement [T, V*3] to a
displacement [T, V*3]; strength 0 returns it unchanged. Random ones draw from ``context.generator`` only, and
draw the same for every strength, so a weak and a strong version differ by strength alone.

There is a module for each family (time, amplitude, smoothness, mouth, identity, noise); ``base`` is the register and
``tools`` what they share. Importing this package registers them all.
"""

from s2f_rl.rewards.corruptions import amplitude, identity, mouth, noise, smoothness, time
from s2f_rl.rewards.corruptions.base import (
    CORRUPTIONS,
    LIP,
    REAL,
    Corruption,
    CorruptionContext,
    chosen_corruptions,
    register,
)
from s2f_rl.rewards.corruptions.tools import at_positions, delayed, fitted, smoothed, stretched, subspace_noise

FAMILIES = {
    "time": time,
    "amplitude": amplitude,
    "smoothness": smoothness,
    "mouth": mouth,
    "identity": identity,
    "noise": noise,
}
"""The module of each family."""

__all__ = [
    "CORRUPTIONS",
    "FAMILIES",
    "LIP",
    "REAL",
    "Corruption",
    "CorruptionContext",
    "at_positions",
    "chosen_corruptions",
    "delayed",
    "fitted",
    "register",
    "smoothed",
    "stretched",
    "subspace_noise",
]
