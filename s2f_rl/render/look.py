"""How the faces of a corpus are shown: near, and in their own colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from s2f_rl.render.camera import Camera, face_camera
from s2f_rl.render.colours import find_colours
from s2f_rl.render.frames import load_sequences
from s2f_rl.render.meshes import Sequence3D

if TYPE_CHECKING:
    from s2f_rl.data import FaceCorpus


class Look(TypedDict):
    """Arguments of :func:`s2f_rl.render.render_film` and its like."""

    camera: Camera
    colours: np.ndarray


def corpus_look(corpus: FaceCorpus, sequences: Sequence[Sequence3D], subject: str | None = None) -> Look:
    """Camera and colours for sequences of a corpus: ``render_film(sequences, ..., **corpus_look(corpus, sequences))``.

    Args:
        corpus: gives the regions, and the colours where its folder has them.
        sequences: all that is to be seen together, [T, V*3] or [T, V, 3] each.
        subject: whose colours to use where the corpus has them by speaker.

    Raises:
        UserError: sequences that cannot be rendered, or colours that do not fit.
    """
    return {
        "camera": face_camera(load_sequences(sequences), corpus.regions),
        "colours": find_colours(corpus.root, corpus.n_vertices, corpus.regions, subject),
    }
