"""Files of tensors: ``.pt``/``.pth`` and ``.safetensors``, written atomically, read without running code."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from s2f_rl.data.files import atomic_path, open_file, require_file
from s2f_rl.data.soundness import not_finite, require_checksums
from s2f_rl.data.tensor_pickle import DryRun, vet_legacy
from s2f_rl.errors import NotFinite, UserError

_HARMLESS_BYTES = 2**20  # small expanded tensors occur in honest files
_SHARED_BYTES, _SHARED_TIMES = 64 * 2**20, 16  # tied weights and the like
_ZIP, _PICKLE, _ZIP_END = b"PK\x03\x04", b"\x80", b"PK\x05\x06"
_ZIP_END_BYTES = 22
_PLAIN = (torch.Tensor, str, int, float, bool, bytes, type(None))


def load_tensors(
    path: str | os.PathLike[str], device: str | torch.device = "cpu", remedy: str = "name a checkpoint file"
) -> Any:
    """Read a ``.pt``/``.pth`` file (``torch.load(weights_only=True)``) or a ``.safetensors`` file.

    Args:
        path: the file. device: where the tensors go. remedy: what to do when the file is missing.

    Raises:
        UserError: the file is missing, a folder, damaged, or holds anything but tensors and plain containers, or
            numbers that are not finite; also when it would unpack to more than it holds, or its tensors state more
            numbers than the file has, and would take that much memory once they are copied.
    """
    path = require_file(path, remedy)
    if path.suffix != ".safetensors":
        vet_checkpoint(path)
    content = _load(path, device)
    room = _SHARED_BYTES + _SHARED_TIMES * path.stat().st_size
    for name, tensor in _tensors(content):
        stated = tensor.numel() * tensor.element_size()
        room -= stated
        if room < 0 or _is_inflated(tensor, stated):
            raise UserError(f"{path}: {name} states more numbers than the file holds; use a sound checkpoint")
    broken = not_finite(content)
    if broken is not None:
        raise UserError(f"{path}: {broken} holds NaN or infinite values; use a sound checkpoint")
    return content


def vet_checkpoint(path: Path) -> None:
    """Look through a ``.pt`` file before torch reads it. Raises UserError for what :func:`load_tensors` refuses."""
    with open_file(path) as file:
        start = file.read(4)
        file.seek(0)
        if start == _ZIP:
            with _telling(path):
                vet_zip(path)
            require_checksums(path)
        with _telling(path):
            if start == _ZIP:
                _run_dry(path)
            elif start[:1] == _PICKLE:
                vet_legacy(file)
            else:
                raise UserError("it begins as no checkpoint does")


def vet_zip(path: Path) -> None:
    """Check the table of contents that ``torch.save`` writes: nothing is packed, listed twice or hidden.

    Raises UserError (and, for a damaged file, what :mod:`zipfile` raises).
    """
    with open_file(path) as file, zipfile.ZipFile(file) as archive:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _ZIP_END_BYTES))
        if file.read(4) != _ZIP_END:  # else torch might find another table of contents than we
            raise UserError("it goes on after its end")
        entries = archive.infolist()
        if any(entry.header_offset < 0 for entry in entries):
            raise UserError("a piece of it is missing")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise UserError("it is compressed, which torch.save never does")
        if sum(entry.file_size for entry in entries) > size:
            raise UserError("it would unpack to more than it holds")
        if len({entry.filename.casefold() for entry in entries}) < len(entries):
            raise UserError("it holds two files of one name")


def _run_dry(path: Path) -> None:
    with open_file(path) as file, zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        records = {entry.filename.rpartition("data/")[2]: entry.file_size for entry in entries}
        for entry in entries:
            if entry.filename.casefold().endswith(".pkl"):
                DryRun(io.BytesIO(archive.read(entry)), records).load()


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Whatever a hostile file makes our readers and torch raise, and that can be nearly anything, as one line."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(
            f"{path}: cannot be read as a checkpoint of plain tensors ({reason}); it is damaged, or not a checkpoint"
        ) from error


def _load(path: Path, device: str | torch.device) -> object:
    with _telling(path), warnings.catch_warnings():  # torch also warns about the file that the error names
        warnings.simplefilter("ignore")
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path, device=str(device))
        return torch.load(path, map_location=device, weights_only=True)


def _tensors(value: object, where: str = "a tensor") -> Iterator[tuple[str, torch.Tensor]]:
    """Every dense tensor inside, with the name under which it lies; what wants dense tensors refuses the others."""
    if isinstance(value, torch.Tensor):
        if value.layout == torch.strided and not value.is_nested:
            yield where, value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from _tensors(each, repr(name)[:60])
    elif isinstance(value, (list, tuple, set, frozenset)):
        for each in value:
            yield from _tensors(each, where)


def _is_inflated(tensor: torch.Tensor, stated: int) -> bool:
    """Whether it is larger than its storage (strides of 0)."""
    held = 0 if tensor.is_meta else tensor.untyped_storage().nbytes()
    return stated > max(held, 0 if tensor.is_meta else _HARMLESS_BYTES)


def safetensors_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The words that a ``.safetensors`` file, read before with :func:`load_tensors`, holds beside its tensors."""
    from safetensors import safe_open

    with safe_open(path, framework="pt", device="cpu") as file:
        return dict(file.metadata() or {})


def save_tensors(path: str | os.PathLike[str], content: Mapping[str, object]) -> None:
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


def _assert_finite(path: str | os.PathLike[str], content: object) -> None:
    broken = not_finite(content)
    if broken is not None:
        raise NotFinite(f"{path}: not written, because {broken} is not finite; train with a smaller optimizer.lr")


def content_hash(value: object) -> str:
    """sha256 as hex over tensors (names, types, shapes, bytes) and plain values in nested containers.

    Equal for the same content saved twice, whose files may differ.
    """
    return _digest(value, {}).hex()


def _digest(value: object, known: dict[int, bytes]) -> bytes:
    if id(value) in known:  # a container may hold another one many times, at every level
        return known[id(value)]
    digest = hashlib.sha256()
    if isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta:
        digest.update(f"tensor {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    elif isinstance(value, Mapping):
        digest.update(b"mapping")
        for pair in sorted(_digest(key, known) + _digest(each, known) for key, each in value.items()):
            digest.update(pair)
    elif isinstance(value, (list, tuple)):
        digest.update(b"list")
        for each in value:
            digest.update(_digest(each, known))
    else:
        return hashlib.sha256(f"{type(value).__name__} {value!r}".encode()).digest()
    known[id(value)] = digest.digest()
    return digest.digest()


def _assert_plain(value: object, where: str) -> None:
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
