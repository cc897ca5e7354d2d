"""Are the numbers of a file of tensors whole: checksums of its parts, finite values, weights that are floats."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from s2f_rl.errors import UserError

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def require_checksums(path: Path) -> None:
    """Raise UserError unless every part of a zip file has the bytes that its CRC-32 was taken of.

    ``torch.load`` does not look at the checksums: a flipped byte would silently be another weight. Other files, such as
    those that torch wrote before 1.6, have none and pass.
    """
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as file:
            broken = file.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise UserError(f"{path}: is damaged ({' '.join(str(error).split())[:100]}); copy it again") from error
    if broken is not None:
        raise UserError(f"{path}: is damaged (the checksum of {broken[:60]!r} is wrong); copy it again")


def not_finite(value: object, where: str = "a tensor") -> str | None:
    """The name of the first tensor in nested plain containers that holds NaN or infinity, None when there is none."""
    if isinstance(value, Tensor):
        numbers = value.layout == torch.strided and not value.is_nested and not value.is_meta
        if not numbers or not (value.is_floating_point() or value.is_complex()):
            return None
        whole = value.float() if value.element_size() == 1 else value  # 8-bit floats have no isfinite
        return None if bool(torch.isfinite(whole).all()) else where
    inner: Iterable[tuple[str, object]] = ()
    if isinstance(value, Mapping):
        inner = ((repr(name)[:60], each) for name, each in value.items())
    elif isinstance(value, (list, tuple)):
        inner = ((where, each) for each in value)
    return next((found for name, each in inner if (found := not_finite(each, name)) is not None), None)


def float_weights(state: Mapping[str, object], wanted: Mapping[str, Tensor], what: str) -> dict[str, object]:
    """``state`` with its weights in the precision of ``wanted``, ready for ``load_state_dict``.

    Half, bfloat16 and double precision are converted. Anything else in a weight's place is refused: torch would take
    whole numbers, truth values and the real part of complex ones without a word.

    Args:
        state: what a file holds. wanted: the state dict of the model that it is for; names are compared later.
        what: for the message, e.g. the file's path.

    Raises:
        UserError: an entry of another kind, or one that is not finite in the model's precision.
    """
    ready = dict(state)
    for name, model in wanted.items():
        value = ready.get(name)
        if value is None:
            continue
        kinds = FLOATS if model.is_floating_point() else (model.dtype,)
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.dtype not in kinds:
            kind = str(value.dtype).removeprefix("torch.") if isinstance(value, Tensor) else type(value).__name__
            sort = "floats" if model.is_floating_point() else str(model.dtype).removeprefix("torch.")
            raise UserError(f"{what}: {name!r} holds {kind}, expected dense {sort}; use a sound checkpoint")
        ready[name] = weight = value.to(model.dtype)
        if model.is_floating_point() and not bool(torch.isfinite(weight).all()):
            raise UserError(f"{what}: {name!r} holds NaN or infinite values; use a sound checkpoint")
    return ready
