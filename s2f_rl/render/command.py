"""``s2f-rl render``: predicted meshes of a corpus into one film."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.data.coefficients.rig import FOLDER, require_mesh
from s2f_rl.data.motion_files import load_motion, motion_shape
from s2f_rl.data.sequences import metres_per_unit_of
from s2f_rl.data.splits import parse_name
from s2f_rl.errors import UserError
from s2f_rl.render.curves import CurveStrip, lip_openings
from s2f_rl.render.faces import find_faces
from s2f_rl.render.film import render_film
from s2f_rl.render.frames import load_sequences
from s2f_rl.render.look import corpus_look
from s2f_rl.render.meshes import as_sequence


def load_of_corpus(path: Path, corpus: FaceCorpus) -> np.ndarray:
    """A file as [T, V, 3] in metres; the corpus's own recordings at its frame rate (VOCASET stores twice as many).

    Raises UserError for a mesh of another size than the corpus's, or in no known unit.
    """
    recordings = corpus.root / ("vertices_npy" if corpus.rig is None else FOLDER)
    own = path.parent.resolve() == recordings.resolve() and path.stem in corpus
    if own and path.is_file():
        vertices = corpus[path.stem].vertices
        if vertices is not None:
            return as_sequence(vertices, str(path))
    if corpus.rig is not None and path.is_file() and motion_shape(path)[1:] == (len(corpus.rig.names),):
        name = utterance_of(path, corpus)
        face = corpus.template(corpus[0].subject if name is None else parse_name(name)[0])
        moved = torch.from_numpy(np.array(load_motion(path), np.float32)) @ corpus.rig.basis.matrix
        return as_sequence(face + moved, str(path))
    sequence = as_sequence(path)
    if sequence.shape[1] != corpus.n_vertices:
        raise UserError(
            f"{path}: has {sequence.shape[1]} vertices, the corpus {corpus.root} {corpus.n_vertices}; "
            "name the corpus that it was made for"
        )
    unit = metres_per_unit_of(sequence[0], corpus, str(path))
    return sequence if unit == 1.0 else sequence * np.float32(unit)


def utterance_of(path: Path, corpus: FaceCorpus) -> str | None:
    """Which utterance a file shows: the corpus's NAME.npy, or a prediction NAME_condition_SUBJECT.npy."""
    names = [name for name in corpus.names if path.stem == name or path.stem.startswith(f"{name}_")]
    return max(names, key=len, default=None)


def cli_render(
    paths: Sequence[str | os.PathLike[str]],
    corpus_root: str | os.PathLike[str],
    audio: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    captions: Sequence[str] | None = None,
    size: int = 512,
    topology: str | None = None,
    curves: bool = False,
) -> Path:
    """Render mesh sequences side by side with sound.

    Args:
        paths: npy files [T, V*3] or [T, V, 3] at the corpus's frame rate, in metres or the corpus's own unit:
            predictions, or recordings from the corpus's own ``vertices_npy``. Of a corpus of coefficients also
            coefficients [T, K].
        corpus_root: the corpus; gives frame rate, triangles (without them, dots are drawn), and colours: those of the
            first file's speaker, where it has them.
        audio: sound file of any rate; None for a silent film.
        out: the film, a name that ends in .mp4.
        captions: one line over each sequence; the files' names when None.
        size: side of one picture, pixels.
        topology: "vocaset" or "biwi"; None reads it off the corpus.
        curves: draw the opening of the lips under the faces, with the phones where the corpus has their timings.

    Returns:
        The path of the film.

    Raises:
        UserError: anything missing or wrong, naming the file and the remedy.
    """
    corpus = FaceCorpus(corpus_root, "all", topology)
    require_mesh(corpus, "a film")
    files = [Path(path) for path in paths]
    if not files:
        raise UserError("no mesh files to render; pass at least one .npy")
    names = [str(path) for path in files]
    sequences = load_sequences([load_of_corpus(path, corpus) for path in files], names)
    utterance = utterance_of(files[0], corpus)
    captions = [path.stem for path in files] if captions is None else captions
    strip = None
    if curves:
        phones = corpus.read_phones(utterance) if utterance is not None else None
        strip = CurveStrip(lip_openings(sequences, corpus.regions), captions, corpus.fps, phones or ())
    return render_film(
        sequences,
        captions,
        find_faces(corpus_root, corpus.n_vertices),
        audio,
        corpus.fps,
        out,
        size,
        names=names,
        strip=strip,
        **corpus_look(corpus, sequences, None if utterance is None else parse_name(utterance)[0]),
    )
