"""Faces whose mesh can be judged: half an ellipsoid, the triangles of its grid, and a corpus of them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from tests.tiny import make_tiny_corpus

V = 480
SUBJECTS = ("S0", "S1", "S2", "S3")


def ellipsoid(person: int = 0, rows: int = 20, columns: int = 24, noise_m: float = 0.0) -> np.ndarray:
    """Half an ellipsoid [V, 3] of a person's own length, width and depth."""
    y, angle = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1.4, 1.4, columns), indexing="ij")
    across = np.sqrt(np.maximum(1 - 0.9 * y**2, 0))
    points = np.stack([0.08 * across * np.sin(angle), 0.12 * y, 0.1 * across * np.cos(angle)], -1).reshape(-1, 3)
    rng = np.random.default_rng(person)
    return points * rng.uniform(0.9, 1.1, 3) + noise_m * rng.normal(size=points.shape)


def triangles(rows: int = 20, columns: int = 24, other_diagonal: bool = False) -> np.ndarray:
    i = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = i[:-1, :-1], i[:-1, 1:], i[1:, 1:], i[1:, :-1]
    halves = ((a, b, d), (b, c, d)) if other_diagonal else ((a, b, c), (a, c, d))
    return np.concatenate([np.stack(half, -1).reshape(-1, 3) for half in halves])


REGIONS = {
    "lips": np.flatnonzero((np.abs(ellipsoid(0)[:, 1] + 0.04) < 0.02) & (np.abs(ellipsoid(0)[:, 0]) < 0.04)),
    "nose": np.flatnonzero((np.abs(ellipsoid(0)[:, 1]) < 0.015) & (np.abs(ellipsoid(0)[:, 0]) < 0.02)),
    "upper_face": np.flatnonzero(ellipsoid(0)[:, 1] > 0.03),
}


def make_ellipsoid_corpus(root: Path) -> Path:
    """Write a corpus of four persons with two utterances each, 480 vertices, metres, and return its folder."""
    make_tiny_corpus(root, n_subjects=len(SUBJECTS), n_sentences=2)
    templates = {subject: ellipsoid(k).astype(np.float32) for k, subject in enumerate(SUBJECTS)}
    for path in (root / "vertices_npy").iterdir():
        template = templates[path.stem[:2]]
        opened = np.abs(np.sin(np.arange(len(np.load(path))) / 9))[:, None] * (template[:, 1] < -0.04)
        vertices = np.repeat(template[None], len(opened), axis=0)
        vertices[..., 1] -= 0.01 * opened
        np.save(path, vertices.reshape(len(opened), -1))
    (root / "templates.pkl").write_bytes(pickle.dumps(templates))
    (root / "FLAME_masks.pkl").write_bytes(pickle.dumps(REGIONS))
    (root / "landmarks.json").unlink()
    np.save(root / "faces.npy", triangles().astype(np.int32))
    return root
