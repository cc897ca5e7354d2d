"""CodeTalker (Xing et al., CVPR 2023): motion as words of a codebook, and a transformer that picks them from speech.

Floor plan:

- the actor: ``actor`` (:class:`CodeTalker`)
- stage 1, the vector-quantised autoencoder of motion: ``codebook`` over ``frame_mixer`` (frames that see each other);
  ``prefix`` decodes the newest frame of a motion that grows; ``code_use`` (codes that are never chosen) and
  ``codebook_files`` (``codebook.pt``) are for its training
- stage 2, from speech and past motion to features, whose nearest codes are the motion: ``code_decoder``
- the categoricals over codes that RL tunes: ``policy``
- published names and shapes: ``published``

Not here: audio encoders and the layers that FaceFormer has too (:mod:`s2f_rl.models`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from s2f_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from s2f_rl.models.codetalker.actor import CodeTalker
    from s2f_rl.models.codetalker.codebook import Codebook
    from s2f_rl.models.codetalker.codebook_files import TrainedCodebook

_HOMES = {"CodeTalker": "actor", "Codebook": "codebook", "TrainedCodebook": "codebook_files"}
__all__ = ["CodeTalker", "Codebook", "TrainedCodebook"]
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
