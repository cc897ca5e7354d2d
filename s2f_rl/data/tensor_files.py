"""Files of tensors: ``.pt``/``.pth`` and ``.safetensors``, written atomically, read without running code."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from s2f_rl.data.files import atomic_path, require_file
from s2f_rl.data.soundness import not_finite, require_checksums
from s2f_rl.errors import NotFinite, UserError

_HARMLESS_BYTES = 2**20  # small expanded tensors occur in honest files
_PLAIN = (torch.Tensor, str, int, float, bool, bytes, type(None))


def load_tensors(
    path: str | os.PathLike[str], device: str | torch.device = "cpu", remedy: str = "name a checkpoint file"
) -> Any:
    """Read a ``.pt``/``.pth`` file (``torch.load(weights_only=True)``) or a ``.safetensors`` file.

    Args:
        path: the file. device: where the tensors go. remedy: what to do when the file is missing.

    Raises:
        UserError: the file is missing, a folder, damaged, or holds anything but tensors and plain containers, or
            numbers that are not finite; also when a tensor states more numbers than the file has, and would take that
            much memory once it is copied.
    """
    path = require_file(path, remedy)
    content = _load(path, device)
    inflated = _inflated(content)
    if inflated is not None:
        raise UserError(f"{path}: {inflated} states more numbers than the file holds; use a sound checkpoint")
    broken = not_finite(content)
    if broken is not None:
        raise UserError(f"{path}: {broken} holds NaN or infinite values; use a sound checkpoint")
    return content


def _load(path: Path, device: str | torch.device) -> Any:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path, device=str(device))
        require_checksums(path)
        with warnings.catch_warnings():  # torch also warns about the file that the error below names
            warnings.simplefilter("ignore")
            return torch.load(path, map_location=device, weights_only=True)
    except UserError:
        raise
    except Exception as error:  # a hostile file can raise nearly anything in here
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(
            f"{path}: cannot be read as a checkpoint of plain tensors ({reason}); it is damaged, or not a checkpoint"
        ) from error


def _inflated(value: Any, where: str = "a tensor") -> str | None:
    """The name of the first tensor that is larger than its storage (strides of 0), None when there is none."""
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.is_nested:
            return None  # what wants dense tensors refuses these
        stated = value.numel() * value.element_size()
        held = 0 if value.is_meta else value.untyped_storage().nbytes()
        return where if stated > max(held, 0 if value.is_meta else _HARMLESS_BYTES) else None
    inner: Iterable[tuple[str, Any]] = ()
    if isinstance(value, Mapping):
        inner = ((repr(name)[:60], each) for name, each in value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        inner = ((where, each) for each in value)
    return next((found for name, each in inner if (found := _inflated(each, name)) is not None), None)


def safetensors_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The words that a ``.safetensors`` file, read before with :func:`load_tensors`, holds beside its tensors."""
    from safetensors import safe_open

    with safe_open(path, framework="pt", device="cpu") as file:
        return dict(file.metadata() or {})


def save_tensors(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write tensors and plain containers with ``torch.save``: a kill leaves the old file or the new one, whole.

    Raises:
        TypeError: something else is inside; the message names where (such a file could not be read back safely).
        NotFinite: a number is not finite; what is there stays as it is.
    """
    _assert_plain(content, "checkpoint")
    _assert_finite(path, content)
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def save_safetensors(path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor]) -> None:
    """Write named tensors as ``.safetensors``, atomically. Raises NotFinite as :func:`save_tensors` does."""
    from safetensors.torch import save_file

    _assert_finite(path, tensors)
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(own, temporary, metadata={"format": "pt"})


def _assert_finite(path: str | os.PathLike[str], content: Any) -> None:
    broken = not_finite(content)
    if broken is not None:
        raise NotFinite(f"{path}: not written, because {broken} is not finite; train with a smaller optimizer.lr")


def _assert_plain(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, (str, int)):
                raise TypeError(f"{where}: key {key!r} is a {type(key).__name__}, not a string or an integer")
            _assert_plain(inner, f"{where}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            _assert_plain(inner, f"{where}[{number}]")
    elif type(value) not in _PLAIN and not isinstance(value, torch.Tensor):
        raise TypeError(f"{where}: a {type(value).__name__} does not belong in a checkpoint; store plain values")
