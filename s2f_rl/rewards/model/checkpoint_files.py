"""Reading and writing the reward's two checkpoint files; nothing in a file is ever run as code."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s2f_rl.data.soundness import FLOATS
from s2f_rl.data.tensor_files import load_tensors, safetensors_metadata, save_tensors
from s2f_rl.errors import UserError

BACKBONE_FILE = "model_loss.pth"
HEAD_FILE = "v4_best.pt"
JUDGE_FILE = "judge.pt"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

_WRAPPERS = ("model", "head", "state_dict", "model_state_dict", "module")
_PREFIXES = ("module.", "_orig_mod.", "model.", "head.")
_REMEDY = "name a reward checkpoint (.pth, .pt or .safetensors) or a folder that holds model_loss.pth"

logger = logging.getLogger(__name__)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Contents of a ``.pth``/``.pt`` file (``weights_only=True``) or a ``.safetensors`` file, on the CPU.

    Raises:
        UserError: missing, a folder, damaged, code inside, or no mapping.
    """
    content = load_tensors(path, remedy=_REMEDY)
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a state dict; {_REMEDY}")
    if Path(path).suffix != ".safetensors":
        return dict(content)
    words = safetensors_metadata(path)
    config: dict[str, int | str] = {}
    if "n_heads" in words:
        if not re.fullmatch("[0-9]{1,6}", words["n_heads"]):
            raise UserError(
                f"{path}: n_heads is {words['n_heads'][:20]!r}, no number of attention heads; write it again"
            )
        config["n_heads"] = int(words["n_heads"])
    if "out_activation" in words:
        config["out_activation"] = words["out_activation"]
    return {**content, "config": config} if config else dict(content)


def write_checkpoint(path: str | os.PathLike[str], content: dict[str, object]) -> None:
    """Write plain tensors and numbers to ``path`` atomically."""
    save_tensors(path, content)


def backbone_file(folder: Path) -> Path:
    """The backbone's file in a reward folder, ``.pth`` before ``.safetensors``."""
    found = _first(folder, BACKBONE_FILE)
    if found is None:
        raise UserError(f"{folder}: holds no {BACKBONE_FILE}; train a reward with recipes/reward.py or name its folder")
    return found


def is_judge(path: Path) -> bool:
    """A judge's file, or a folder that holds one and no reward in either form."""
    if path.is_dir():
        return (path / JUDGE_FILE).is_file() and not has_backbone(path) and not is_pretrained_folder(path)
    return path.name == JUDGE_FILE


def is_pretrained_folder(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds what :func:`~s2f_rl.rewards.model.hub_folder.save_pretrained` writes."""
    return all((Path(folder) / name).is_file() for name in (CONFIG_FILE, WEIGHTS_FILE))


def has_backbone(folder: Path) -> bool:
    """Whether a folder holds a backbone's file."""
    return _first(folder, BACKBONE_FILE) is not None


def head_file(folder: Path) -> Path | None:
    """The head's file in a reward folder, None when it has none."""
    return _first(folder, HEAD_FILE)


def tensors(content: Mapping[str, object], marker: str, what: str) -> dict[str, Tensor]:
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
        if not (value.dtype in FLOATS and value.layout == torch.strided and value.device.type == "cpu"):
            if value.dtype in (torch.int64, torch.int32, torch.bool):
                continue
            raise UserError(f"{what}: {name!r} is a {value.dtype} {value.layout} tensor, expected dense floats")
        checked[str(name)] = value.detach().to(torch.float32, copy=True)  # first: a large double overflows in it
        if not bool(torch.isfinite(checked[str(name)]).all()):
            raise UserError(f"{what}: {name!r} holds NaN or infinite values; use a sound checkpoint")
    if marker not in checked:
        raise UserError(f"{what}: {marker!r} is no tensor of floats; {_REMEDY}")
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


def _unwrap(content: object, marker: str, depth: int = 4) -> dict[str, object] | None:
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


def _first(folder: Path, name: str) -> Path | None:
    for candidate in (folder / name, folder / Path(name).with_suffix(".safetensors").name):
        if candidate.is_file():
            return candidate
    return None


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
