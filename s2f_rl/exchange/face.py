"""What the files of other tools tell of a face beside its motion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Face:
    """A mesh's surface, and the speech that goes with its motion.

    Attributes:
        triangles: int32 [F, 3], anticlockwise seen from outside.
        colours: uint8 [V, 3], sRGB, of the vertices; None where they are not known.
        up: which axis points up, "y" or "z".
        sound: the recording; None for a silent file.
    """

    triangles: np.ndarray
    colours: np.ndarray | None = None
    up: str = "y"
    sound: Path | None = None

    def linear_colours(self) -> np.ndarray | None:
        """The colours as engines compute with them: linear light, float64 [V, 3] in 0..1."""
        if self.colours is None:
            return None
        srgb = self.colours / 255
        return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
