"""Films and pictures of talking faces on any machine: a software rasteriser and an mp4 writer, no GL library.

Needs the extra ``pip install "s2f_rl[render]"`` (numba, PyAV, Pillow); importing this package loads none of them.

Floor plan:

- in front: ``film`` (mp4 with sound), ``frames`` (arrays), ``still`` (pictures, contact sheets), ``regions``
  (a corpus's regions in colour), ``command`` (``s2f-rl render``)
- how a face looks: ``look`` (what a corpus tells of it), ``faces`` (triangles), ``colours``, ``camera``, ``layout``
  (panels and captions), ``curves`` (lip opening and phones under a film)
- how it is drawn: ``meshes``, ``rasteriser``, ``shading``, ``occlusion``; ``points``, where there are no triangles
- how it is written: ``mp4``, ``sound``; ``extras`` tells which package is missing

Not here: motion from speech (:mod:`s2f_rl.evaluation.animate`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from s2f_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from s2f_rl.render.camera import Camera, face_camera, frame_camera
    from s2f_rl.render.colours import find_colours
    from s2f_rl.render.command import cli_render
    from s2f_rl.render.faces import find_faces
    from s2f_rl.render.film import render_film
    from s2f_rl.render.frames import iter_frames, render_frames
    from s2f_rl.render.look import corpus_look
    from s2f_rl.render.still import contact_sheet, render_still

_HOMES = {
    "Camera": "camera",
    "cli_render": "command",
    "contact_sheet": "still",
    "corpus_look": "look",
    "face_camera": "camera",
    "find_colours": "colours",
    "find_faces": "faces",
    "frame_camera": "camera",
    "iter_frames": "frames",
    "render_film": "film",
    "render_frames": "frames",
    "render_still": "still",
}
__all__ = [
    "Camera",
    "cli_render",
    "contact_sheet",
    "corpus_look",
    "face_camera",
    "find_colours",
    "find_faces",
    "frame_camera",
    "iter_frames",
    "render_film",
    "render_frames",
    "render_still",
]
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
