"""A camera that frames a face by itself, the same for every sequence and frame of a film."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_FRAMES_LOOKED_AT = 16
_DISTANCE = 5.0  # in half face heights: a portrait lens, no big nose


@dataclass(frozen=True)
class Camera:
    """Perspective camera in front of the face, which looks along +z with y up, as in VOCASET and BIWI.

    Attributes:
        centre: point looked at, metres.
        half_height: half of what the square picture shows at the centre's depth, metres.
        distance: from the eye to the centre, metres.
        yaw_degrees: the camera's way round the face; positive shows the side at +x.
        pitch_degrees: positive looks from above.
    """

    centre: tuple[float, float, float]
    half_height: float
    distance: float
    yaw_degrees: float = 0.0
    pitch_degrees: float = 0.0

    def rotation(self) -> np.ndarray:
        """World to view directions: float64 [3, 3]; in view space x is right, y up and z towards the eye."""
        yaw, pitch = np.radians(self.yaw_degrees), np.radians(self.pitch_degrees)
        turn = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
        tilt = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
        return tilt @ turn

    def project(self, vertices: np.ndarray, size: int) -> np.ndarray:
        """Vertices [V, 3] to [V, 3]: x and y in pixels of a ``size`` x ``size`` picture (y down), and nearness.

        Nearness is distance / depth: 1 at the centre, more in front of it; 0 for what lies behind the eye. It is
        linear in screen space, so the rasteriser may interpolate it.
        """
        view = (np.asarray(vertices, np.float64) - self.centre) @ self.rotation().T
        depth = self.distance - view[:, 2]
        nearness = np.where(depth > 1e-3 * self.distance, self.distance / np.maximum(depth, 1e-12), 0.0)
        scale = 0.5 * size / self.half_height * nearness
        return np.stack([0.5 * size + scale * view[:, 0], 0.5 * size - scale * view[:, 1], nearness], -1)


def frame_camera(
    sequences: Sequence[np.ndarray], margin: float = 0.06, yaw_degrees: float = 0.0, pitch_degrees: float = 0.0
) -> Camera:
    """A camera that shows all of several sequences.

    Args:
        sequences: arrays [T, V, 3], metres, finite; up to 16 frames of each, evenly spread, are looked at. Pass only
            the vertices of a region for a close-up.
        margin: free border as a share of the half picture; it also takes up motion between the frames looked at.
        yaw_degrees, pitch_degrees: the view, see :class:`Camera`.
    """
    points = np.concatenate(
        [
            np.asarray(
                sequence[np.unique(np.linspace(0, len(sequence) - 1, _FRAMES_LOOKED_AT).astype(int))], np.float64
            ).reshape(-1, 3)
            for sequence in sequences
        ]
    )
    centre = (points.min(0) + points.max(0)) / 2
    radius = max(float(np.abs(points - centre).max()), 1e-9)
    centre_xyz = (float(centre[0]), float(centre[1]), float(centre[2]))
    camera = Camera(centre_xyz, radius, _DISTANCE * radius, yaw_degrees, pitch_degrees)
    # Perspective enlarges what is near: measure the reach in the picture itself.
    reach = np.abs(camera.project(points, 2)[:, :2] - 1).max()
    return Camera(
        centre_xyz, radius * max(float(reach), 1e-9) * (1 + margin), _DISTANCE * radius, yaw_degrees, pitch_degrees
    )


def face_camera(
    sequences: Sequence[np.ndarray],
    regions: Mapping[str, npt.ArrayLike],
    yaw_degrees: float = 0.0,
    pitch_degrees: float = 0.0,
) -> Camera:
    """:func:`frame_camera` close on the region ``face`` (FLAME's mask) where it is known, else on the whole mesh.

    A head with its neck leaves few pixels for the mouth, which is what one looks at.
    """
    if "face" not in regions:
        return frame_camera(sequences, yaw_degrees=yaw_degrees, pitch_degrees=pitch_degrees)
    indices = np.asarray(regions["face"], dtype=np.int64).reshape(-1)
    return frame_camera([sequence[:, indices] for sequence in sequences], 0.2, yaw_degrees, pitch_degrees)
