"""Recordings of coefficients and their sound, as others keep them, into a corpus folder (``s2f-rl coefficients``)."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from s2f_rl.data.audio import SOUND_SUFFIXES, read_wav, wav_header
from s2f_rl.data.clock import HIGHEST_FPS, LOWEST_FPS
from s2f_rl.data.coefficients.basis import FILE as BASIS_FILE
from s2f_rl.data.coefficients.basis import LinearBasis
from s2f_rl.data.coefficients.rig import FILE, FOLDER
from s2f_rl.data.coefficients.tracks import SUFFIXES, Track, even, read_track
from s2f_rl.data.description import FILE as DESCRIPTION_FILE
from s2f_rl.data.files import atomic_folder, atomic_path, atomic_save_npy, atomic_write_json, read_text
from s2f_rl.data.preparation import is_safe_name, save_sound
from s2f_rl.data.rates import nearest_known
from s2f_rl.data.splits import parse_name
from s2f_rl.errors import UserError, one_line
from s2f_rl.signs import watched

_BEAT = re.compile(r"\d+_([a-z]+)_")
_HELD = 0.1
"""Share of a speaker's recordings that each of validation and test gets, at least one."""


@dataclass
class ConversionReport:
    """What :func:`convert_coefficients` did.

    Attributes:
        root: the corpus. names: of its coefficients. fps: stored frames per second.
        written: {NAME: file that it was read from}.
        notes: what was assumed or mended. problems: recordings that were left out, and why.
    """

    root: Path
    names: tuple[str, ...]
    fps: float
    written: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        size = f"{len(self.written)} recordings, {len(self.names)} coefficients at {self.fps:g} frames per second"
        lines = [f"{one_line(self.root)}: {size}"]
        lines += [f"  note: {one_line(note)}" for note in self.notes]
        lines += [f"  left out: {one_line(problem)}" for problem in self.problems]
        return "\n".join(lines)


@dataclass(frozen=True)
class _Recording:
    """What is kept of a file once it was read; ``read`` reads its frames again, when they are written."""

    file: Path
    names: tuple[str, ...]
    fps: float
    convention: str
    read: Callable[[], Track]
    sound: Path
    subject: str
    sentence: int | None


def convert_coefficients(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    names: str | os.PathLike[str] | None = None,
    fps: float | None = None,
    basis: str | os.PathLike[str] | None = None,
    subject: str | None = None,
    sounds: str | os.PathLike[str] | None = None,
) -> ConversionReport:
    """Write a corpus of coefficients: whole, or not at all.

    Every file that :func:`~s2f_rl.data.coefficients.tracks.read_track` reads, in ``source`` and its folders, is a
    recording. Its sound has the same name beside it (or in ``sounds``), or is the only sound in its folder. What cannot
    be read is left out and told. The first tenth of each speaker's recordings is for validation, the next for test.

    Args:
        source: the folder. out: the corpus to write, new or empty.
        names: text file with a coefficient's name per line, where the files do not name their columns.
        fps: frames per second of files that do not tell; None: as their length beside the sound says. Recordings of
            another rate are interpolated to that of the first.
        basis: ``basis.npz`` of the face, which goes into the corpus.
        subject: who speaks in all of them. None: the file's name if it is SUBJECT_sentenceNN, or BEAT's
            (1_wayne_0_1_1), else the folder that it lies in.
        sounds: folder of the sound files.

    Raises:
        UserError: folders that cannot be used, a basis that lacks a coefficient, or no recording that can be read.
    """
    source, out = Path(source), Path(out)
    if not source.is_dir():
        raise UserError(f"{source}: no such folder; give the one that holds the recordings")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is not empty; choose a new folder for the corpus")
    given = None if names is None else [line.strip() for line in read_text(names).splitlines() if line.strip()]
    face = None if basis is None else LinearBasis.load(basis)
    problems: list[str] = []
    found: list[_Recording] = []
    files = sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    for file in watched(files, "read", unit="file", delay=2, leave=False):
        try:
            found.append(_read(file, source, given, fps, subject, None if sounds is None else Path(sounds)))
        except UserError as error:
            problems.append(str(error))
    if not found:
        first = f" ({problems[0]})" if problems else ""
        raise UserError(f"{source}: holds no recording that can be read{first}; give {', '.join(SUFFIXES)} with sound")
    titles = max((each.names for each in found), key=len)
    missing = [name for name in titles if face is not None and name not in face.names]
    if missing:
        raise UserError(f"{basis}: has no shape {missing[0]}, which the recordings have; add it (zeros if need be)")
    report = ConversionReport(out, titles, found[0].fps, problems=problems)
    used = report.fps / _frame_step(report.fps)
    if not LOWEST_FPS <= used <= HIGHEST_FPS:
        told = f"{found[0].file}: has {report.fps:g} frames per second; {LOWEST_FPS:g} to {HIGHEST_FPS:g} are animated"
        raise UserError(f"{told}, resample it (or mend --fps)")
    names_of = dict(zip(_names(found), found, strict=True))
    with atomic_folder(out) as work:
        for name, recording in watched(list(names_of.items()), "write", unit="file", delay=2, leave=False):
            try:
                _write(recording, name, work, titles, report)
            except UserError as error:
                problems.append(str(error))
        report.notes = _counted(report.notes)
        if not report.written:
            raise UserError(f"{source}: no recording could be written ({problems[0]}); mend the files")
        if face is not None:
            face.save(work / BASIS_FILE)
        about = {"names": list(titles), "fps": report.fps, "convention": found[0].convention}
        atomic_write_json(work / FILE, {**about, "sources": report.written})
        atomic_write_json(work / DESCRIPTION_FILE, _description(report))
    return report


def _read(
    file: Path, source: Path, names: Sequence[str] | None, fps: float | None, subject: str | None, sounds: Path | None
) -> _Recording:
    sound = _sound_of(file, source, sounds)
    read = partial(_track, file, sound, names, fps)
    track = read()
    speaker, sentence = _who(file, source, subject)
    if not is_safe_name(speaker) or "_sentence" in speaker:
        raise UserError(f"{file}: {speaker[:40]!r} cannot name a speaker; give --subject")
    assert track.fps is not None
    return _Recording(file, track.names, track.fps, track.convention, read, sound, speaker, sentence)


def _track(file: Path, sound: Path, names: Sequence[str] | None, fps: float | None) -> Track:
    """A file with its rate: as it tells, else ``fps``, else as the length of the sound tells."""
    track = read_track(file, names)
    if track.fps is None:
        n_samples, rate = wav_header(sound)
        measured = len(track.values) * rate / max(n_samples, 1)
        told = fps or nearest_known(measured)
        if told is None:
            raise UserError(f"{file}: {measured:.1f} frames for each second of sound is no usual rate; give --fps")
        note = () if fps else (f"a rate of {told:g} frames per second is taken from the length of the sound",)
        track = replace(track, fps=float(told), notes=(*track.notes, *note))
    return track


def _who(file: Path, source: Path, subject: str | None) -> tuple[str, int | None]:
    """Speaker and number of the sentence, where the name tells it."""
    own, sentence = parse_name(file.stem)
    if "_sentence" in file.stem and own and sentence is not None:
        return subject or own, sentence
    beat = _BEAT.match(file.stem)
    if subject is not None or beat is not None:
        return subject or (beat[1] if beat else ""), None
    if file.parent == source:
        raise UserError(f"{file}: does not say who speaks; give --subject, or a folder for each speaker")
    return file.parent.relative_to(source).parts[0], None


def _sound_of(file: Path, source: Path, folder: Path | None) -> Path:
    where = folder or file.parent
    present = sorted(p for p in where.iterdir() if p.suffix.lower() in SOUND_SUFFIXES) if where.is_dir() else []
    same = [p for p in present if p.stem == file.stem]
    if not same and (folder is not None or len(present) != 1 or where == source):  # a take has a folder of its own
        raise UserError(f"{file}: has no sound; put {file.stem}.wav beside it, or give --sounds")
    return (same or present)[0]


def _names(found: Sequence[_Recording]) -> list[str]:
    """SUBJECT_sentenceNN, with the numbers of the files' names if all of them tell one, else counted by speaker."""
    own = [(each.subject, each.sentence or 0) for each in found]
    if any(each.sentence is None for each in found) or len(set(own)) < len(own):
        speakers = [each.subject for each in found]
        own = [(speaker, speakers[: k + 1].count(speaker)) for k, speaker in enumerate(speakers)]
    return [f"{speaker}_sentence{number:02d}" for speaker, number in own]


def _write(recording: _Recording, name: str, out: Path, titles: Sequence[str], report: ConversionReport) -> None:
    file, track = recording.file, recording.read()
    unknown = [title for title in track.names if title not in titles]
    if unknown:
        raise UserError(f"{file}: has a coefficient {unknown[0]}, which other recordings have not; convert them apart")
    if track.fps != report.fps:
        track = even(track, np.arange(len(track.values)) / recording.fps, report.fps, path=file)
        track = replace(track, notes=(*track.notes, f"brought from {recording.fps:g} to {report.fps:g} fps"))
    values = np.zeros((len(track.values), len(titles)), np.float32)
    values[:, [titles.index(title) for title in track.names]] = track.values
    if len(track.names) < len(titles):
        left = next(title for title in titles if title not in track.names)
        track = replace(track, notes=(*track.notes, f"{left} is taken for 0 where a recording lacks it"))
    if recording.sound.suffix.lower() == ".wav":
        wav_header(recording.sound)
        with atomic_path(out / "wav" / f"{name}.wav") as temporary:
            shutil.copyfile(recording.sound, temporary)
    else:
        save_sound(out / "wav" / f"{name}.wav", *read_wav(recording.sound))
    atomic_save_npy(out / FOLDER / f"{name}.npy", values)
    report.written[name] = str(file)
    report.notes += track.notes


def _frame_step(fps: float) -> int:
    return 2 if fps == 60 else 1


def _counted(notes: Sequence[str]) -> list[str]:
    counts = {note: notes.count(note) for note in notes}
    return [note if n == 1 else f"{note} (in {n} recordings)" for note, n in counts.items()]


def _description(report: ConversionReport) -> dict[str, object]:
    by_subject: dict[str, list[int]] = {}
    for name in report.written:
        subject, sentence = parse_name(name)
        by_subject.setdefault(subject, []).append(sentence or 0)
    subjects = sorted(by_subject)
    fewest = min(len(numbers) for numbers in by_subject.values())
    if fewest < 3:
        report.notes.append("a speaker has fewer than 3 recordings, so validation and test are recordings of training")
    first, held = min(min(numbers) for numbers in by_subject.values()), max(1, round(_HELD * fewest))
    last = max(max(numbers) for numbers in by_subject.values())
    ranges = {
        "train": [first + 2 * held, last], "validation": [first, first + held - 1],
        "test": [first + held, first + 2 * held - 1],
    }  # fmt: skip
    if fewest < 3:
        ranges = dict.fromkeys(ranges, [first, last])
    return {
        "format": 1,
        "dataset": "coefficients",
        "stored_fps": report.fps,
        "frame_step": _frame_step(report.fps),
        "training_subjects": subjects,
        "splits": {split: {"subjects": subjects, "sentences": span} for split, span in ranges.items()},
    }
