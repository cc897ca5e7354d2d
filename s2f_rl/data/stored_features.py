"""Features of an encoder that are kept in files, and what tells one encoder's from another's."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from s2f_rl.data.files import load_npy
from s2f_rl.errors import UserError

logger = logging.getLogger(__name__)


def stored_features(path: Path, shape: tuple[int, ...]) -> Tensor | None:
    """The features in ``path``; None, and a warning, if they are not float32, finite and of this shape."""
    if not path.exists():
        return None
    try:
        array = load_npy(path, mmap=False)
    except UserError as error:
        logger.warning("%s; computing the features again", error)
        return None
    if array.shape != shape or array.dtype != np.float32 or not np.isfinite(array).all():
        logger.warning("%s: does not hold %s finite float32 features; computing them again", path, shape)
        return None
    return torch.from_numpy(array)


def hash_tensors(parts: Iterable[tuple[str, Tensor]], settings: str = "", as_stored: bool = False) -> str:
    """sha256 as hex over ``parts``, sorted by name, and a line of settings.

    Args:
        parts: (name, tensor) of all that matters.
        settings: what tensors cannot tell.
        as_stored: names and the bytes of each tensor in its own type; else names, shapes and float32 contents, so that
            a model is known whatever precision it is held in. Both name files and models that exist: do not change.
    """
    digest = hashlib.sha256(settings.encode())
    for name, tensor in sorted(parts, key=lambda part: part[0]):
        tensor = tensor.detach().cpu().contiguous()
        if not as_stored:
            array = np.ascontiguousarray(tensor.float().numpy())  # numpy gives a number the shape (1,)
            digest.update(f"{name}{array.shape}".encode())
            digest.update(array.data)
        elif tensor.ndim:
            digest.update(name.encode() + tensor.view(torch.uint8).numpy().tobytes())
        else:
            digest.update(f"{name}{tensor.item()!r}".encode())
    return digest.hexdigest()
