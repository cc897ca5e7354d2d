"""What was said: transcripts in the forms that people have them in."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from s2f_rl.data.annotations import read_transcripts
from s2f_rl.data.files import read_text, require_file
from s2f_rl.data.splits import parse_name
from s2f_rl.errors import UserError

_HEADERS = {("name", "text"), ("utterance", "text"), ("name", "transcript"), ("utterance", "transcript")}


def find_transcripts(source: str | os.PathLike[str], names: list[str]) -> dict[str, str]:
    """Read the words of a corpus's utterances.

    Args:
        source: ``.json``: an object of utterances and words. ``.csv``: two columns, name and words, with or without a
            header. Any other file: lines ``NAME<TAB>words``. A folder: ``NAME.txt``, or ``SUBJECT.txt`` with one
            sentence per line, the first being sentence 1 (the form of VOCASET's sentence texts).
        names: the corpus's utterances.

    Returns:
        {utterance: words} of those of ``names`` that ``source`` knows.

    Raises:
        UserError: missing, damaged, or of another form; also when it knows none of ``names``.
    """
    source = Path(source)
    if source.is_dir():
        found = _from_folder(source, names)
    elif source.suffix.lower() == ".json":
        found = read_transcripts(require_file(source, "name a file of transcripts"))
    else:
        found = _from_table(source, comma=source.suffix.lower() == ".csv")
    known = {name: found[name].strip() for name in names if found.get(name, "").strip()}
    if not known:
        example = names[0] if names else "SUBJECT_sentence01"
        raise UserError(f"{source}: has words for no utterance of the corpus; its names look like {example}")
    return known


def _from_table(path: Path, comma: bool) -> dict[str, str]:
    text = read_text(path, "name a file of transcripts")
    if comma:
        try:
            rows = [row for row in csv.reader(io.StringIO(text, newline="")) if any(cell.strip() for cell in row)]
        except csv.Error as error:
            raise UserError(f"{path}: cannot be read as a table ({error}); write it again as csv") from error
        if rows and tuple(cell.strip().lower() for cell in rows[0]) in _HEADERS:
            rows = rows[1:]
    else:
        rows = [line.split("\t", 1) for line in text.splitlines() if line.strip()]
    found: dict[str, str] = {}
    for row in rows:
        form = 'NAME,"words"' if comma else "NAME<TAB>words"
        if len(row) != 2:
            line = " ".join(row)[:60]
            raise UserError(f"{path}: {line!r} is not of the form {form}; mend the line")
        name = row[0].strip()
        if name in found:
            raise UserError(f"{path}: names {name} twice; keep one of the lines")
        found[name] = row[1]
    return found


def _from_folder(folder: Path, names: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    sentences: dict[str, list[str]] = {}
    for name in names:
        own = folder / f"{name}.txt"
        if own.is_file():
            found[name] = " ".join(read_text(own).split())
            continue
        subject, number = parse_name(name)
        if subject not in sentences:
            path = folder / f"{subject}.txt"
            # blank lines at the end are none; those between sentences would shift the count, so they stay
            sentences[subject] = read_text(path).rstrip().splitlines() if subject and path.is_file() else []
        if number is not None and 1 <= number <= len(sentences[subject]):
            found[name] = sentences[subject][number - 1]
    return found
