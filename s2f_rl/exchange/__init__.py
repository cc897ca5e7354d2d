"""Motion for other tools: blendshape weights, GLB, USD and OBJ. Importing this loads nothing heavy.

Floor plan:

- what is written: ``face`` (surface, colours, sound), ``principal`` (few shapes for a motion of vertices)
- files: ``glb``

Not here: how weights are found (:mod:`s2f_rl.data.coefficients`), films (:mod:`s2f_rl.render`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from s2f_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from s2f_rl.exchange.face import Face
    from s2f_rl.exchange.glb import write_glb
    from s2f_rl.exchange.principal import principal_shapes

_HOMES = {
    "Face": "face",
    "principal_shapes": "principal",
    "write_glb": "glb",
}
__all__ = [
    "Face",
    "principal_shapes",
    "write_glb",
]
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
