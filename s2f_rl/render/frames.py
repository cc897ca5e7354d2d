"""Pictures of a mesh sequence, frame by frame or all at once."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from s2f_rl.errors import UserError
from s2f_rl.render.camera import Camera, frame_camera
from s2f_rl.render.colours import check_colours, region_colours
from s2f_rl.render.faces import check_faces, outward
from s2f_rl.render.meshes import Sequence3D, as_sequence, check_finite
from s2f_rl.render.shading import Lighting, to_linear

_log = logging.getLogger(__name__)
SIZES = (16, 4096)
_LEAST_LIGHT = 0.05


class Painter(Protocol):
    """Draws meshes of one topology into pictures of one size."""

    def frame(self, vertices: np.ndarray) -> np.ndarray:
        """Vertices [V, 3] in metres to RGB, uint8 [size, size, 3]."""
        ...


def check_size(size: int) -> int:
    """Side of a picture in pixels. Raises UserError outside 16 to 4096."""
    if not isinstance(size, (int, np.integer)) or not SIZES[0] <= size <= SIZES[1]:
        raise UserError(f"size is {size}; pass {SIZES[0]} to {SIZES[1]} pixels")
    return int(size)


def load_sequences(sequences: Sequence[Sequence3D], names: Sequence[str] | None = None) -> list[np.ndarray]:
    """Sequences that are to be seen together: arrays [T, V, 3] of one V, all numbers finite. Raises UserError."""
    if len(sequences) == 0:
        raise UserError("no sequences to render; pass at least one")
    names = names or [f"sequence {i}" for i in range(len(sequences))]
    loaded = [as_sequence(sequence, name) for sequence, name in zip(sequences, names, strict=True)]
    for sequence, name in zip(loaded, names, strict=True):
        if sequence.shape[1] != loaded[0].shape[1]:
            raise UserError(
                f"{name}: has {sequence.shape[1]} vertices and {names[0]} {loaded[0].shape[1]}; "
                "render meshes of one topology together"
            )
        check_finite(sequence, name)
    return loaded


def make_painter(
    sequences: Sequence[np.ndarray],
    faces: np.ndarray | None,
    size: int,
    camera: Camera | None = None,
    colours: np.ndarray | None = None,
    samples: int = 2,
    lighting: Lighting | None = None,
) -> Painter:
    """What draws the frames of these sequences [T, V, 3], see :func:`render_frames`; dots where there are no faces."""
    if samples not in (1, 2, 3, 4):
        raise UserError(f"samples is {samples}; pass 1 (no anti-aliasing) to 4")
    n_vertices = sequences[0].shape[1]
    camera = camera or frame_camera(sequences)
    srgb = region_colours(n_vertices, {}) if colours is None else check_colours(colours, n_vertices)
    albedo = to_linear(srgb)
    first = np.asarray(sequences[0][0], np.float64)
    if faces is None:
        from s2f_rl.render.points import PointRasteriser

        _log.warning("no triangles for these meshes: drawing their %d vertices as dots", n_vertices)
        return PointRasteriser(first, camera, check_size(size), albedo, samples, lighting)
    from s2f_rl.render.occlusion import sky_share
    from s2f_rl.render.rasteriser import Rasteriser

    triangles = outward(check_faces(faces, n_vertices), first)
    # Hollows get less of every light: eye sockets, nostrils and, above all, the inside of the mouth.
    albedo = albedo * (_LEAST_LIGHT + (1 - _LEAST_LIGHT) * sky_share(first, triangles)[:, None])
    return Rasteriser(triangles, camera, check_size(size), albedo, samples, lighting)


def iter_frames(
    vertices: Sequence3D,
    faces: np.ndarray | None,
    size: int = 512,
    camera: Camera | None = None,
    colours: np.ndarray | None = None,
    samples: int = 2,
    lighting: Lighting | None = None,
) -> Iterator[np.ndarray]:
    """:func:`render_frames` one picture at a time: yields uint8 [size, size, 3], whatever the length of the film."""
    (sequence,) = load_sequences([vertices], ["vertices"])
    painter = make_painter([sequence], faces, size, camera, colours, samples, lighting)
    for frame in sequence:
        yield painter.frame(frame)


def render_frames(
    vertices: Sequence3D,
    faces: np.ndarray | None,
    size: int = 512,
    camera: Camera | None = None,
    colours: np.ndarray | None = None,
    samples: int = 2,
    lighting: Lighting | None = None,
) -> np.ndarray:
    """Pictures of a mesh sequence.

    Args:
        vertices: [T, V*3] or [T, V, 3] in metres (array, tensor, or path of an npy file).
        faces: integer triangles [F, 3] of either winding; None draws the vertices as dots, with a warning.
        size: side of the square picture, pixels.
        camera: None frames the face from the front, the same for all frames.
        colours: uint8 [V, 3], sRGB, of the vertices (see :mod:`s2f_rl.render.colours`); None for skin throughout.
        samples: n x n samples per pixel.
        lighting: lights and background.

    Returns:
        uint8 [T, size, size, 3], RGB.

    Raises:
        UserError: wrong shapes, coordinates that are not finite, triangles of another mesh, or the extra is missing.
    """
    return np.stack(list(iter_frames(vertices, faces, size, camera, colours, samples, lighting)))
