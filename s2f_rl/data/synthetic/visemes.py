"""What each phone asks of the articulators, and how firmly.

A phone is one gesture, or two for a diphthong. A gesture has a target for each speech articulator and a dominance
(Cohen and Massaro 1993): how strongly it wins over its neighbours. An alveolar hardly cares about the lips, a rounded
vowel insists on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from s2f_rl.data.synthetic.phones import PHONES
from s2f_rl.data.synthetic.rig import ARTICULATORS

Array = NDArray[np.float64]

SPEECH_ARTICULATORS = ARTICULATORS[:8]
"""jaw, spread, round, protrude, upper_raise, lower_depress, press, tuck"""

# targets: jaw, spread, round, protrude, upper_raise, lower_depress, press, tuck
_TARGETS: dict[str, tuple[float, ...]] = {
    "rest": (0.00, 0.00, 0.00, 0.00, 0.00, 0.00, 0.0, 0.0),
    "aa": (0.80, 0.10, 0.00, 0.05, 0.35, 0.40, 0.0, 0.0),
    "ae": (0.72, 0.50, 0.00, 0.00, 0.45, 0.45, 0.0, 0.0),
    "ah": (0.52, 0.10, 0.00, 0.00, 0.25, 0.30, 0.0, 0.0),
    "ao": (0.62, 0.00, 0.55, 0.55, 0.25, 0.25, 0.0, 0.0),
    "ax": (0.32, 0.10, 0.00, 0.00, 0.15, 0.20, 0.0, 0.0),
    "eh": (0.52, 0.50, 0.00, 0.00, 0.35, 0.40, 0.0, 0.0),
    "er": (0.30, 0.00, 0.45, 0.45, 0.25, 0.30, 0.0, 0.0),
    "ih": (0.30, 0.42, 0.00, 0.00, 0.30, 0.35, 0.0, 0.0),
    "iy": (0.20, 0.90, 0.00, 0.00, 0.35, 0.45, 0.0, 0.0),
    "uh": (0.28, 0.00, 0.65, 0.60, 0.20, 0.20, 0.0, 0.0),
    "uw": (0.16, 0.00, 1.05, 1.00, -0.08, 0.15, 0.0, 0.0),
    "w": (0.10, 0.00, 1.15, 1.10, -0.08, 0.05, 0.0, 0.0),
    "y": (0.14, 0.65, 0.00, 0.00, 0.25, 0.35, 0.0, 0.0),
    "r": (0.18, 0.00, 0.60, 0.65, 0.25, 0.30, 0.0, 0.0),
    "l": (0.30, 0.15, 0.00, 0.00, 0.20, 0.30, 0.0, 0.0),
    "bilabial": (0.12, 0.05, 0.00, 0.00, 0.00, 0.00, 0.6, 0.0),
    "labiodental": (0.10, 0.10, 0.00, 0.00, 0.45, 0.00, 0.0, 1.0),
    "dental": (0.22, 0.20, 0.00, 0.00, 0.25, 0.35, 0.0, 0.0),
    "alveolar": (0.14, 0.20, 0.00, 0.00, 0.20, 0.30, 0.0, 0.0),
    "sibilant": (0.04, 0.35, 0.00, 0.00, 0.35, 0.45, 0.0, 0.0),
    "postalveolar": (0.08, 0.00, 0.50, 0.85, 0.40, 0.45, 0.0, 0.0),
    "velar": (0.26, 0.15, 0.00, 0.00, 0.15, 0.20, 0.0, 0.0),
}
# dominance of the same articulators
_DOMINANCE: dict[str, tuple[float, ...]] = {
    "rest": (0.7, 0.5, 0.4, 0.4, 0.6, 0.6, 0.6, 0.6),
    "vowel": (1.0, 0.9, 0.8, 0.8, 0.9, 0.9, 0.6, 0.8),
    "rounded": (1.0, 0.8, 1.6, 1.6, 0.8, 0.8, 0.6, 0.8),
    "reduced": (0.6, 0.3, 0.3, 0.3, 0.4, 0.4, 0.4, 0.6),
    "bilabial": (0.9, 0.1, 0.05, 0.05, 0.5, 0.5, 2.5, 1.0),
    "labiodental": (1.6, 0.3, 0.3, 0.3, 2.0, 1.5, 1.0, 5.0),
    "tongue": (0.8, 0.25, 0.12, 0.12, 0.3, 0.35, 0.3, 0.6),
    "sibilant": (2.2, 0.45, 0.15, 0.15, 0.7, 0.9, 0.4, 0.8),
    "back": (0.3, 0.12, 0.08, 0.08, 0.12, 0.12, 0.2, 0.4),
}
_GESTURES: dict[str, tuple[tuple[str, str], ...]] = {
    "sil": (("rest", "rest"),),
    "aw": (("ae", "vowel"), ("uh", "rounded")),
    "ay": (("aa", "vowel"), ("ih", "vowel")),
    "ey": (("eh", "vowel"), ("iy", "vowel")),
    "ow": (("ao", "rounded"), ("uw", "rounded")),
    "oy": (("ao", "rounded"), ("ih", "vowel")),
    "el": (("l", "tongue"),),
    "r": (("r", "rounded"),),
    "y": (("y", "vowel"),),
    "l": (("l", "tongue"),),
    "ax": (("ax", "reduced"),),
    "hh": (("ax", "back"),),
    "q": (("ax", "back"),),
    **{p: ((p, "rounded"),) for p in ("ao", "er", "uh", "uw", "w")},
    **{p: ((p, "vowel"),) for p in ("aa", "ae", "ah", "eh", "ih", "iy")},
    **{p: (("bilabial", "bilabial"),) for p in ("m", "b", "p")},
    **{p: (("labiodental", "labiodental"),) for p in ("f", "v")},
    **{p: (("dental", "tongue"),) for p in ("th", "dh")},
    **{p: (("alveolar", "tongue"),) for p in ("t", "d", "n", "dx")},
    **{p: (("sibilant", "sibilant"),) for p in ("s", "z")},
    **{p: (("postalveolar", "rounded"),) for p in ("sh", "zh", "ch", "jh")},
    **{p: (("velar", "back"),) for p in ("k", "g", "ng")},
}


@dataclass(frozen=True)
class Gesture:
    """target and dominance [8] of the `SPEECH_ARTICULATORS`."""

    target: Array
    dominance: Array


@lru_cache(maxsize=1)
def gestures() -> dict[str, tuple[Gesture, ...]]:
    """The gestures of every phone; a diphthong has two, of equal length."""
    return {
        phone: tuple(Gesture(np.array(_TARGETS[t]), np.array(_DOMINANCE[d])) for t, d in _GESTURES[phone])
        for phone in PHONES
    }
