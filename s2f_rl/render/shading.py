"""Light, colour and background of a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Lighting:
    """A portrait set-up, fixed to the camera: a warm key light from the upper left, a cool fill, a rim.

    Directions point from the face to the light in view space (x right, y up, z towards the eye); colours are linear
    light. ``top`` and ``bottom`` (background gradient) and ``inside`` (backs of faces: the inside of the mouth) are
    sRGB in 0..255.
    """

    key_direction: Colour = (-0.45, 0.50, 0.74)
    key: Colour = (1.02, 0.97, 0.90)
    fill_direction: Colour = (0.85, 0.05, 0.53)
    fill: Colour = (0.16, 0.19, 0.24)
    sky: Colour = (0.20, 0.21, 0.23)
    ground: Colour = (0.09, 0.08, 0.08)
    gloss: float = 0.05
    rim: float = 0.10
    top: Colour = (47, 52, 60)
    bottom: Colour = (27, 29, 34)
    inside: Colour = (43, 22, 22)


def _unit(vector: Colour) -> np.ndarray:
    array = np.asarray(vector, np.float32)
    return array / np.linalg.norm(array)


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """Linear light in 0..1 to sRGB in 0..255 (power 1/2.2, clipped)."""
    return 255.0 * np.clip(linear, 0.0, 1.0) ** (1 / 2.2)


def shade_vertices(normals: np.ndarray, albedo: np.ndarray, lighting: Lighting) -> np.ndarray:
    """Lambert light from key and fill, a sky, a little gloss and a rim.

    Args:
        normals: float32 [V, 3], unit, in view space.
        albedo: float32 [V, 3], linear light in 0..1.
        lighting: the lights.

    Returns:
        float32 [V, 3], sRGB in 0..255.
    """
    key_direction = _unit(lighting.key_direction)
    key = np.maximum(normals @ key_direction, 0)[:, None] * np.asarray(lighting.key, np.float32)
    fill = np.maximum(normals @ _unit(lighting.fill_direction), 0)[:, None] * np.asarray(lighting.fill, np.float32)
    up = 0.5 + 0.5 * normals[:, 1:2]
    around = up * np.asarray(lighting.sky, np.float32) + (1 - up) * np.asarray(lighting.ground, np.float32)
    halfway = key_direction + np.array([0, 0, 1], np.float32)
    gloss = lighting.gloss * np.maximum(normals @ (halfway / np.linalg.norm(halfway)), 0)[:, None] ** 24
    rim = lighting.rim * np.clip(1 - normals[:, 2:3], 0, 1) ** 3 * np.asarray(lighting.sky, np.float32)
    return to_srgb(albedo * (key + fill + around) + gloss + rim).astype(np.float32)


def background_image(size: int, lighting: Lighting) -> np.ndarray:
    """A vertical gradient, dark so that an open mouth without an inside reads as dark: uint8 [size, size, 3]."""
    share = np.linspace(0, 1, size)[:, None, None]
    gradient = (1 - share) * np.asarray(lighting.top) + share * np.asarray(lighting.bottom)
    return np.ascontiguousarray(np.broadcast_to(np.rint(gradient), (size, size, 3)).astype(np.uint8))


def to_linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB in 0..255 to linear light in 0..1, float32 (power 2.2)."""
    return ((np.asarray(srgb, np.float64) / 255.0) ** 2.2).astype(np.float32)
