"""Coefficients of one recording, as others write them.

| file   | what it holds                                                                                            |
|--------|----------------------------------------------------------------------------------------------------------|
| .csv   | Live Link Face's (Timecode, BlendShapeCount, ...); else a column per coefficient, named in the first row; |
|        | a column ``time`` or ``time_s`` in seconds is used as such; without names as .npy                        |
| .json  | BEAT's: {"names": [K], "frames": [{"weights": [K], "time": s}, ...]}                                      |
| .npy   | [T, K]; 52 or 51 columns are ARKit's in the order of the alphabet (EmoTalk's 3D-ETF), 51 without the last |
| .npz   | FLAME's parameters: expr [T, E], and jaw_pose [T, 3], or the last 3 of pose [T, 6]                        |
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from s2f_rl.data.coefficients.arkit import ARKIT
from s2f_rl.data.coefficients.basis import names_problem
from s2f_rl.data.coefficients.livelink import ROTATIONS, frame_times, is_live_link, own_name
from s2f_rl.data.files import load_json, load_npy, load_npz, read_text
from s2f_rl.data.rates import nearest_known
from s2f_rl.errors import UserError

SUFFIXES = (".csv", ".json", ".npy", ".npz")
_EXPRESSION, _JAW = ("expr", "expression", "exp", "expcode", "expression_params"), ("jaw_pose", "jaw", "jaw_params")
_LOWEST, _HIGHEST = 10, 1000
"""Frames per second between which times are in seconds."""
_FPS, _TIME = ("fps", "frame_rate", "framerate"), ("time", "time_s", "timestamp")


@dataclass(frozen=True, eq=False)
class Track:
    """Coefficients of one recording.

    Attributes:
        names: of the K columns.
        values: [T, K] float32.
        fps: frames per second; None where the file does not tell.
        convention: "arkit", "flame", or "own".
        notes: what was assumed or mended, to be told.
    """

    names: tuple[str, ...]
    values: np.ndarray
    fps: float | None
    convention: str
    notes: tuple[str, ...] = ()


def read_track(path: Path, names: Sequence[str] | None = None) -> Track:
    """Read a file of coefficients; see the table of this module.

    Args:
        names: of the columns, where the file does not name them.

    Raises:
        UserError: it is none of these, or a row of it is not as it should be.
    """
    readers = {".csv": _from_csv, ".json": _from_json, ".npy": _from_npy, ".npz": _from_npz}
    if path.suffix.lower() not in readers:
        raise UserError(f"{path}: is no file of coefficients; give {', '.join(SUFFIXES)}")
    track = readers[path.suffix.lower()](path, None if names is None else tuple(names))
    problem = names_problem(track.names)
    if problem is not None:
        raise UserError(f"{path}: {problem}")
    if not len(track.values):
        raise UserError(f"{path}: holds no frames; export it again, or remove it")
    bad = np.flatnonzero(~np.isfinite(track.values).all(axis=1))
    if len(bad):
        raise UserError(f"{path}: holds NaN or infinity, first in frame {bad[0]}; mend or remove it")
    return track


def _from_npy(path: Path, names: tuple[str, ...] | None) -> Track:
    values = load_npy(path)
    if values.ndim != 2:
        raise UserError(f"{path}: has the shape {list(values.shape)}; [frames, coefficients] is expected")
    return _named(np.array(values, np.float32), names, path)


def _named(values: np.ndarray, names: tuple[str, ...] | None, path: Path) -> Track:
    """Columns without names in the file."""
    k = values.shape[1]
    if names is not None:
        if len(names) != k:
            raise UserError(f"{path}: has {k} columns, but {len(names)} names are given; name each column")
        return Track(names, values, None, _convention(names))
    if k not in (len(ARKIT), len(ARKIT) - 1):
        raise UserError(f"{path}: has {k} columns without names; give them with --names, a text file of one a line")
    note = f"{k} columns without names are taken for ARKit's, from {ARKIT[0]} to {ARKIT[k - 1]}, by the alphabet"
    return Track(ARKIT[:k], values, None, "arkit", (note,))


def _convention(names: Sequence[str]) -> str:
    return "arkit" if set(names) <= set(ARKIT) else "own"


def _from_csv(path: Path, names: tuple[str, ...] | None) -> Track:
    try:
        rows = [row for row in csv.reader(io.StringIO(read_text(path))) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UserError(f"{path}: cannot be read as CSV ({error}); export it again") from error
    if not rows:
        raise UserError(f"{path}: is empty; export it again")
    if all(_number(cell) is not None for cell in rows[0]):
        return _named(_numbers(rows, range(len(rows[0])), path, 1), names, path)
    header, body = [own_name(cell) for cell in rows[0]], rows[1:]
    if not body:
        raise UserError(f"{path}: has a first row and no other; export it again")
    live_link = is_live_link(header)
    timed = next((k for k, title in enumerate(header) if title.lower() in _TIME), None)
    kept = [k for k, title in enumerate(header) if title not in ROTATIONS and k != timed]
    kept = kept[2:] if live_link else kept
    values = _numbers(body, kept, path, 2, len(header))
    titles = tuple(header[k] for k in kept) if names is None else names
    if len(titles) != len(kept):
        raise UserError(f"{path}: has {len(kept)} columns of coefficients, but {len(titles)} names are given")
    track = Track(titles, values, None, _convention(titles))
    if live_link:
        track = even(track, frame_times([row[0] for row in body], path), path=path)
    elif timed is not None:
        track = even(track, _numbers(body, [timed], path, 2)[:, 0].astype(np.float64), path=path)
    turned = sorted(title for title in header if title in ROTATIONS)
    if turned and np.abs(_numbers(body, [header.index(title) for title in turned], path, 2)).max() > 0:
        track = replace(track, notes=(*track.notes, "rotations of head and eyes are left out: the face keeps still"))
    return track


def _from_json(path: Path, names: tuple[str, ...] | None) -> Track:
    content = load_json(path)
    content = content if isinstance(content, dict) else {}
    frames, own = content.get("frames"), content.get("names")
    titles = names or (tuple(own_name(name) for name in own) if isinstance(own, list) and _are_words(own) else None)
    if titles is None or not isinstance(frames, list) or not frames:
        raise UserError(f'{path}: is not of the form {{"names": [..], "frames": [{{"weights": [..], "time": s}}]}}')
    rows, times = [], []
    for t, frame in enumerate(frames):
        weights = frame.get("weights") if isinstance(frame, dict) else None
        if not isinstance(weights, list) or len(weights) != len(titles) or not all(map(_is_number, weights)):
            raise UserError(f"{path}: frame {t} has no {len(titles)} weights; mend or remove it")
        rows.append(weights)
        times.append(frame.get("time"))
    track = Track(titles, np.array(rows, np.float32), None, _convention(titles))
    if all(time is None for time in times):
        return track
    late = next((t for t, time in enumerate(times) if not _is_number(time)), None)
    if late is not None:
        raise UserError(f"{path}: frame {late} has no time; mend or remove it")
    return even(track, np.array(times, np.float64), path=path)


def _from_npz(path: Path, names: tuple[str, ...] | None) -> Track:
    arrays = load_npz(path)
    expression = next((arrays[key] for key in _EXPRESSION if key in arrays), None)
    jaw = next((arrays[key] for key in _JAW if key in arrays), None)
    pose = arrays.get("pose", arrays.get("posecode"))
    if jaw is None and pose is not None and pose.shape[-1] == 6:
        jaw = pose[..., 3:]
    if expression is None:
        raise UserError(f"{path}: holds {', '.join(sorted(arrays)) or 'nothing'}; FLAME's expr [T, E] is expected")
    parts = [np.asarray(part, np.float32).reshape(-1, part.shape[-1]) for part in (expression, jaw) if part is not None]
    if len({len(part) for part in parts}) > 1 or (jaw is not None and parts[1].shape[1] != 3):
        shapes = " and ".join(str(list(part.shape)) for part in parts)
        raise UserError(f"{path}: expression and jaw have the shapes {shapes}; [T, E] and [T, 3] are expected")
    own = [f"expr{k:03d}" for k in range(parts[0].shape[1])] + (["jawX", "jawY", "jawZ"] if jaw is not None else [])
    fps = next((float(arrays[key].item()) for key in _FPS if key in arrays and arrays[key].size == 1), None)
    notes = () if jaw is not None else ("no jaw_pose: the jaw keeps still",)
    if fps is not None and not 1 <= fps <= 1000:
        raise UserError(f"{path}: its frames per second are {fps:g}; mend the file")
    return Track(names or tuple(own), np.concatenate(parts, 1), fps, "flame", notes)


def even(track: Track, times: np.ndarray, rate: float | None = None, *, path: Path) -> Track:
    """A track at even steps: rows where frames are missing are interpolated.

    Args:
        times: seconds [T], rising. rate: frames per second; None: of most steps, the usual rate if one is near.
        path: of the file, for messages.

    Raises:
        UserError: times that do not rise, are not seconds, or have no common step.
    """
    if len(times) < 2:
        return replace(track, fps=rate)
    steps = np.diff(times)
    if not np.isfinite(times).all() or (steps < 0).any() or not (steps > 0).any():
        t = int(np.flatnonzero(~(steps >= 0))[0]) if not (steps >= 0).all() else 0
        raise UserError(f"{path}: the time of frame {t + 1} does not lie behind that of frame {t}; export it again")
    if rate is None:
        rate = 1 / float(np.median(steps[steps > 0]))
        rate = float(nearest_known(rate) or rate)
        if not _LOWEST <= rate <= _HIGHEST:
            raise UserError(f"{path}: by its times it has {rate:.3g} frames per second; give them in seconds")
    n = math.floor((times[-1] - times[0]) * rate + 0.4) + 1
    if n > 20 * len(times):
        raise UserError(f"{path}: its {len(times)} frames span {times[-1] - times[0]:.0f} s; frames are missing")
    at = times[0] + np.arange(n) / rate
    values = np.stack([np.interp(at, times, column) for column in track.values.T], axis=1).astype(np.float32)
    missing = n - len(times)
    note = (f"{missing} of {n} frames are missing and interpolated",) if missing > 0 else ()
    return replace(track, values=values, fps=rate, notes=(*track.notes, *note))


def _numbers(
    rows: list[list[str]], columns: Sequence[int], path: Path, first: int, width: int | None = None
) -> np.ndarray:
    """Cells of some columns as float32 [T, n]; ``first``: number of the first row in the file."""
    width = len(rows[0]) if width is None else width
    out = np.empty((len(rows), len(columns)), np.float32)
    for t, row in enumerate(rows):
        if len(row) != width:
            raise UserError(f"{path}: row {t + first} has {len(row)} columns, the first {width}; mend or remove it")
        for j, k in enumerate(columns):
            value = _number(row[k])
            if value is None:
                raise UserError(f"{path}: row {t + first}, column {k + 1}: {row[k][:30]!r} is no number; mend it")
            out[t, j] = value
    return out


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _are_words(values: list[object]) -> bool:
    return bool(values) and all(isinstance(item, str) for item in values)
