"""Tensors that all checkpoints of a folder share, kept once in a file beside them.

A frozen audio encoder is nearly all of a checkpoint, and the same in each. A checkpoint then names the file
(``encoder-<first 16 digits of its hash>.pt``), the whole hash, and where in it the tensors belong.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from s2f_rl.data.tensor_files import content_hash, load_tensors, save_tensors
from s2f_rl.errors import UserError

ENTRY = "shared"
"""Key of a checkpoint that says what is missing in it."""
_FILE = re.compile(r"[a-z]+-[0-9a-f]{16}\.pt")
_MOST_PLACES = 16


@dataclass(frozen=True)
class SharedTensors:
    """``tensors`` by name, which are in ``file`` beside the checkpoints; ``hash``: their content's."""

    file: str
    hash: str
    tensors: Mapping[str, Tensor]


def is_shared_file(name: str) -> bool:
    """Whether a file of this name is one of shared tensors."""
    return _FILE.fullmatch(name) is not None


def share_tensors(folder: Path, stem: str, tensors: Mapping[str, Tensor], near: Path | None = None) -> SharedTensors:
    """Put ``tensors`` into ``folder/<stem>-<hash>.pt``, unless it is there: a kill leaves the whole file or none.

    Args:
        near: a folder that may hold the same file, which is then linked: it takes no room a second time.
    """
    digest = content_hash(tensors)
    shared = SharedTensors(f"{stem}-{digest[:16]}.pt", digest, tensors)
    path = folder / shared.file
    if not path.exists() and not (near is not None and _linked(near / shared.file, path, shared.hash)):
        save_tensors(path, tensors)
    return shared


def _linked(source: Path, path: Path, digest: str) -> bool:
    try:
        if not source.exists() or content_hash(load_tensors(source)) != digest:
            return False
        os.link(source.resolve(), path)
    except (OSError, UserError):  # another file system, or one without links; a damaged file
        return False
    return True


def without_shared(content: Mapping[str, object], shared: SharedTensors) -> dict[str, object]:
    """A checkpoint without the tensors that are shared, wherever all of them lie together under equal names.

    What differs from them in a number stays.
    """
    places: list[dict[str, object]] = []
    rest = _stripped(content, shared, [], places)
    about = {"file": shared.file, "hash": shared.hash, "places": places}
    return {**rest, ENTRY: about} if places else rest


def _stripped(
    content: Mapping[str, object], shared: SharedTensors, at: list[str], places: list[dict[str, object]]
) -> dict[str, object]:
    gone: set[str] = set()
    for prefix in _prefixes(content, shared.tensors):
        places.append({"at": at, "prefix": prefix})
        gone |= {prefix + name for name in shared.tensors}
    kept = {key: value for key, value in content.items() if key not in gone}
    return {
        key: _stripped(value, shared, [*at, key], places) if isinstance(value, dict) and isinstance(key, str) else value
        for key, value in kept.items()
    }


def _prefixes(content: Mapping[str, object], tensors: Mapping[str, Tensor]) -> Iterator[str]:
    first = next(iter(tensors))
    for key in content:
        if isinstance(key, str) and key.endswith(first):
            prefix = key.removesuffix(first)
            if all(_same(content.get(prefix + name), tensor) for name, tensor in tensors.items()):
                yield prefix


def _same(value: object, tensor: Tensor) -> bool:
    if not isinstance(value, Tensor) or value.shape != tensor.shape or value.dtype != tensor.dtype:
        return False
    return value.data_ptr() == tensor.data_ptr() or torch.equal(value, tensor.to(value.device))


def load_whole(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> object:
    """:func:`~s2f_rl.data.tensor_files.load_tensors`, and what the checkpoint shares with others put back.

    Raises:
        UserError: as there; also when the file beside it is missing, or not the one that it was written with.
    """
    content = load_tensors(path, device)
    if not isinstance(content, dict) or ENTRY not in content:
        return content
    path = Path(path)
    try:
        about = content.pop(ENTRY)
        name, digest = str(about["file"]), about["hash"]
        targets = [(_inside(content, place["at"]), str(place["prefix"])) for place in about["places"]]
        if not is_shared_file(name) or len(targets) > _MOST_PLACES:
            raise KeyError(name)
    except (TypeError, KeyError) as error:
        raise UserError(f"{path}: its entry {ENTRY!r} names no file beside it; the file is damaged") from error
    beside = next((folder / name for folder in (path.parent, path.resolve().parent) if (folder / name).exists()), None)
    if beside is None:
        raise UserError(
            f"{path}: needs {name} beside it, which holds its audio encoder; copy that file from the run's folder too, "
            "or make one file of both there with `s2f-rl export`"
        )
    tensors = load_tensors(beside, device)
    if not isinstance(tensors, dict) or content_hash(tensors) != digest:
        raise UserError(f"{beside}: is not the file that {path} was written with; copy it again from the run's folder")
    for target, prefix in targets:
        target.update({f"{prefix}{key}": tensor for key, tensor in tensors.items()})
    return content


def _inside(content: dict[str, object], at: Iterable[str]) -> dict[str, object]:
    """The dictionary at a path of keys. Raises KeyError or TypeError where there is none."""
    for key in at:
        inner = content[key]
        if not isinstance(inner, dict):
            raise TypeError("no dictionary")
        content = inner
    return content
