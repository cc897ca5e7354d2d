"""Faces without a triangle list: a cloud of shaded dots."""

from __future__ import annotations

import numpy as np

from s2f_rl.render.camera import Camera
from s2f_rl.render.rasteriser import average_samples, compiled
from s2f_rl.render.shading import Lighting, background_image, shade_vertices

_NEIGHBOURS = 12


def estimate_normals(vertices: np.ndarray) -> np.ndarray:
    """Unit normals of a point cloud [V, 3]: the flattest direction of the 12 nearest points, turned outward."""
    from scipy.spatial import cKDTree

    points = np.asarray(vertices, np.float64)
    _, nearest = cKDTree(points).query(points, k=min(_NEIGHBOURS, len(points)))
    around = points[nearest.reshape(len(points), -1)]
    around = around - around.mean(1, keepdims=True)
    _, axes = np.linalg.eigh(around.swapaxes(1, 2) @ around)
    normals = axes[:, :, 0]
    return normals * np.where(((points - points.mean(0)) * normals).sum(1) < 0, -1.0, 1.0)[:, None]


def dot_radii(vertices: np.ndarray) -> np.ndarray:
    """Radius in metres at which the dots of a cloud [V, 3] cover its surface: [V], 0.55 of the way to the 8th nearest.

    (On a square grid the 8th is a diagonal neighbour, and half a diagonal covers the cell.)
    """
    from scipy.spatial import cKDTree

    points = np.asarray(vertices, np.float64)
    if len(points) < 2:
        return np.full(len(points), 1e-3)
    return 0.55 * cKDTree(points).query(points, k=min(9, len(points)))[0][:, -1]


@compiled
def fill_discs(screen, colours, radii, nearness, image):
    """Draw a disc for every vertex, of ``radii`` [V] pixels at nearness 1; other arguments as in ``fill_triangles``."""
    height, width = nearness.shape
    for v in range(screen.shape[0]):
        x, y, near = screen[v, 0], screen[v, 1], screen[v, 2]
        if near <= 0.0 or not np.isfinite(x + y):
            continue
        reach = max(0.71, radii[v] * near)  # at least the pixel it lies in
        left, right = max(0.0, np.ceil(x - reach - 0.5)), min(width - 1.0, np.floor(x + reach - 0.5))
        top, bottom = max(0.0, np.ceil(y - reach - 0.5)), min(height - 1.0, np.floor(y + reach - 0.5))
        if left > right or top > bottom:
            continue
        for row in range(int(top), int(bottom) + 1):
            for column in range(int(left), int(right) + 1):
                dx, dy = column + 0.5 - x, row + 0.5 - y
                if dx * dx + dy * dy > reach * reach or near <= nearness[row, column]:
                    continue
                nearness[row, column] = near
                for channel in range(3):
                    image[row, column, channel] = np.uint8(colours[v, channel])


class PointRasteriser:
    """As :class:`s2f_rl.render.rasteriser.Rasteriser`, for meshes without triangles.

    Normals come from ``reference`` [V, 3] and stay the same in all frames: a face hardly turns within an utterance.
    """

    def __init__(
        self,
        reference: np.ndarray,
        camera: Camera,
        size: int,
        albedo: np.ndarray,
        samples: int = 2,
        lighting: Lighting | None = None,
    ) -> None:
        self.camera, self.size, self.samples = camera, size, samples
        lighting = lighting or Lighting()
        normals = (estimate_normals(reference) @ camera.rotation().T).astype(np.float32)
        self._seen = normals[:, 2] > -0.2  # the far side of the skull would shine through between the dots
        colours = shade_vertices(normals, np.asarray(albedo, np.float32), lighting)
        self._colours = np.ascontiguousarray(colours[self._seen])
        self._radii = dot_radii(reference)[self._seen] * (0.5 * size * samples / camera.half_height)
        self._background = background_image(size * samples, lighting)

    def frame(self, vertices: np.ndarray) -> np.ndarray:
        """Draw vertices [V, 3] in metres: uint8 [size, size, 3], RGB."""
        image = self._background.copy()
        screen = np.ascontiguousarray(self.camera.project(vertices, self.size * self.samples)[self._seen])
        fill_discs(screen, self._colours, self._radii, np.zeros(image.shape[:2], np.float32), image)
        out = np.empty((self.size, self.size, 3), np.uint8)
        average_samples(image, out)
        return out
