"""A reward as one folder in the form of the Hugging Face hub: ``config.json``, ``model.safetensors``, ``README.md``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from s2f_rl.data.files import atomic_write_json, atomic_write_text, load_json
from s2f_rl.data.mesh_identity import MeshIdentity
from s2f_rl.data.tensor_files import load_tensors, save_safetensors
from s2f_rl.errors import UserError
from s2f_rl.rewards.model.checkpoint_files import CONFIG_FILE, WEIGHTS_FILE
from s2f_rl.rewards.model.head import ScoreHead
from s2f_rl.rewards.model.meeting import KEY as MADE_FOR
from s2f_rl.rewards.model.meeting import made_for, set_made_for
from s2f_rl.rewards.model.speech_mesh import SpeechMeshTransformer

CARD_FILE = "README.md"
MODEL_TYPE = "s2f_rl_reward"
_SIZES = ("n_vertices", "width", "depth", "n_heads", "mlp_width")
_LARGEST = 10**7
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


R = TypeVar("R", bound="SavedReward")


class SavedReward(Protocol):
    """What these functions need of a :class:`~s2f_rl.rewards.RewardModel`."""

    backbone: SpeechMeshTransformer
    head: ScoreHead | None
    fps: float | None
    mesh_identity: MeshIdentity | None

    @classmethod
    def from_reference(
        cls: type[R],
        backbone_state_dict: Mapping[str, object],
        head_state_dict: Mapping[str, object] | None = None,
        n_heads: int = 8,
        out_activation: str = "sigmoid",
    ) -> R: ...

    def content_hash(self) -> str: ...

    def parameters(self) -> Iterator[Tensor]: ...

    def state_dict(self) -> Mapping[str, Tensor]: ...

    def to(self: R, device: str | torch.device) -> R: ...


def save_pretrained(model: SavedReward, folder: str | os.PathLike[str], corpus: str | None = None) -> None:
    """Write a reward as config, weights and model card, each atomically.

    A kill between two files leaves weights that the config's hash refuses, never a mixture that loads.

    Args:
        model: the reward.
        folder: made when missing.
        corpus: what it was trained on, for the card.
    """
    folder = Path(folder)
    config = _config(model)
    save_safetensors(folder / WEIGHTS_FILE, model.state_dict())
    atomic_write_text(folder / CARD_FILE, model_card(model, corpus))
    atomic_write_json(folder / CONFIG_FILE, config | ({"corpus": corpus} if corpus else {}))


def load_pretrained(
    kind: type[R],
    source: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> R:
    """Read what :func:`save_pretrained` wrote.

    Args:
        kind: the class of the reward.
        source: a folder, which is read without any network; else a hub repository ``owner/name``, whose two files are
            downloaded once and cached (with ``HF_HUB_OFFLINE=1`` only what is cached is used).
        device: where the model goes.
        revision: branch, tag or commit of a repository. cache_dir: where its files are kept.

    Raises:
        UserError: nothing there, a hostile or damaged file, or weights that are not those of the config.
    """
    folder = Path(source)
    if folder.is_dir():
        if revision is not None:
            raise UserError(f"{folder}: is a folder and has no revision {revision!r}; leave revision out")
        return _load(kind, folder / CONFIG_FILE, folder / WEIGHTS_FILE).to(device)
    if folder.exists() or not _REPOSITORY.fullmatch(str(source)):
        raise UserError(f"{source}: no such folder, and no repository owner/name; give a folder with {CONFIG_FILE}")
    files = [_download(str(source), name, revision, cache_dir) for name in (CONFIG_FILE, WEIGHTS_FILE)]
    return _load(kind, *files).to(device)


def model_card(model: SavedReward, corpus: str | None = None) -> str:
    """The text of ``README.md``: what the model is, its sizes, its hash, and how to load it."""
    config = _config(model)
    head = config["head"]
    rows = [(name, config[name]) for name in _SIZES]
    rows += [(f"head {name}", value) for name, value in (head or {"": "none: lip_score is a cosine"}).items()]
    rows += [("parameters", sum(p.numel() for p in model.parameters())), ("trained on", corpus or "not stated")]
    rows += [("content hash (sha256)", config["content_hash"])]
    table = "\n".join(f"| {name.strip()} | {value} |" for name, value in rows)
    return f"""---
library_name: s2f_rl
tags: [speech-driven-animation, reward-model]
---
# Perceptual reward for speech-driven 3D face animation

Scores clips of five mesh frames against the speech: are the lips in sync, does the motion look real? A speech-mesh
transformer (Chae-Yeon et al., CVPR 2025){" with a score head" if head else ""}.

| | |
|---|---|
{table}

```python
from s2f_rl.rewards import RewardModel

reward = RewardModel.from_pretrained("FOLDER or owner/name")
scores = reward.score(vertices, mel_clips)  # [T, V*3] metres, [n, 20, 128]
```
"""


def _config(model: SavedReward) -> dict[str, Any]:
    backbone, head = model.backbone, model.head
    return {
        "model_type": MODEL_TYPE,
        "format": 1,
        **{name: getattr(backbone, name) for name in _SIZES},
        "head": None if head is None else {"hidden": head.hidden, "out_activation": head.out_activation},
        "content_hash": model.content_hash(),
        MADE_FOR: made_for(model),
    }


def _load(kind: type[R], config_path: Path, weights_path: Path) -> R:
    config = load_json(config_path)
    _check(config, config_path)
    weights = load_tensors(weights_path)
    parts: dict[str, dict[str, Tensor]] = {"backbone": {}, "head": {}}
    for name, tensor in weights.items():
        half, _, rest = name.partition(".")
        parts.setdefault(half, {})[rest] = tensor
    if bool(parts["head"]) != (config["head"] is not None):
        raise UserError(f"{config_path}: head does not fit {weights_path.name}, which holds {_has(parts['head'])} head")
    try:
        model = kind.from_reference(
            parts["backbone"],
            parts["head"] or None,
            n_heads=config["n_heads"],
            out_activation=config["head"]["out_activation"] if config["head"] else "sigmoid",
        )
    except UserError as error:
        raise UserError(f"{weights_path}: {error}") from error
    set_made_for(model, config, str(config_path))
    found = _config(model)
    wrong = next((key for key in (*_SIZES, "head", "content_hash") if config.get(key, found[key]) != found[key]), None)
    if wrong is not None:
        raise UserError(
            f"{config_path}: {wrong} is {str(config[wrong])[:40]}, but {weights_path.name} holds a model with "
            f"{str(found[wrong])[:40]}; get both files again"
        )
    return model


def _check(config: object, path: Path) -> None:
    if not isinstance(config, dict) or config.get("model_type") != MODEL_TYPE:
        raise UserError(f"{path}: is not the config of a reward (model_type {MODEL_TYPE!r}); name a reward's folder")
    if config.get("format") != 1:
        raise UserError(f"{path}: format {str(config.get('format'))[:20]} is not 1; update s2f_rl")
    for key in _SIZES:
        if type(config.get(key)) is not int or not 1 <= config[key] <= _LARGEST:
            raise UserError(f"{path}: {key} is {str(config.get(key))[:40]}; it must be a whole number above 0")
    if not isinstance(config.get("content_hash"), str):
        raise UserError(f"{path}: lacks content_hash, which tells that both files belong together; get the file again")
    head = config.get("head", False)
    if head is None:
        return
    if not isinstance(head, dict) or not isinstance(head.get("out_activation"), str):
        raise UserError(f"{path}: head must be null or an object with hidden and out_activation; get the file again")
    if type(head.get("hidden")) is not int or not 1 <= head["hidden"] <= _LARGEST:
        raise UserError(f"{path}: head.hidden is {str(head.get('hidden'))[:40]}; it must be a whole number above 0")


def _has(part: object) -> str:
    return "a" if part else "no"


def _download(repository: str, name: str, revision: str | None, cache_dir: str | os.PathLike[str] | None) -> Path:
    from huggingface_hub import hf_hub_download

    where = None if cache_dir is None else os.fspath(cache_dir)
    try:
        return Path(hf_hub_download(repository, name, revision=revision, cache_dir=where))
    except Exception as error:  # no network, no such repository, no permission, offline mode: many types
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(
            f"{repository}: no such folder, and {name} cannot be had from the hub ({reason}); check the name and the "
            "network"
        ) from error
