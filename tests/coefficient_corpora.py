"""Corpora whose motion is coefficients, for tests: the tiny corpus with a rig of three shapes."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import torch

from s2f_rl.data.coefficients.basis import LinearBasis
from tests.tiny import MOUTH, make_tiny_corpus

NAMES = ("jawOpen", "mouthPucker", "browInnerUp")


def make_coefficient_corpus(root: Path, *, basis: bool = True, templates: bool = False, **options: object) -> Path:
    """The corpus of :func:`make_tiny_corpus` with random smooth coefficients of :data:`NAMES` in place of vertices.

    basis: with ``basis.npz``. templates: keep ``templates.pkl``, a face for each subject.
    """
    make_tiny_corpus(root, **options)
    rng = np.random.default_rng(5)
    (root / "coefficients_npy").mkdir()
    for path in (root / "vertices_npy").glob("*.npy"):
        n = len(np.load(path))
        drawn = np.cumsum(rng.normal(size=(n, 3)), axis=0) * 0.03
        np.save(root / "coefficients_npy" / path.name, (0.5 + 0.5 * np.sin(drawn * 3)).astype(np.float32))
        path.unlink()
    (root / "vertices_npy").rmdir()
    stored_fps = json.loads((root / "corpus.json").read_text())["stored_fps"]
    about = {"names": list(NAMES), "fps": stored_fps, "convention": "arkit"}
    (root / "coefficients.json").write_text(json.dumps(about))
    faces = pickle.loads((root / "templates.pkl").read_bytes())
    if basis:
        rig_of(next(iter(faces.values()))).save(root / "basis.npz")
    if not templates:
        (root / "templates.pkl").unlink()
    if not basis:
        for name in ("FLAME_masks.pkl", "landmarks.json", "faces.npy"):
            (root / name).unlink()
    return root


def rig_of(face: np.ndarray) -> LinearBasis:
    """Jaw, pucker and brow of a tiny face [V, 3]."""
    neutral = torch.from_numpy(face).float()
    x, y = neutral[:, 0], neutral[:, 1]
    shapes = torch.zeros(3, *neutral.shape)
    shapes[0, :, 1] = -0.012 * torch.sigmoid((MOUTH[1] - y) / 0.003)
    shapes[1, :, 0] = -0.3 * x * torch.exp(-(((y - MOUTH[1]) / 0.02) ** 2))
    shapes[2, :, 1] = 0.004 * torch.sigmoid((y - 0.03) / 0.01)
    return LinearBasis(neutral, shapes, NAMES, torch.tensor([[0.0, 1.0]] * 3))
