"""Recordings with their words and phones, long ones cut up in their pauses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from s2f_rl.data.alignment import SILENCE, Aligner, Phone, Retime
from s2f_rl.data.audio import read_wav
from s2f_rl.data.content import stream_hash
from s2f_rl.data.files import open_file, read_text
from s2f_rl.data.transcripts import find_transcripts
from s2f_rl.errors import UserError

WHOLE_S = 10.0
"""Seconds up to which a recording stays whole; a longer one whose words are known is cut in its pauses."""
_PIECE_S, _PAUSE_S = 3.0, 0.15
_SHORTEST_S = 0.5
_LONGEST_S = 60.0
_HURRIED_S, _MOST_HURRIED = 0.035, 0.3
"""A phone has three frames of 10 ms at least, and words that are not in the sound have most of theirs as short: of 8
sentences of the built-in corpus 0 to 10% with their own words, 44 to 70% with those of another."""
_SILENT = 1e-4  # root mean square; 16-bit sound of a closed microphone has less


@dataclass(frozen=True)
class Take:
    """Speech to adapt to.

    Attributes:
        label: its file's name without suffix, and of a piece its number and seconds.
        waveform: float32 [N], -1..1. rate: Hz.
        phones: [(phone, start_s, end_s)]; None where the words are not known.
    """

    label: str
    waveform: np.ndarray
    rate: int
    phones: list[Phone] | None


def named_sounds(sounds: Sequence[str | os.PathLike[str]]) -> dict[str, Path]:
    """{name without suffix: file}. Raises UserError for no file, or two of one name."""
    found: dict[str, Path] = {}
    for sound in map(Path, sounds):
        if found.setdefault(sound.stem, sound) is not sound:
            raise UserError(f"{sound}: there is another recording called {sound.stem}; rename one of them")
    if not found:
        raise UserError("no recording: give at least one sound file")
    return found


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content. Raises UserError where it cannot be read."""
    with open_file(path, "check the path of the recording") as file:
        return stream_hash(file)


def read_words(text: str | os.PathLike[str] | None, names: Sequence[str]) -> dict[str, str]:
    """The words of recordings by name, of those that ``text`` knows; none without ``text``.

    Args:
        text: as for :func:`~s2f_rl.data.transcripts.find_transcripts`; for a single recording also a plain ``.txt``,
            which is then all its words.
        names: of the recordings.

    Raises:
        UserError: missing, of another form, or with words for none of them.
    """
    if text is None:
        return {}
    path = Path(text)
    if len(names) == 1 and path.suffix.lower() == ".txt" and not path.is_dir():
        script = read_text(path, "name the file with the words")
        if "\t" not in script:
            return {names[0]: script}
    return find_transcripts(path, list(names))


def read_takes(
    sounds: dict[str, Path],
    words: dict[str, str],
    pronunciations: str | os.PathLike[str] | None = None,
    retime: Retime | None = None,
) -> list[Take]:
    """Read recordings, find their phones where their words are known, and cut long ones.

    Args:
        sounds: of :func:`named_sounds`. words: of :func:`read_words`.
        pronunciations: see :class:`~s2f_rl.data.alignment.Aligner`.
        retime: see :func:`~s2f_rl.data.alignment.align_corpus`.

    Raises:
        UserError: no sound, no speech in it, words that are not in it, or the extra ``align`` is missing.
    """
    aligner = Aligner(pronunciations) if words else None
    takes: list[Take] = []
    for name, path in sounds.items():
        waveform, rate = read_wav(path)
        seconds = len(waveform) / rate
        if seconds < _SHORTEST_S:
            raise UserError(f"{path}: lasts {seconds:.2f} s; give recordings of {_SHORTEST_S:g} s or more")
        if float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))) < _SILENT:
            raise UserError(f"{path}: is silent; record it again, or leave it out")
        phones = None
        if aligner is not None and name in words:
            try:
                phones = aligner.align(waveform, rate, words[name])
            except UserError as error:
                raise UserError(f"{path}: {error}") from error
            lengths = [end - start for phone, start, end in phones if phone != SILENCE]
            hurried = float(np.mean([length < _HURRIED_S for length in lengths])) if lengths else 0.0
            if hurried > _MOST_HURRIED:
                raise UserError(
                    f"{path}: its words do not fit the sound ({100 * hurried:.0f}% of the phones are as short as can "
                    "be); correct them in --text, or leave this recording out of it"
                )
            phones = (retime(waveform, rate, phones) if retime else None) or phones
        whole = Take(name, waveform, rate, phones)
        pieces = [whole] if phones is None or seconds <= WHOLE_S else cut_in_pauses(whole)
        longest = max(len(piece.waveform) / rate for piece in pieces)
        if longest > _LONGEST_S:
            known = "without a pause" if phones else "and its words are not known"
            raise UserError(f"{path}: lasts {longest:.0f} s {known}; cut it into sentences of a minute at most")
        takes += pieces
    return takes


def cut_in_pauses(take: Take) -> list[Take]:
    """Pieces of at least 3 s, cut in the middle of pauses of at least 0.15 s between the words; nothing is lost."""
    phones = take.phones or []
    seconds = len(take.waveform) / take.rate
    cuts = [0.0]
    for phone, start, end in phones:
        middle = (start + end) / 2
        if phone == SILENCE and end - start >= _PAUSE_S and min(middle - cuts[-1], seconds - middle) >= _PIECE_S:
            cuts.append(middle)
    pieces = []
    for number, (start, end) in enumerate(zip(cuts, [*cuts[1:], seconds], strict=True), start=1):
        inside = [(p, max(a, start) - start, min(b, end) - start) for p, a, b in phones if a < end and b > start]
        sound = take.waveform[round(start * take.rate) : round(end * take.rate)]
        pieces.append(Take(f"{take.label} {number} ({start:.1f} to {end:.1f} s)", sound, take.rate, inside))
    return pieces if len(pieces) > 1 else [take]
