"""Weights as the app Live Link Face records them: 52 ARKit shapes and 9 rotations, a timecode for each frame."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np

from s2f_rl.data.files import atomic_write_text
from s2f_rl.errors import UserError

SHAPES = (
    "EyeBlinkLeft", "EyeLookDownLeft", "EyeLookInLeft", "EyeLookOutLeft", "EyeLookUpLeft", "EyeSquintLeft",
    "EyeWideLeft", "EyeBlinkRight", "EyeLookDownRight", "EyeLookInRight", "EyeLookOutRight", "EyeLookUpRight",
    "EyeSquintRight", "EyeWideRight", "JawForward", "JawRight", "JawLeft", "JawOpen", "MouthClose", "MouthFunnel",
    "MouthPucker", "MouthRight", "MouthLeft", "MouthSmileLeft", "MouthSmileRight", "MouthFrownLeft", "MouthFrownRight",
    "MouthDimpleLeft", "MouthDimpleRight", "MouthStretchLeft", "MouthStretchRight", "MouthRollLower", "MouthRollUpper",
    "MouthShrugLower", "MouthShrugUpper", "MouthPressLeft", "MouthPressRight", "MouthLowerDownLeft",
    "MouthLowerDownRight", "MouthUpperUpLeft", "MouthUpperUpRight", "BrowDownLeft", "BrowDownRight", "BrowInnerUp",
    "BrowOuterUpLeft", "BrowOuterUpRight", "CheekPuff", "CheekSquintLeft", "CheekSquintRight", "NoseSneerLeft",
    "NoseSneerRight", "TongueOut",
)  # fmt: skip
"""The 52 in the app's order. ARKit's own names begin with a small letter."""
ROTATIONS = tuple(f"{part}{angle}" for part in ("Head", "LeftEye", "RightEye") for angle in ("Yaw", "Pitch", "Roll"))
_SIDES = (("left", "l"), ("right", "r"))


def arkit_name(name: str) -> str | None:
    """ARKit's name of a shape however it is spelt (``EyeBlinkLeft``, ``eye_blink_L``, ``eyeBlink.L``), else None."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    for side, letter in _SIDES:
        if re.search(rf"[^A-Za-z0-9]{letter}$", name, re.IGNORECASE):
            plain = plain[:-1] + side
    return next((shape[0].lower() + shape[1:] for shape in SHAPES if shape.lower() == plain), None)


def write_live_link(path: str | os.PathLike[str], names: Sequence[str], weights: np.ndarray, fps: float) -> None:
    """Write weights as a Live Link Face CSV, atomically.

    Timecodes run from 00:00:00:00 and count frames in whole numbers of a second (29.97 counts as 30, as the app does):
    who reads the file must be told the rate if it is not the app's 60. Shapes without a weight, and the rotations of
    head and eyes, are 0; weights are kept within 0 to 1.

    Args:
        names: of the K shapes, each one of ARKit's in any spelling.
        weights: [T, K].

    Raises:
        UserError: a name that is none of ARKit's, or two for one.
    """
    known = {name: arkit_name(name) for name in names}
    strange = [name for name, found in known.items() if found is None]
    if strange:
        raise UserError(
            f"{path}: Live Link has no shape {', '.join(strange[:3])}{', ...' if len(strange) > 3 else ''}; map the "
            "names with a table (--names), where an empty second column leaves a shape out"
        )
    column = {found.lower(): k for k, found in enumerate(known.values()) if found is not None}
    if len(column) < len(names):
        raise UserError(f"{path}: two shapes have the same name in Live Link; map them with a table (--names)")
    rate = round(fps)
    values = np.zeros((len(weights), len(SHAPES) + len(ROTATIONS)))
    for at, shape in enumerate(SHAPES):
        if shape.lower() in column:
            values[:, at] = weights[:, column[shape.lower()]].clip(0, 1)
    lines = [",".join(("Timecode", "BlendShapeCount", *SHAPES, *ROTATIONS))]
    for t, row in enumerate(values):
        seconds, frame = divmod(t, rate)
        code = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}:{frame:02d}.000"
        lines.append(",".join((code, str(len(row)), *(f"{value:.6f}" for value in row))))
    atomic_write_text(path, "\n".join(lines) + "\n")
