"""Checks of one utterance: its sound, its vertices, and whether they fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from s2f_rl.data.annotations import read_phones
from s2f_rl.data.audio import SPEECH_RATE_HZ, read_sound, resample, resampled_length, wav_header
from s2f_rl.data.check_mesh import frame_difference
from s2f_rl.data.description import CorpusDescription
from s2f_rl.data.faults import ERROR, WARNING, Faults
from s2f_rl.data.files import load_npy, npy_header
from s2f_rl.data.mel import CLIP_SHAPE, n_mel_clips
from s2f_rl.data.mel_cache import clips_agree
from s2f_rl.data.rates import OTHER, nearest_known
from s2f_rl.data.splits import parse_name
from s2f_rl.errors import UserError

_SILENT, _CLIPPED_LEVEL, _CLIPPED_SHARE = 1e-4, 0.999, 1e-3
_MAX_LENGTH_DIFFERENCE = 3
_SCALE_TOLERANCE = 1.4
_FAR_M = 0.03
_JUMP = 0.5
"""Way of a whole face from one frame to the next, relative to its size; a quick nod at 10 fps makes 0.2."""
_CHUNK_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Setting:
    """What the checks of an utterance need to know of its corpus."""

    description: CorpusDescription
    metres_per_unit: float
    n_vertices: int | None
    lips: np.ndarray | None
    sounds: Mapping[str, Path]
    is_described: bool = True  # else rates and units are defaults that nobody stated


class MotionStatistics:
    """Motion of one subject: mean over utterances of each coordinate's variance over time."""

    def __init__(self) -> None:
        self._sum: np.ndarray | None = None
        self._count = 0

    def add(self, variance: np.ndarray) -> None:
        """Add an utterance's variance per coordinate [V*3]."""
        self._sum = variance if self._sum is None or self._sum.shape != variance.shape else self._sum + variance
        self._count += 1

    def amplitude(self, lips: np.ndarray | None) -> float | None:
        """Root mean square motion of the lips about their mean position, or of the most mobile tenth of the face."""
        if self._sum is None:
            return None
        per_vertex = self._sum.reshape(-1, 3).sum(axis=1) / self._count
        if lips is not None and lips.max() < len(per_vertex):
            chosen = per_vertex[lips]
        else:
            chosen = np.sort(per_vertex)[-max(1, len(per_vertex) // 10) :]
        return float(np.sqrt(chosen.mean()))


def check_sound(root: Path, name: str, setting: Setting, faults: Faults) -> float | None:
    """Check ``wav/NAME.wav`` and what is derived from it. Returns its length in seconds, None when unreadable."""
    path = setting.sounds[name]
    relative = f"wav/{path.name}"
    try:
        waveform, rate, notes = read_sound(path)
    except UserError as error:
        faults.add_error(path, error)
        return None
    for note in notes:
        message, _, remedy = note.rpartition("; ")
        faults.add(WARNING, relative, message, remedy)
    seconds = len(waveform) / rate
    if setting.description.clock.natural_frames(resampled_length(len(waveform), rate, SPEECH_RATE_HZ)) < 5:
        faults.add(
            ERROR, relative, f"is {seconds:.3f} s long, less than 5 frames of motion", "remove or record it again"
        )
    if np.sqrt(np.mean(np.square(waveform, dtype=np.float64))) < _SILENT:
        faults.add(ERROR, relative, "is silent", "record or export it again")
    elif (np.abs(waveform) >= _CLIPPED_LEVEL).mean() > _CLIPPED_SHARE:
        share = 100 * (np.abs(waveform) >= _CLIPPED_LEVEL).mean()
        faults.add(WARNING, relative, f"is clipped ({share:.1f} % of its samples)", "export it at a lower level")
    if rate < SPEECH_RATE_HZ:
        message = f"is sampled at {rate} Hz, the encoders expect the sound of {SPEECH_RATE_HZ} Hz"
        faults.add(WARNING, relative, message, "use the original recording")
    _check_mel_clips(root, name, waveform, rate, setting, faults)
    _check_phones(root, name, seconds, faults)
    return seconds


def check_vertices(
    root: Path,
    name: str,
    seconds: float | None,
    setting: Setting,
    template: np.ndarray | None,
    statistics: MotionStatistics,
    faults: Faults,
) -> int:
    """Check ``vertices_npy/NAME.npy`` against its sound and template. Returns the number of stored frames."""
    relative = f"vertices_npy/{name}.npy"
    path = root / relative
    try:
        shape, dtype = npy_header(path)
        stored = load_npy(path)
    except UserError as error:
        faults.add_error(root / relative, error)
        return 0
    n = setting.n_vertices
    if len(shape) not in (2, 3) or (n is not None and shape[1:] not in ((n * 3,), (n, 3))):
        expected = f"[frames, {n * 3}]" if n is not None else "[frames, vertices*3]"
        message = f"has the shape {list(shape)} where {expected} is expected"
        faults.add(ERROR, relative, message, "export it with the templates' topology")
        return 0
    if dtype.kind != "f":
        faults.add(WARNING, relative, f"holds {dtype}, not floating-point coordinates", "export it as float32")
    if shape[0] == 0:
        faults.add(
            ERROR, relative, "holds no frames", "export it again, or remove it (the utterance is then audio-only)"
        )
        return 0
    if seconds is not None and setting.is_described:
        check_length(relative, name, shape[0], seconds, setting, faults)
    seen = _scan(stored.reshape(shape[0], -1))
    broken = _broken_frames(seen, shape[0], template, setting)
    if broken is not None:
        faults.add(ERROR, relative, broken, "mend or remove it")
    elif template is not None and template.size == seen.mean.size:
        if _check_position(relative, seen.mean, template, setting, faults):
            statistics.add(seen.variance)
    return shape[0]


def _broken_frames(seen: _Scan, n_frames: int, template: np.ndarray | None, setting: Setting) -> str | None:
    """What is wrong with single frames of an utterance; None where all of them are faces in one place."""
    if seen.bad:
        return f"holds NaN or infinity in {len(seen.bad)} of {n_frames} frames, first in frame {seen.bad[0]}"
    if 0 < len(seen.points) < n_frames:
        return f"is a single point in {len(seen.points)} of {n_frames} frames, first in frame {seen.points[0]}"
    if template is None or template.size != seen.mean.size:
        return None
    size = np.ptp(np.stack([template, seen.mean]).reshape(2, -1, 3), axis=1).max()  # in other units: told elsewhere
    jumps = np.flatnonzero(seen.steps > _JUMP * size)
    if size > 0 and len(jumps):
        way = 100 * seen.steps[jumps[0]] * setting.metres_per_unit
        more = f", and {len(jumps) - 1} more times" if len(jumps) > 1 else ""
        return f"jumps by {way:.3g} cm from frame {jumps[0]} to frame {jumps[0] + 1}{more}"
    return None


def check_length(relative: str, name: str, n_stored: int, seconds: float, setting: Setting, faults: Faults) -> None:
    """Tell where a file of motion (``relative``) has another number of rows than its sound asks for."""
    description = setting.description
    rate = n_stored / max(seconds, 1e-9)
    if abs(rate / description.stored_fps - 1) > OTHER and seconds > 0.3:
        nearest = nearest_known(rate)
        guess = f"that is {rate:.1f} fps" if nearest is None else f"it looks like {nearest} fps"
        faults.add(
            ERROR,
            relative,
            f"{n_stored} frames for {seconds:.2f} s of sound: {guess} where {description.stored_fps:g} is expected",
            "resample it, or state stored_fps and frame_step in corpus.json",
        )
        return
    n_samples = resampled_length(*wav_header(setting.sounds[name]), SPEECH_RATE_HZ)
    heard = description.clock.natural_frames(n_samples)
    seen = -(-n_stored // description.frame_step)
    if abs(heard - seen) > _MAX_LENGTH_DIFFERENCE:
        longer = "sound" if heard > seen else "motion"
        message = f"{seen} frames at {description.fps:g} fps, but the sound makes {heard}; the longer {longer} is cut"
        faults.add(WARNING, relative, message, "check that both start together")


@dataclass(frozen=True)
class _Scan:
    """What one pass over the frames tells.

    Attributes:
        bad: frames that are not finite. points: finite ones whose vertices all lie in one place.
        steps: [frames - 1] root mean square way of the vertices to the next frame.
        variance, mean: [V*3] of each coordinate over time.
    """

    bad: list[int]
    points: list[int]
    steps: np.ndarray
    variance: np.ndarray
    mean: np.ndarray


def _scan(stored: np.ndarray) -> _Scan:
    """Look at all frames [T, V*3], in pieces."""
    n_frames, width = stored.shape
    step = max(1, _CHUNK_BYTES // (width * 8))
    origin = np.nan_to_num(np.asarray(stored[0], dtype=np.float64), posinf=0, neginf=0)
    total, squares = np.zeros(width), np.zeros(width)
    bad: list[int] = []
    points: list[int] = []
    steps = np.zeros(max(0, n_frames - 1))
    before = np.zeros((0, width))
    for start in range(0, n_frames, step):
        # Relative to the first frame, the sums of squares keep their precision.
        faces = np.asarray(stored[start : start + step], dtype=np.float64)
        piece = faces - origin
        finite = np.isfinite(piece.sum(axis=1))
        bad += [start + int(i) for i in np.flatnonzero(~finite)]
        still = (faces[:, 3:] == faces[:, :-3]).all(axis=1)  # every vertex lies where the one before it does
        points += [start + int(i) for i in np.flatnonzero(still)]
        with np.errstate(invalid="ignore"):  # infinity less infinity
            way = np.diff(piece, axis=0, prepend=before)
        steps[max(0, start - 1) : start + len(piece) - 1] = np.sqrt(3 * np.square(way).mean(axis=1))
        before = piece[-1:]
        piece = piece[finite]
        total += piece.sum(axis=0)
        squares += np.square(piece).sum(axis=0)
    count = max(1, n_frames - len(bad))
    mean = total / count
    return _Scan(bad, points, steps, np.maximum(squares / count - mean**2, 0), mean + origin)


def _check_position(relative: str, mean: np.ndarray, template: np.ndarray, setting: Setting, faults: Faults) -> bool:
    """Whether the mean face has the template's size; a fault where it has another size or place."""
    face, neutral = mean.reshape(-1, 3), template.reshape(-1, 3).astype(np.float64)
    ratio = np.ptp(face, axis=0).max() / max(np.ptp(neutral, axis=0).max(), 1e-12)
    if not 1 / _SCALE_TOLERANCE < ratio < _SCALE_TOLERANCE:
        message = f"its faces are {ratio:.3g} times the size of the template: they are in other units"
        faults.add(ERROR, relative, message, "bring vertices and templates to the same unit (metres)")
        return False
    if not setting.is_described:
        return True
    metres = setting.metres_per_unit
    other = frame_difference(face * metres, neutral * metres, parse_name(Path(relative).stem)[0])
    if other is not None:
        faults.add_error(faults.root / relative, UserError(other))
        return False
    distance = np.linalg.norm(face - neutral, axis=1).mean() * metres
    if distance > _FAR_M:
        message = f"its faces lie {100 * distance:.1f} cm from the template on average"
        faults.add(WARNING, relative, message, "remove head motion, or check that the template is this subject's")
    return True


def _check_mel_clips(root: Path, name: str, waveform: np.ndarray, rate: int, setting: Setting, faults: Faults) -> None:
    relative = f"wav_npy/{name}.npy"
    path = root / relative
    if not path.exists() or not setting.is_described:
        return
    try:
        shape, _ = npy_header(path)
    except UserError as error:
        faults.add_error(root / relative, error, WARNING)
        return
    speech = resample(waveform, rate, setting.description.clock.mel_rate_hz)
    expected = (n_mel_clips(len(speech)), *CLIP_SHAPE)
    if shape != expected:
        message = f"mel clips of the shape {list(shape)} where the sound makes {list(expected)}"
        faults.add(WARNING, relative, message, "delete it, it is computed again")
    elif not clips_agree(path, speech):
        faults.add(WARNING, relative, "mel clips that are not those of the sound", "delete it, it is computed again")


def _check_phones(root: Path, name: str, seconds: float, faults: Faults) -> None:
    relative = f"phones/{name}.json"
    try:
        phones = read_phones(root / relative)
    except UserError as error:
        faults.add_error(root / relative, error, WARNING)
        return
    if phones and phones[-1][2] > seconds + 0.1:
        message = f"its phones end at {phones[-1][2]:.2f} s, the sound at {seconds:.2f} s"
        faults.add(WARNING, relative, message, "align it again, or delete it")
