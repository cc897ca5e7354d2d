"""Motion for other tools: blendshape weights, GLB, USD and OBJ. Importing this loads nothing heavy.

Floor plan:

- in front: ``command`` (``s2f-rl blendshapes``, ``s2f-rl convert``); ``sources`` finds motions and their faces
- what is written: ``face`` (surface, colours, sound), ``principal`` (few shapes for a motion of vertices), ``names``
  (a table of names that the user edits)
- files: ``weights`` (CSV, JSON), ``glb``, ``usd``, ``obj``; ``scene`` takes GLB or USD by
  the name

Not here: how weights are found (:mod:`s2f_rl.data.coefficients`), films (:mod:`s2f_rl.render`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from s2f_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from s2f_rl.exchange.command import blendshapes, convert
    from s2f_rl.exchange.face import Face
    from s2f_rl.exchange.glb import write_glb
    from s2f_rl.exchange.names import read_names, renamed
    from s2f_rl.exchange.obj import write_obj_sequence
    from s2f_rl.exchange.principal import principal_shapes
    from s2f_rl.exchange.scene import write_rig, write_scene
    from s2f_rl.exchange.usd import write_usd_points, write_usd_shapes
    from s2f_rl.exchange.weights import write_csv, write_json

_HOMES = {
    "Face": "face",
    "blendshapes": "command",
    "convert": "command",
    "principal_shapes": "principal",
    "read_names": "names",
    "renamed": "names",
    "write_csv": "weights",
    "write_glb": "glb",
    "write_json": "weights",
    "write_obj_sequence": "obj",
    "write_rig": "scene",
    "write_scene": "scene",
    "write_usd_points": "usd",
    "write_usd_shapes": "usd",
}
__all__ = [
    "Face",
    "blendshapes",
    "convert",
    "principal_shapes",
    "read_names",
    "renamed",
    "write_csv",
    "write_glb",
    "write_json",
    "write_obj_sequence",
    "write_rig",
    "write_scene",
    "write_usd_points",
    "write_usd_shapes",
]
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
