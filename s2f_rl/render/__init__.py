"""Films and pictures of talking faces on any machine: a software rasteriser and an mp4 writer, no GL library.

Needs the extra ``pip install "s2f_rl[render]"`` (numba, PyAV, Pillow); importing this package loads none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
    "corpus_look": "look",
    "face_camera": "camera",
    "frame_camera": "camera",
    "cli_render": "command",
    "find_faces": "faces",
    "render_film": "film",
    "iter_frames": "frames",
    "render_frames": "frames",
    "contact_sheet": "still",
    "find_colours": "colours",
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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
