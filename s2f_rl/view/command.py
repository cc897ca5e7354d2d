"""``s2f-rl view``, and one sentence of a corpus as a page."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from s2f_rl.data import FaceCorpus
from s2f_rl.data.clock import Clock
from s2f_rl.data.coefficients.rig import require_mesh
from s2f_rl.data.meshes import read_triangles
from s2f_rl.data.splits import parse_name
from s2f_rl.data.units import PLAUSIBLE_EXTENT_M
from s2f_rl.errors import UserError
from s2f_rl.render.command import load_of_corpus, utterance_of
from s2f_rl.render.faces import find_faces
from s2f_rl.render.frames import load_sequences
from s2f_rl.render.look import corpus_look
from s2f_rl.render.meshes import Sequence3D
from s2f_rl.render.sound import Audio, load_sound
from s2f_rl.rewards.judge.judge import Judge, load_scorer
from s2f_rl.rewards.model.meeting import refuse_other_corpus, refuse_other_rate
from s2f_rl.rewards.model.sequence_scorer import SequenceScorer
from s2f_rl.view.compress import ERROR_MM, Packed
from s2f_rl.view.measures import Measured, face_measures, score_measures
from s2f_rl.view.page import Table, page_target, write_page

_log = logging.getLogger(__name__)
_FPS = 30.0


def show_utterance(
    corpus: FaceCorpus,
    sequences: Sequence[Sequence3D],
    captions: Sequence[str],
    out: str | os.PathLike[str],
    *,
    utterance: str | None = None,
    audio: Audio | None = None,
    scorer: SequenceScorer | None = None,
    table: Table | None = None,
    error_mm: float = ERROR_MM,
    names: Sequence[str] | None = None,
) -> Packed:
    """Write sequences of a corpus as a page, with its triangles, colours and curves: see :func:`write_page`.

    Args:
        corpus: what they are of. sequences: each [T, V*3] or [T, V, 3], metres, at the corpus's rate.
        captions: one for each.
        out: the page.
        utterance: whose sound, phones and speaker's colours to use; None: no phones, and no sound unless given.
        audio: sound in place of the utterance's.
        scorer: a reward or a judge, whose scores are drawn.
        table, error_mm, names: as in :func:`write_page`.

    Raises:
        UserError: what :func:`write_page` raises; a scorer of another mesh or rate, or without sound to score.
    """
    loaded = load_sequences(sequences, names)
    speaker, title, phones = None, captions[0] if len(captions) else "", None
    if utterance is not None:
        words = corpus.read_transcript(utterance)
        speaker, title = parse_name(utterance)[0], f"{utterance}: {words}" if words else utterance
        phones = corpus.read_phones(utterance)
        audio = os.fspath(corpus.wav(corpus.index(utterance))) if audio is None else audio
    measured = face_measures(loaded, captions[0], corpus.regions) if len(captions) else []
    if scorer is not None:
        refuse_other_corpus(scorer, corpus)
        measured += _scores(loaded, scorer, audio, corpus.clock)
    return write_page(
        loaded,
        captions,
        find_faces(corpus.root, corpus.n_vertices),
        audio,
        corpus.fps,
        out,
        title=title,
        measured=measured,
        phones=phones or (),
        table=table,
        error_mm=error_mm,
        names=names,
        **corpus_look(corpus, loaded, speaker),
    )


def cli_view(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    corpus_root: str | os.PathLike[str] | None = None,
    audio: str | os.PathLike[str] | None = None,
    captions: Sequence[str] | None = None,
    mesh: str | os.PathLike[str] | None = None,
    fps: float | None = None,
    reward: str | os.PathLike[str] | None = None,
    error_mm: float = ERROR_MM,
    topology: str | None = None,
) -> Packed:
    """Write mesh sequences side by side as one page.

    Args:
        paths: files [T, V*3] or [T, V, 3] in metres; with a corpus also in its own unit, or recordings of its own.
        out: the page, a name that ends in .html.
        corpus_root: the corpus they belong to, for triangles, frame rate, colours, lips, and the first file's
            utterance: its phones, and its sound where ``audio`` is None.
        audio: sound file of any rate.
        captions: one for each; the files' names when None.
        mesh: OBJ, PLY, GLB or npy with the triangles, where there is no corpus; without either, dots are drawn.
        fps: frames per second where there is no corpus; 30 when None.
        reward: folder of a reward or a judge whose scores to draw.
        error_mm: wanted mean distance between a shown and a true vertex.
        topology: "vocaset" or "biwi"; None reads it off the corpus.

    Raises:
        UserError: anything missing or wrong, naming the file and the remedy.
    """
    page_target(out)  # before what takes minutes
    files = [Path(path) for path in paths]
    names = [str(path) for path in files]
    captions = [path.stem for path in files] if captions is None else captions
    if len(captions) != len(files):
        raise UserError(f"{len(captions)} captions for {len(files)} sequences; pass one for each")
    scorer = None if reward is None else load_scorer(reward)
    if corpus_root is not None:
        for name, value in (("--mesh", mesh), ("--fps", fps)):
            if value is not None:
                raise UserError(f"{name}: a corpus has its own; leave it out, or --corpus")
        corpus = FaceCorpus(corpus_root, "all", topology)
        require_mesh(corpus, "a page of faces")
        utterance = utterance_of(files[0], corpus)
        return show_utterance(
            corpus,
            [load_of_corpus(path, corpus) for path in files],
            captions,
            out,
            utterance=utterance,
            audio=audio,
            scorer=scorer,
            error_mm=error_mm,
            names=names,
        )
    loaded, rate = load_sequences(files, names), _FPS if fps is None else fps
    for sequence, name in zip(loaded, names, strict=True):
        size = float(np.ptp(np.asarray(sequence[0], np.float64), axis=0).max())
        if not PLAUSIBLE_EXTENT_M[0] <= size <= PLAUSIBLE_EXTENT_M[1]:
            _log.warning("%s: in metres it is %.3g m long; if its unit is another, name its --corpus", name, size)
    measured = face_measures(loaded, captions[0], {})
    if scorer is not None:
        refuse_other_rate(scorer, rate, str(reward), names[0])
        measured += _scores(loaded, scorer, audio, Clock(rate))
    return write_page(
        loaded, captions, None if mesh is None else read_triangles(Path(mesh)), audio, rate, out,
        title=files[0].stem, measured=measured, error_mm=error_mm, names=names,
    )  # fmt: skip


def _scores(
    sequences: Sequence[np.ndarray], scorer: SequenceScorer, audio: Audio | None, clock: Clock
) -> list[Measured]:
    if audio is None:
        raise UserError("a reward scores motion against speech; give --audio, the sound it belongs to")
    kind = "Judge" if isinstance(scorer, Judge) else "Reward"
    return score_measures(sequences, scorer, kind, *load_sound(audio), clock)
