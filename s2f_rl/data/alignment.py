"""Phone timings of recordings whose words are known, by forced alignment with pocketsphinx (extra ``align``).

The acoustic model comes with the package: American English, 16 kHz, BSD licence. What is written is what the built-in
corpus stores beside its speech, ``phones/NAME.json`` with ``[[phone, start_s, end_s], ...]``, phones being ARPAbet in
lower case without stress, so closure on /m b p/ can be measured on a recorded corpus as well.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from s2f_rl.data.annotations import read_phones
from s2f_rl.data.audio import SPEECH_RATE_HZ, read_wav, resample
from s2f_rl.data.corpus import FaceCorpus
from s2f_rl.data.files import atomic_write_json, atomic_write_text, read_text, require_target
from s2f_rl.data.transcripts import find_transcripts
from s2f_rl.errors import UserError
from s2f_rl.signs import watched

logger = logging.getLogger(__name__)

Phone = tuple[str, float, float]
Retime = Callable[[np.ndarray, int, Sequence[Phone]], "list[Phone] | None"]
"""Waveform, rate and phones -> the phones with better times; None: it cannot tell."""

REPORT = "alignment.json"
SILENCE = "sil"
ARPABET = frozenset(
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH".split()
)
_FRAME_S = 0.01  # the acoustic model's
_CENTRE_S = 0.008
"""Between two of its frames lies the mean of the centres of their 25.6 ms windows, which start every 10 ms."""
_SHORTEST_S = 0.1
_OPEN_BEAM = 1e-300
"""The usual beams prune the only path there is: with them, 19 of 36 sentences of the built-in corpus found none."""
_NOISE = 15 / 32768
"""Standard deviation of the noise laid under the speech. A synthesiser's digital silence is no silence to a model of
recordings: without it the median error of a bilabial's start is 18 ms instead of 10, and 31% are off by a frame of
motion (33 ms) or more instead of 17%. Recordings have as much noise of their own."""


@dataclass
class AlignmentReport:
    """What :func:`align_corpus` did.

    Attributes:
        written: utterances aligned now. kept: those that had timings. failed: {utterance: why}.
        unheard: of the written ones, those in which ``retime`` did not recognise the phones.
    """

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    unheard: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class Aligner:
    """Finds the phones of known words in speech.

    Args:
        pronunciations: file of further words, one ``WORD P H O N E S`` (ARPAbet, as in CMUdict) a line.

    Raises:
        UserError: pocketsphinx is not installed, or a line of the file is of another form.
    """

    def __init__(self, pronunciations: str | os.PathLike[str] | None = None) -> None:
        try:
            from pocketsphinx import Decoder
        except ImportError as error:
            raise UserError("forced alignment needs pocketsphinx: pip install 's2f_rl[align]'") from error
        self._decoder = Decoder(
            lm=None, bestpath=False, loglevel="FATAL", beam=_OPEN_BEAM, pbeam=_OPEN_BEAM, wbeam=_OPEN_BEAM, maxhmmpf=-1
        )
        for word, phones in read_pronunciations(pronunciations).items() if pronunciations is not None else ():
            if self._decoder.lookup_word(word) is None:
                self._decoder.add_word(word, " ".join(phones), True)

    def words(self, text: str) -> list[str]:
        """The words of ``text`` as the dictionary spells them.

        Raises:
            UserError: there are none, or the dictionary lacks some; the message names them.
        """
        words, unknown = [], []
        for word in spoken_words(text):
            known = next((s for s in (word, word.strip("'")) if self._decoder.lookup_word(s) is not None), None)
            if known is None:
                unknown.append(word)
            else:
                words.append(known)
        if unknown:
            listed = ", ".join(repr(word) for word in dict.fromkeys(unknown))
            raise UserError(
                f"the dictionary lacks {listed}; spell numbers and signs out, or give a file of pronunciations "
                "(--words) with lines such as: tomato T AH M EY T OW"
            )
        if not words:
            raise UserError("the text holds no words; give the sentence that is spoken")
        return words

    def align(self, waveform: np.ndarray, rate: int, text: str) -> list[Phone]:
        """Timings of the phones of ``text`` in a waveform.

        Args:
            waveform: float [N], -1..1, mono. rate: its sample rate, Hz.
            text: the words spoken, in English.

        Returns:
            [(phone, start_s, end_s)] without gaps from 0 on, silence as "sil", in steps of 10 ms.

        Raises:
            UserError: unknown words (see :meth:`words`), or no path of these words through the sound.
        """
        words = self.words(text)
        speech = resample(np.asarray(waveform, dtype=np.float32), int(rate), SPEECH_RATE_HZ)
        seconds = len(speech) / SPEECH_RATE_HZ
        mismatch = f"these words are not in {seconds:.2f} s of sound; check that text and recording belong together"
        if seconds < _SHORTEST_S:
            raise UserError(mismatch)
        noisy = speech + np.random.default_rng(0).normal(0, _NOISE, len(speech))  # the same noise every time
        pcm = (np.clip(noisy, -1, 1) * 32767).astype("<i2").tobytes()
        decoder = self._decoder
        try:
            decoder.set_align_text(" ".join(words))
            self._pass(pcm)  # finds the words and the pauses between them
            if decoder.hyp() is None:
                raise RuntimeError("no path")
            decoder.set_alignment()
            self._pass(pcm)  # finds the phones inside the words
            found = [(phone.name, phone.start, phone.duration) for word in decoder.get_alignment() for phone in word]
        except (RuntimeError, TypeError, ValueError) as error:  # what pocketsphinx raises for a search without an end
            raise UserError(mismatch) from error
        return to_phones(found, seconds)

    def _pass(self, pcm: bytes) -> None:
        self._decoder.start_utt()
        try:
            self._decoder.process_raw(pcm, full_utt=True)
        finally:
            self._decoder.end_utt()


def spoken_words(text: str) -> list[str]:
    """``"It's well-known."`` -> ``["it's", "well", "known"]``: lower case, apostrophes inside words kept."""
    plain = text.replace("\u2019", "'").replace("\u02bc", "'").lower()
    return [word for word in re.findall(r"[^\W_'][^\W_]*(?:'[^\W_]+)*'?|'[^\W_]+", plain) if word.strip("'")]


def phone_name(name: str) -> str:
    """Our name of a phone of the aligner's or of CMUdict: ``"AH0"`` -> ``"ah"``; silence, breath and noise -> "sil"."""
    bare = name.strip().rstrip("012").upper()
    return bare.lower() if bare in ARPABET else SILENCE


def to_phones(segments: Iterable[tuple[str, int, int]], duration_s: float) -> list[Phone]:
    """Segments (name, first frame, frames of 10 ms) of an aligner -> [(phone, start_s, end_s)].

    Neighbouring silences become one; times are cut to ``duration_s`` and follow each other without gaps.

    Raises:
        UserError: no speech among the segments.
    """
    phones: list[Phone] = []
    for name, first, count in segments:
        phone = phone_name(name)
        start = phones[-1][2] if phones else 0.0
        end = min(round((first + count) * _FRAME_S + _CENTRE_S, 3), duration_s)
        if end <= start:
            continue
        if phones and phone == SILENCE == phones[-1][0]:
            phones[-1] = (SILENCE, phones[-1][1], end)
        else:
            phones.append((phone, start, end))
    if all(phone == SILENCE for phone, _, _ in phones):
        raise UserError("no speech was found in the sound; check that text and recording belong together")
    return phones


def read_pronunciations(path: str | os.PathLike[str]) -> dict[str, Sequence[str]]:
    """Words and their phones from lines ``WORD P H O N E S``; stress digits are dropped, ``#`` and ``;;;`` start notes.

    Raises:
        UserError: missing, no text, or a line with a phone that is not ARPAbet.
    """
    lines = read_text(path, "name a file of pronunciations").splitlines()
    words: dict[str, Sequence[str]] = {}
    for line in lines:
        parts = line.split()
        if not parts or parts[0].startswith(("#", ";;;")):
            continue
        phones = [part.upper().rstrip("012") for part in parts[1:]]
        wrong = [phone for phone in phones if phone not in ARPABET]
        if wrong or not phones:
            what = f"{wrong[0]!r} is no ARPAbet phone" if wrong else "no phones follow the word"
            raise UserError(f"{path}: {line.strip()[:60]!r}: {what}; write lines such as: tomato T AH M EY T OW")
        words[parts[0].lower()] = phones
    return words


def write_phones(path: str | os.PathLike[str], phones: Sequence[Phone]) -> None:
    """Write timings as ``phones/NAME.json`` holds them, atomically, one phone a line."""
    lines = ",\n".join(json.dumps([phone, round(start, 6), round(end, 6)]) for phone, start, end in phones)
    atomic_write_text(path, f"[\n{lines}\n]\n")


def align_file(
    wav: str | os.PathLike[str],
    text: str,
    out: str | os.PathLike[str],
    pronunciations: str | os.PathLike[str] | None = None,
    retime: Retime | None = None,
) -> list[Phone]:
    """Align one recording and write its timings to ``out``; see :meth:`Aligner.align` and :func:`align_corpus`."""
    require_target(out)
    waveform, rate = read_wav(wav)
    try:
        phones = Aligner(pronunciations).align(waveform, rate, text)
    except UserError as error:
        raise UserError(f"{wav}: {error}") from error
    phones = (retime(waveform, rate, phones) if retime else None) or phones
    write_phones(out, phones)
    return phones


def align_corpus(
    root: str | os.PathLike[str],
    text: str | os.PathLike[str] | None = None,
    topology: str | None = None,
    pronunciations: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: bool = True,
    out: str | os.PathLike[str] | None = None,
    retime: Retime | None = None,
) -> AlignmentReport:
    """Write ``phones/NAME.json`` for every utterance of a corpus folder whose words are known.

    A run that was stopped goes on where it was: readable timings that are there are kept. ``alignment.json`` in the
    corpus says what made the timings and which utterances failed.

    Args:
        root: corpus folder.
        text: transcripts, see :func:`~s2f_rl.data.transcripts.find_transcripts`; None: the corpus's own
            ``transcripts.json``.
        topology: as for :class:`~s2f_rl.data.FaceCorpus`.
        pronunciations: see :class:`Aligner`.
        overwrite: replace timings that are there.
        out: folder for ``NAME.json`` and ``alignment.json`` in place of the corpus, whose own timings then stay.
        retime: moves the boundaries that the aligner found, such as :class:`~s2f_rl.models.retiming.Retimer`.

    Returns:
        what was written, kept, and why the others failed.

    Raises:
        UserError: the corpus or the transcripts cannot be read, or the folder cannot be written.
    """
    corpus = FaceCorpus(root, split="all", topology=topology)
    source = Path(text) if text is not None else corpus.root / "transcripts.json"
    if text is None and not source.exists():
        raise UserError(f"{source}: no such file; give the words with --text FILE")
    transcripts = find_transcripts(source, corpus.names)
    aligner = Aligner(pronunciations)
    report = AlignmentReport()
    folder = corpus.root / "phones" if out is None else Path(out)
    for name in watched(corpus.names, "align", enabled=progress):
        timings = folder / f"{name}.json"
        if not overwrite and _has_phones(timings):
            report.kept.append(name)
            continue
        try:
            if name not in transcripts:
                raise UserError(f"{source} has no words for it")
            waveform, rate = read_wav(corpus.wav(corpus.index(name)))
            phones = aligner.align(waveform, rate, transcripts[name])
        except UserError as error:
            report.failed[name] = str(error)
            continue
        if retime is not None:
            moved = retime(waveform, rate, phones)
            if moved is None:
                report.unheard.append(name)
            phones = moved or phones
        write_phones(timings, phones)
        report.written.append(name)
    if report.written or report.failed:
        about = {"aligner": "pocketsphinx", "version": _version(), "model": "en-us", "transcripts": source.name}
        counts = {"written": len(report.written), "kept": len(report.kept), "failed": report.failed}
        moved_too = {"retimed": len(report.written) - len(report.unheard), "unheard": report.unheard} if retime else {}
        atomic_write_json((corpus.root if out is None else folder) / REPORT, {**about, **counts, **moved_too})
    return report


def _has_phones(path: Path) -> bool:
    try:
        return bool(read_phones(path))
    except UserError as error:
        logger.warning("%s; aligning again", error)
        return False


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pocketsphinx")
    except PackageNotFoundError:  # a build without metadata
        return "unknown"
