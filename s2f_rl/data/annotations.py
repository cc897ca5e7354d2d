"""Phone timings and transcripts stored beside a corpus."""

from __future__ import annotations

from pathlib import Path

from s2f_rl.data.files import is_there, load_json
from s2f_rl.errors import UserError

_LONGEST_S = 86400.0  # a day; what counts frames up to the last phone would ask for any amount of memory


def read_phones(path: Path) -> list[tuple[str, float, float]] | None:
    """Read ``[[phone, start, end], ...]`` (seconds, start <= end, within a day); None when there is no file.

    Raises UserError when the file holds anything else.
    """
    if not is_there(path):
        return None
    content = load_json(path)
    if not isinstance(content, list) or not all(_is_phone(entry) for entry in content):
        raise UserError(f"{path}: not a list of [phone, start, end] in seconds; write it again or delete it")
    return [(phone, float(start), float(end)) for phone, start, end in content]


def read_transcripts(path: Path) -> dict[str, str]:
    """Read {utterance: words}; empty when there is no file. Raises UserError when the file holds anything else."""
    if not is_there(path):
        return {}
    content = load_json(path)
    if not isinstance(content, dict) or not all(isinstance(text, str) for text in content.values()):
        raise UserError(f"{path}: not an object of utterance names and words; write it again or delete it")
    return content


def _is_phone(entry: object) -> bool:
    if not isinstance(entry, list) or len(entry) != 3 or not isinstance(entry[0], str):
        return False
    start, end = entry[1:]
    numbers = all(isinstance(t, (int, float)) and not isinstance(t, bool) for t in (start, end))
    return numbers and 0 <= start <= end <= _LONGEST_S
