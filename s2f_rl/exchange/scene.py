"""A motion as one file that a program of animators opens."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from s2f_rl.data.coefficients.basis import LinearBasis
from s2f_rl.errors import UserError
from s2f_rl.exchange.face import Face
from s2f_rl.exchange.glb import write_glb
from s2f_rl.exchange.principal import principal_shapes
from s2f_rl.exchange.usd import SUFFIXES as USD
from s2f_rl.exchange.usd import pxr, write_usd_points, write_usd_shapes

SUFFIXES = (".glb", *USD)


def require_scene(path: str | os.PathLike[str]) -> None:
    """Refuse before the work what cannot be written after it: another suffix, or USD without its package."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: is no scene; end the name in {', '.join(SUFFIXES)}")
    if suffix in USD:
        pxr("Usd")


def write_scene(
    path: str | os.PathLike[str], vertices: np.ndarray, fps: float, face: Face, error_mm: float = 0.01
) -> str:
    """Write USD with points over time, or GLB with the few shapes that repeat the motion, by the suffix; atomically.

    Args:
        vertices: [T, V, 3] in metres.
        error_mm: how far a vertex may be off in a GLB.

    Returns:
        What was done, in words.

    Raises:
        UserError: another suffix, or the extra is missing.
    """
    require_scene(path)
    said = f"{len(vertices)} frames at {fps:g} per second"
    if Path(path).suffix.lower() != ".glb":
        write_usd_points(path, vertices, fps, face)
        return said
    basis, weights, worst = principal_shapes(vertices, error_mm)
    write_glb(path, basis, weights, fps, face)
    return f"{said}, {len(basis.names)} shapes, no vertex off by more than {worst:.4f} mm"


def write_rig(path: str | os.PathLike[str], basis: LinearBasis, weights: np.ndarray, fps: float, face: Face) -> None:
    """Write a face with shapes and their weights [T, K] over time, as USD or GLB by the suffix; atomically.

    Raises:
        UserError: another suffix, or the extra is missing.
    """
    require_scene(path)
    write = write_glb if Path(path).suffix.lower() == ".glb" else write_usd_shapes
    write(path, basis, weights, fps, face)
