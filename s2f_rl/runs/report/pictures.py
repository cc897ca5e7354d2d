"""Stills and films of the utterances that a report shows. Needs the extra ``render``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from s2f_rl.data import FaceCorpus
from s2f_rl.render.extras import import_extra
from s2f_rl.render.faces import find_faces
from s2f_rl.render.film import render_film
from s2f_rl.render.look import corpus_look
from s2f_rl.render.still import contact_sheet
from s2f_rl.runs.report.motions import Shown

SIZE = 224
"""Side of one face, pixels."""
FILMS = "films"
"""Folder of a run's films."""


def make_stills(corpus: FaceCorpus, shown: Sequence[Shown]) -> list[bytes]:
    """A JPEG for each utterance: its motions side by side where the mouth is widest open (of the truth, if known).

    Raises:
        UserError: the extra is missing, or a motion cannot be drawn.
    """
    faces = find_faces(corpus.root, corpus.n_vertices)
    pictures = []
    for each in shown:
        first = next(iter(each.motions))
        opening = each.opening_mm.get(first)
        frame = int(opening.argmax()) if opening is not None else _furthest(each.motions[first])
        look = corpus_look(corpus, list(each.motions.values()), each.subject)
        meshes = [motion[frame] for motion in each.motions.values()]
        sheet = contact_sheet(meshes, faces, None, list(each.motions), len(meshes), SIZE, samples=2, **look)
        stream = io.BytesIO()
        import_extra("PIL.Image").fromarray(sheet).save(stream, format="JPEG", quality=88)
        pictures.append(stream.getvalue())
    return pictures


def make_films(run: Path, corpus: FaceCorpus, shown: Sequence[Shown], keep: bool = False) -> list[Path]:
    """``films/NAME.mp4`` in the run's folder, the motions side by side with sound.

    With ``keep`` those stay that are newer than the run's actor.

    Raises:
        UserError: the extra is missing, or a motion cannot be drawn.
    """
    faces = find_faces(corpus.root, corpus.n_vertices)
    films = []
    for each in shown:
        out = run / FILMS / f"{each.name}.mp4"
        if keep and out.exists() and out.stat().st_mtime_ns > (run / "best.pt").stat().st_mtime_ns:
            films.append(out)
            continue
        motions = list(each.motions.values())
        look = corpus_look(corpus, motions, each.subject)
        films.append(render_film(motions, list(each.motions), faces, each.sound, corpus.fps, out, SIZE, **look))
    return films


def _furthest(motion: np.ndarray) -> int:
    return int(np.square(motion - motion.mean(axis=0)).sum(axis=1).argmax())
