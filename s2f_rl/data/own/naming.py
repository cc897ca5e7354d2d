"""Utterances, subjects and splits of files that somebody named for other purposes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from s2f_rl.data.audio import SOUND_SUFFIXES
from s2f_rl.data.files import load_json, read_text
from s2f_rl.data.preparation import is_safe_name
from s2f_rl.data.splits import parse_name
from s2f_rl.errors import UserError

_PARTS = ("train", "validation", "test")


def utterance_names(stems: Sequence[str], table: Path | None = None, subject: str | None = None) -> dict[str, str]:
    """{stem of a file: NAME of the utterance, ``SUBJECT_sentenceNN``}.

    Args:
        stems: of the recordings, sorted.
        table: .json {stem: NAME}, or .csv with the two columns; recordings that it does not name are left out.
        subject: all are this speaker's, numbered in the order of ``stems``.

    Raises:
        UserError: a name is not of that form, cannot be a file's name, or stands for two recordings.
    """
    if table is not None:
        given = _read_table(table)
        missing = [stem for stem in given if stem not in stems]
        if missing:
            raise UserError(f"{table}: names {missing[0]}, of which there is no recording; check the spelling")
        names = {stem: given[stem] for stem in stems if stem in given}
    elif subject is not None:
        names = {stem: f"{subject}_sentence{number:02d}" for number, stem in enumerate(stems, 1)}
    else:
        names = {stem: stem for stem in stems}
    remedy = "rename the files, name the one speaker (--subject anna), or write a table (--names names.csv)"
    seen: dict[tuple[str, int], str] = {}
    for stem, name in names.items():
        speaker, number = parse_name(name)
        if not speaker or number is None or not is_safe_name(name):
            raise UserError(f"{stem}: {name!r} is not SUBJECT_sentenceNN, by which splits are made; {remedy}")
        other = seen.setdefault((speaker, number), stem)
        if other != stem:
            raise UserError(f"{stem}: is sentence {number} of {speaker}, as {other} is; {remedy}")
    return names


def split_by_subject(
    names: Sequence[str], validation: Sequence[str] = (), test: Sequence[str] = ()
) -> tuple[dict[str, dict[str, object]], list[str]]:
    """The ``splits`` of ``corpus.json``, and the training subjects in alphabetical order.

    Subjects that are not given: from three on, the last is the test subject, the one before it validates; of two the
    second does both. A single speaker's sentences are divided in order: four fifths, a tenth, a tenth.

    Raises:
        UserError: a subject that has no utterance or is in two splits, or none is left to train on.
    """
    numbers: dict[str, list[int]] = {}
    for name in names:
        subject, number = parse_name(name)
        numbers.setdefault(subject, []).append(number or 0)
    subjects = sorted(numbers)
    for subject in (*validation, *test):
        if subject not in numbers:
            raise UserError(f"{subject}: has no utterance; the subjects are {', '.join(subjects)}")
    both = set(validation) & set(test)
    if both:
        raise UserError(f"{min(both)}: is in validation and test; name different subjects")
    if len(subjects) == 1 and not validation and not test:
        return _by_sentence(subjects[0], sorted(numbers[subjects[0]])), subjects
    free = [subject for subject in subjects if subject not in (*validation, *test)]
    if not test and len(free) > 1:
        test = [free.pop()]
    if not validation:
        validation = [free.pop()] if len(free) > 1 else list(test)
    if not free:
        raise UserError("no subject is left to train on; name fewer for validation and test")
    highest = max(max(each) for each in numbers.values())
    members = dict(zip(_PARTS, (free, list(validation), list(test or validation)), strict=True))
    return {part: {"subjects": who, "sentences": [0, highest]} for part, who in members.items()}, free


def _by_sentence(subject: str, numbers: list[int]) -> dict[str, dict[str, object]]:
    n = len(numbers)
    held = max(1, round(n / 10)) if n > 2 else 0
    train, validation, test = numbers[: n - 2 * held], numbers[n - 2 * held : n - held], numbers[n - held :]
    parts = (train, validation or numbers, test or numbers)
    return {
        part: {"subjects": [subject], "sentences": [own[0], own[-1]]} for part, own in zip(_PARTS, parts, strict=True)
    }


def _read_table(path: Path) -> dict[str, str]:
    rows: list[tuple[str, ...]]
    if path.suffix.lower() == ".json":
        content = load_json(path)
        rows = list(content.items()) if isinstance(content, Mapping) else []
    else:
        rows = [tuple(cell.strip() for cell in row) for row in csv.reader(io.StringIO(read_text(path))) if row]
    if not rows or not all(len(row) == 2 and all(isinstance(cell, str) for cell in row) for row in rows):
        raise UserError(f"{path}: not a table of recordings and names; write lines such as take 3,anna_sentence03")
    if len({row[0] for row in rows}) < len(rows):
        raise UserError(f"{path}: names a recording twice; leave one of the lines")
    return {Path(stem).stem if Path(stem).suffix.lower() in SOUND_SUFFIXES else stem: name for stem, name, *_ in rows}
