"""What a corpus's faces do: the ``subspace`` of their motion, and how ``unseen_faces`` differ at rest.

Measured once on the training subjects; corruptions, training and calibration read it. The corpus itself is in
``s2f_rl.data``, measures of one motion are in ``s2f_rl.metrics``.
"""

from typing import TYPE_CHECKING

from s2f_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from s2f_rl.rewards.motion.subspace import MotionSubspace, principal_directions, with_vertices
    from s2f_rl.rewards.motion.unseen_faces import polynomial_fields, unseen_differences

_HOMES = {
    "MotionSubspace": "subspace",
    "polynomial_fields": "unseen_faces",
    "principal_directions": "subspace",
    "unseen_differences": "unseen_faces",
    "with_vertices": "subspace",
}
__all__ = [
    "MotionSubspace",
    "polynomial_fields",
    "principal_directions",
    "unseen_differences",
    "with_vertices",
]
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
