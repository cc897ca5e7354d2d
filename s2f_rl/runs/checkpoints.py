"""Checkpoint files: tensors and plain containers only, written atomically, read without running code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from s2f_rl.data.shared_tensors import load_whole
from s2f_rl.data.tensor_files import save_tensors
from s2f_rl.errors import UserError


def save_checkpoint(path: str | Path, checkpoint: dict[str, object]) -> None:
    """Write ``checkpoint`` to ``path``: a kill at any moment leaves the old file or the new one, whole.

    Args:
        path: file to write, e.g. ``checkpoints/ppo/last.pt``; its folder must exist.
        checkpoint: nested dicts, lists and tuples of tensors, numbers, strings, booleans and None.

    Raises:
        TypeError: something else is inside; the message names where (such a file could not be read back safely).
        NotFinite: a number is not finite; the old file stays.
    """
    save_tensors(path, checkpoint)


def load_checkpoint(path: str | Path, needs: tuple[str, ...] = (), device: str = "cpu") -> dict[str, Any]:
    """Read a checkpoint written by :func:`save_checkpoint` (or any file of plain tensors); no code in it is run.

    What it shares with other checkpoints (:mod:`s2f_rl.data.shared_tensors`) is read from the file beside it.

    Args:
        path: the file.
        needs: top-level keys that must be there.
        device: where the tensors go.

    Raises:
        UserError: missing file, folder, truncated file, a pickle with code in it, no dict, or a missing key.
    """
    checkpoint = load_whole(path, device)
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path}: holds a {type(checkpoint).__name__}, not a checkpoint dict; check the path")
    missing = [key for key in needs if key not in checkpoint]
    if missing:
        raise UserError(f"{path}: has no entry {', '.join(map(repr, missing))}; it is another kind of checkpoint")
    return checkpoint
