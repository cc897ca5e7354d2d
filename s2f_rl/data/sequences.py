"""Mesh sequences that come from elsewhere than a corpus: of which mesh, and in which unit."""

from __future__ import annotations

import numpy as np

from s2f_rl.data.contract import Corpus, metres_per_file_unit, place_of
from s2f_rl.data.mesh_identity import MeshIdentity, difference
from s2f_rl.errors import UserError

_SAME_SIZE = 1.5


def metres_per_unit_of(frame: np.ndarray, corpus: Corpus, what: str) -> float:
    """Unit of a sequence of a corpus's mesh, told from its size: 1 for metres, or that of the corpus's files.

    What this project writes is in metres; recordings that were copied out of a corpus are in the corpus's own unit.

    Args:
        frame: a face of the sequence, [V*3] or [V, 3]. corpus: a :class:`~s2f_rl.data.FaceCorpus`.
        what: how a message calls the sequence.

    Raises:
        UserError: another size than both, or another mesh.
    """
    face = np.asarray(frame, dtype=np.float64).reshape(-1, 3)
    if not np.isfinite(face).all() or not np.ptp(face, axis=0).any():
        return 1.0  # not finite is told by whoever reads the whole; a single point has no size
    template = corpus.template(corpus[0].subject).numpy().reshape(-1, 3)
    size, usual = (float(np.ptp(points, axis=0).max()) for points in (face, template))
    for unit in (1.0, metres_per_file_unit(corpus)):
        if usual / _SAME_SIZE < size * unit < usual * _SAME_SIZE:
            other = difference(MeshIdentity.of(face * unit), corpus.mesh_identity, what, place_of(corpus))
            if other is not None:
                raise UserError(f"{other}, or name the corpus that it was made for")
            return unit
    raise UserError(
        f"{what}: its face is {size:.3g} long, the faces of {place_of(corpus)} are {usual:.3g} m; write it in metres"
    )
