"""Reading and writing the reward's two checkpoint files; nothing in a file is ever run as code."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s2f_rl.data.files import atomic_path, require_file
from s2f_rl.errors import UserError

BACKBONE_FILE = "model_loss.pth"
HEAD_FILE = "v4_best.pt"

_WRAPPERS = ("model", "head", "state_dict", "model_state_dict", "module")
_PREFIXES = ("module.", "_orig_mod.", "model.", "head.")
_REMEDY = "name a reward checkpoint (.pth, .pt or .safetensors) or a folder that holds model_loss.pth"

logger = logging.getLogger(__name__)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Contents of a ``.pth``/``.pt`` file (``weights_only=True``) or a ``.safetensors`` file, on the CPU.

    Raises:
        UserError: missing, a folder, damaged, code inside, or no mapping.
    """
    path = require_file(path, _REMEDY)
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile file can raise nearly anything in here
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path}: not readable as a checkpoint of plain tensors ({reason}); get it again") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a state dict; {_REMEDY}")
    return dict(content)


def write_checkpoint(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write plain tensors and numbers to ``path`` atomically."""
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def backbone_file(folder: Path) -> Path:
    """The backbone's file in a reward folder, ``.pth`` before ``.safetensors``."""
    found = _first(folder, BACKBONE_FILE)
    if found is None:
        raise UserError(f"{folder}: holds no {BACKBONE_FILE}; train a reward with recipes/reward.py or name its folder")
    return found


def head_file(folder: Path) -> Path | None:
    """The head's file in a reward folder, None when it has none."""
    return _first(folder, HEAD_FILE)


def tensors(content: Mapping[str, Any], marker: str, what: str) -> dict[str, Tensor]:
    """The state dict inside a checkpoint: wrappers (``{"model": ...}``, ``module.``) taken off, values checked.

    Args:
        content: what the file holds.
        marker: a name that the state dict must have, which tells when enough wrappers are off.
        what: for the message, e.g. the file's path.

    Raises:
        UserError: no such state dict inside, or one of its values is no finite dense tensor of floats.
    """
    state = _unwrap(content, marker)
    if state is None:
        raise UserError(f"{what}: lacks {marker!r}, so it is another model's checkpoint; {_REMEDY}")
    checked = {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            continue  # counters and the like; missing weights are told by name later
        if not (value.is_floating_point() and value.layout == torch.strided and value.device.type == "cpu"):
            if value.dtype in (torch.int64, torch.int32, torch.bool):
                continue
            raise UserError(f"{what}: {name!r} is a {value.dtype} {value.layout} tensor, expected dense floats")
        if not bool(torch.isfinite(value).all()):
            raise UserError(f"{what}: {name!r} holds NaN or infinite values; use a sound checkpoint")
        checked[str(name)] = value.detach().to(torch.float32, copy=True)
    return checked


def pick(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """The ``wanted`` entries of ``state``; extra ones are left out with a warning.

    Raises:
        UserError: an entry is missing or has another shape, named in one line.
    """
    missing = [name for name in wanted if name not in state]
    if missing:
        raise UserError(f"{what}: lacks {_listed(missing)}; use the whole checkpoint")
    for name, tensor in wanted.items():
        if state[name].shape != tensor.shape:
            shapes = f"{list(state[name].shape)}, expected {list(tensor.shape)}"
            raise UserError(f"{what}: {name!r} has shape {shapes}; the checkpoint is of another model")
    extra = [name for name in state if name not in wanted]
    if extra:
        logger.warning("%s: %s not used", what, _listed(extra))
    return {name: state[name] for name in wanted}


def _unwrap(content: Any, marker: str, depth: int = 4) -> dict[str, Any] | None:
    if not isinstance(content, Mapping) or depth == 0:
        return None
    state = {str(name): value for name, value in content.items()}
    found = next((name for name in state if name.endswith(marker) and _only_prefixes(name.removesuffix(marker))), None)
    if found is not None:
        prefix = found.removesuffix(marker)
        return {name.removeprefix(prefix): value for name, value in state.items()}
    for wrapper in _WRAPPERS:
        inner = _unwrap(content.get(wrapper), marker, depth - 1)
        if inner is not None:
            return inner
    return None


def _only_prefixes(text: str) -> bool:
    """``module.model.`` and the like, or nothing."""
    for _ in range(4):
        for prefix in _PREFIXES:
            text = text.removeprefix(prefix)
    return text == ""


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, framework="pt", device="cpu") as file:
        content: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}
        metadata = file.metadata() or {}
    config = {key: int(value) for key, value in metadata.items() if key == "n_heads" and value.isdigit()}
    if "out_activation" in metadata:
        config["out_activation"] = metadata["out_activation"]
    if config:
        content["config"] = config
    return content


def _first(folder: Path, name: str) -> Path | None:
    for candidate in (folder / name, folder / Path(name).with_suffix(".safetensors").name):
        if candidate.is_file():
            return candidate
    return None


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
