"""Triangles to pixels with numba: z-buffer, smooth shading, supersampling."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from s2f_rl.render.camera import Camera
from s2f_rl.render.extras import import_extra
from s2f_rl.render.shading import Lighting, background_image, shade_vertices

_numba = import_extra("numba")
_OPTIONS: dict[str, object] = {"nogil": True, "error_model": "numpy"}


def compiled(function: Callable) -> Callable:
    """Compile with numba, cached on disk where there is a place to write."""
    try:
        return _numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # "no locator available": neither the package nor the user's cache folder can be written
        return _numba.njit(**_OPTIONS)(function)


@compiled
def vertex_normals(vertices, faces, normals):
    """Unit vertex normals, the area-weighted mean of the faces around; zero where there is none."""
    for v in range(normals.shape[0]):
        normals[v, 0] = 0.0
        normals[v, 1] = 0.0
        normals[v, 2] = 0.0
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ux, uy, uz = (vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2])
        wx, wy, wz = (vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2])
        nx, ny, nz = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
        for v in (a, b, c):
            normals[v, 0] += nx
            normals[v, 1] += ny
            normals[v, 2] += nz
    for v in range(normals.shape[0]):
        length = np.sqrt(normals[v, 0] ** 2 + normals[v, 1] ** 2 + normals[v, 2] ** 2)
        if length > 0.0:
            normals[v, 0] /= length
            normals[v, 1] /= length
            normals[v, 2] /= length


@compiled
def fill_triangles(screen, faces, colours, back_colour, nearness, image):
    """Draw faces [F, 3] into ``image`` uint8 [H, W, 3], tested against and written to ``nearness`` float32 [H, W].

    ``screen`` float64 [V, 3] as :meth:`Camera.project` gives it, ``colours`` float32 [V, 3] in 0..255. A sample lies
    in the middle of its pixel and is drawn when it is inside or on an edge, and nearer than what is there. Faces
    whose back is seen get ``back_colour`` (the inside of the mouth and of the skull).
    """
    height, width = nearness.shape
    for f in range(faces.shape[0]):
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        near_i, near_j, near_k = screen[i, 2], screen[j, 2], screen[k, 2]
        if near_i <= 0.0 or near_j <= 0.0 or near_k <= 0.0:
            continue
        x0, y0 = screen[i, 0], screen[i, 1]
        x1, y1 = screen[j, 0], screen[j, 1]
        x2, y2 = screen[k, 0], screen[k, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area == 0.0 or not np.isfinite(area):
            continue
        left = max(0.0, np.ceil(min(x0, x1, x2) - 0.5))
        right = min(width - 1.0, np.floor(max(x0, x1, x2) - 0.5))
        top = max(0.0, np.ceil(min(y0, y1, y2) - 0.5))
        bottom = min(height - 1.0, np.floor(max(y0, y1, y2) - 0.5))
        if left > right or top > bottom:
            continue
        # y points down on the screen: an outward, anticlockwise face has a negative area there.
        back = area > 0.0
        scale = 1.0 / area
        across1, down1 = (y2 - y0) * scale, (x0 - x2) * scale
        across2, down2 = (y0 - y1) * scale, (x1 - x0) * scale
        across0, down0 = -across1 - across2, -down1 - down2
        near1, near2 = near_j - near_i, near_k - near_i
        near_step = across1 * near1 + across2 * near2
        red0, green0, blue0 = back_colour[0], back_colour[1], back_colour[2]
        red1 = red2 = green1 = green2 = blue1 = blue2 = np.float32(0.0)
        if not back:
            red0, green0, blue0 = colours[i, 0], colours[i, 1], colours[i, 2]
            red1, green1, blue1 = colours[j, 0] - red0, colours[j, 1] - green0, colours[j, 2] - blue0
            red2, green2, blue2 = colours[k, 0] - red0, colours[k, 1] - green0, colours[k, 2] - blue0
        for row in range(int(top), int(bottom) + 1):
            dy = row + 0.5 - y0
            # The three barycentric coordinates are linear in x: where each is >= 0 bounds the row's span.
            low, high = left + 0.5 - x0, right + 0.5 - x0
            for slope, value in ((across0, 1.0 + dy * down0), (across1, dy * down1), (across2, dy * down2)):
                if slope > 0.0:
                    low = max(low, -value / slope)
                elif slope < 0.0:
                    high = min(high, -value / slope)
                elif value < 0.0:
                    high = -np.inf
            # A hair wider than exact: rounding must not leave a crack between neighbours.
            start, stop = np.ceil(low + x0 - 0.5 - 1e-9), np.floor(high + x0 - 0.5 + 1e-9)
            if start > right or stop < start:
                continue
            dx = start + 0.5 - x0
            b1, b2 = dx * across1 + dy * down1, dx * across2 + dy * down2
            near = near_i + b1 * near1 + b2 * near2
            for column in range(int(start), int(min(stop, right)) + 1):
                if near > nearness[row, column]:
                    nearness[row, column] = near
                    image[row, column, 0] = np.uint8(red0 + b1 * red1 + b2 * red2)
                    image[row, column, 1] = np.uint8(green0 + b1 * green1 + b2 * green2)
                    image[row, column, 2] = np.uint8(blue0 + b1 * blue1 + b2 * blue2)
                near += near_step
                b1 += across1
                b2 += across2


@compiled
def average_samples(image, out):
    """Mean of the n x n samples of each pixel: uint8 [n*H, n*W, 3] to uint8 [H, W, 3]."""
    height, width = out.shape[0], out.shape[1]
    n = image.shape[0] // height
    if n == 2:  # the usual case, unrolled: six times as fast
        for row in range(height):
            for column in range(width):
                for channel in range(3):
                    total = (
                        np.uint32(image[2 * row, 2 * column, channel])
                        + np.uint32(image[2 * row, 2 * column + 1, channel])
                        + np.uint32(image[2 * row + 1, 2 * column, channel])
                        + np.uint32(image[2 * row + 1, 2 * column + 1, channel])
                    )
                    out[row, column, channel] = (total + np.uint32(2)) >> np.uint32(2)
        return
    for row in range(height):
        for column in range(width):
            for channel in range(3):
                mean = n * n // 2
                for y in range(n):
                    for x in range(n):
                        mean += image[row * n + y, column * n + x, channel]
                out[row, column, channel] = mean // (n * n)


class Rasteriser:
    """Draws one mesh after another with the same triangles, camera and light. Holds its buffers; not thread-safe.

    Args:
        faces: int [F, 3], anticlockwise seen from outside (see :func:`s2f_rl.render.faces.outward`).
        camera: one for all frames.
        size: side of the square picture, pixels.
        albedo: colour of each vertex, [V, 3] in 0..1, linear light.
        samples: n for n x n samples per pixel; 1 switches anti-aliasing off.
        lighting: lights and background.
    """

    def __init__(
        self,
        faces: np.ndarray,
        camera: Camera,
        size: int,
        albedo: np.ndarray,
        samples: int = 2,
        lighting: Lighting | None = None,
    ) -> None:
        self.faces = np.ascontiguousarray(faces, dtype=np.int32)
        self.camera, self.size, self.samples = camera, size, samples
        self.lighting = lighting or Lighting()
        self.albedo = np.ascontiguousarray(albedo, dtype=np.float32)
        self._background = background_image(size * samples, self.lighting)
        self._image = np.empty_like(self._background)
        self._nearness = np.empty(self._image.shape[:2], np.float32)
        self._normals = np.empty((len(self.albedo), 3), np.float32)
        self._back = np.asarray(self.lighting.inside, np.float32)

    def frame(self, vertices: np.ndarray) -> np.ndarray:
        """Draw vertices [V, 3] in metres: uint8 [size, size, 3], RGB."""
        # Around the centre, float32 keeps the detail that a face far from the origin would lose.
        local = np.ascontiguousarray(vertices - np.asarray(self.camera.centre), dtype=np.float32)
        vertex_normals(local, self.faces, self._normals)
        seen = self._normals @ self.camera.rotation().T.astype(np.float32)
        colours = shade_vertices(seen, self.albedo, self.lighting)
        screen = self.camera.project(vertices, self.size * self.samples)
        self._image[:] = self._background
        self._nearness[:] = 0.0
        fill_triangles(screen, self.faces, colours, self._back, self._nearness, self._image)
        if self.samples == 1:
            return self._image.copy()
        out = np.empty((self.size, self.size, 3), np.uint8)
        average_samples(self._image, out)
        return out
