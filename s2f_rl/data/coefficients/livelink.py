"""CSV files of the app Live Link Face (Epic Games): 52 ARKit coefficients, 9 rotations, a timecode each frame."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np

from s2f_rl.data.coefficients.arkit import arkit_name
from s2f_rl.data.files import atomic_write_text
from s2f_rl.data.rates import USUAL
from s2f_rl.errors import UserError

_EYE = ("Blink", "LookDown", "LookIn", "LookOut", "LookUp", "Squint", "Wide")
_ORDER = (
    *(f"eye{what}{side}" for side in ("Left", "Right") for what in _EYE),
    *("jawForward", "jawRight", "jawLeft", "jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthRight"),
    *("mouthLeft", "mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight", "mouthDimpleLeft"),
    *("mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight", "mouthRollLower", "mouthRollUpper"),
    *("mouthShrugLower", "mouthShrugUpper", "mouthPressLeft", "mouthPressRight", "mouthLowerDownLeft"),
    *("mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight", "browDownLeft", "browDownRight", "browInnerUp"),
    *("browOuterUpLeft", "browOuterUpRight", "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft"),
    *("noseSneerRight", "tongueOut"),
)
ROTATIONS = tuple(f"{what}{axis}" for what in ("head", "leftEye", "rightEye") for axis in ("Yaw", "Pitch", "Roll"))
"""Columns that are angles and no coefficients."""
_TIMECODE = re.compile(r"(\d+):(\d+):(\d+):(\d+)(\.\d+)?")
_DAY_S, _MOST_S = 24 * 3600, 4 * 3600


def is_live_link(header: Sequence[str]) -> bool:
    """Whether a CSV's first row is that of the app."""
    return len(header) > 2 and header[0].strip().lower() == "timecode"


def frame_times(timecodes: Sequence[str], path: str | os.PathLike[str]) -> np.ndarray:
    """Seconds [T] from the first row on.

    A timecode is HH:MM:SS:FF.fff: FF counts frames within the second, fff is the part of a frame, so that rows may come
    more often than frames of the clock. Its rate is the usual one (:data:`~s2f_rl.data.rates.USUAL`) just above the
    largest FF: a take of a second or more shows it.

    Raises:
        UserError: a row is no timecode, time goes back, or it is longer than four hours, naming the row.
    """
    parts = []
    for row, text in enumerate(timecodes, start=2):
        found = _TIMECODE.fullmatch(text.strip())
        if found is None:
            raise UserError(f"{path}: row {row}: {text[:30]!r} is no timecode HH:MM:SS:FF; export the take again")
        hours, minutes, seconds, frame = (int(part) for part in found.groups()[:4])
        parts.append((3600 * hours + 60 * minutes + seconds, frame + float(found[5] or 0)))
    largest = max(int(frame) for _, frame in parts)
    rate = next((fps for fps in USUAL if fps > largest), 240)
    times = np.array([seconds + frame / rate for seconds, frame in parts])
    times = np.where(times < times[0], times + _DAY_S, times) - times[0]  # a take over midnight
    back = np.flatnonzero(np.diff(times) < 0)
    if len(back):
        raise UserError(f"{path}: row {back[0] + 3}: its timecode lies before the row above; export the take again")
    if times[-1] > _MOST_S:
        raise UserError(f"{path}: its timecodes span {times[-1] / 3600:.1f} hours; a take has four at most")
    return times


def write_live_link(path: str | os.PathLike[str], names: Sequence[str], values: np.ndarray, fps: float) -> None:
    """Write coefficients [T, K] as the app does, atomically; coefficients that are not named, and rotations, are 0.

    Timecodes run from 00:00:00:00 and count frames in whole numbers of a second (29.97 counts as 30, as the app does):
    who reads the file must be told the rate if it is not the app's 60. Coefficients are kept within 0 to 1.

    Args:
        names: of the columns, each one of ARKit's in any spelling. fps: frames per second, which the timecodes count.

    Raises:
        UserError: a name that is none of ARKit's, or two for one.
    """
    known = [arkit_name(name) for name in names]
    strange = [name for name, found in zip(names, known, strict=True) if found is None]
    if strange:
        raise UserError(
            f"{path}: Live Link has no shape {', '.join(strange[:3])}{', ...' if len(strange) > 3 else ''}; map the "
            "names with a table (s2f-rl blendshapes --names), where an empty second column leaves a shape out"
        )
    if len(set(known)) < len(known):
        raise UserError(f"{path}: two shapes have the same name in Live Link; map them with a table (--names)")
    full = np.zeros((len(values), len(_ORDER) + len(ROTATIONS)))
    for k, name in enumerate(known):
        full[:, _ORDER.index(str(name))] = values[:, k].clip(0, 1)
    titles = [name[0].upper() + name[1:] for name in (*_ORDER, *ROTATIONS)]
    lines = [",".join(["Timecode", "BlendShapeCount", *titles])]
    rate = max(1, round(fps))
    for t, row in enumerate(full):
        seconds, frame = divmod(t, rate)
        clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}:{frame:02d}.000"
        lines.append(",".join([clock, str(len(row)), *(f"{value:.6g}" for value in row)]))
    atomic_write_text(path, "\n".join(lines) + "\n")


def own_name(title: str) -> str:
    """ARKit's name of a column in any spelling (:func:`arkit_name`), that of a rotation, or the title itself."""
    title = title.strip()
    lowered = title[:1].lower() + title[1:]
    return arkit_name(title) or (lowered if lowered in ROTATIONS else title)
