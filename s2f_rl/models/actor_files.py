"""Building an actor that a file describes: its settings are checked and compared with its tensors before anything."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s2f_rl.data.soundness import float_weights
from s2f_rl.errors import UserError
from s2f_rl.models.actors import ACTORS, DEFAULT
from s2f_rl.models.contract import Actor
from s2f_rl.models.encoder_kinds import KINDS
from s2f_rl.models.state_dicts import require_dense

# they make the program look for weights elsewhere; errors are for training alone
_ONLY_FROM_USERS = ("self", "pretrained", "local_files_only", "errors", "codebook")
_LARGEST = 10**7  # of any setting
_WHOLE = {
    "n_vertices": 10**7,
    "feature_dim": 10**6,
    "n_subjects": 10**6,
    "period": 1000,
    "n_head": 1024,
    "n_coefficients": 10**5,
    "width": 10**6,
    "n_mels": 1024,
    "n_layers": 1000,
    "n_phones": 1000,
    "ear_width": 10**4,
    "ear_layers": 1000,
    "codebook_width": 10**6,
    "codebook_hidden": 10**6,
    "codebook_layers": 1000,
    "codebook_heads": 1024,
    "n_codes": 10**6,
    "code_width": 10**6,
    "codes_per_frame": 1000,
    "feedback_window": 10**6,
}
"""Settings that are whole numbers from 1, and their largest values. All but period,
heads and window must fit the tensors."""


def build_actor(config: object, state_dict: Any, what: str | Path = "the checkpoint", kind: object = DEFAULT) -> Actor:
    """The actor of a file's ``kind``, ``config`` (:meth:`Actor.config`) and ``state_dict``.

    It is built once without memory, on the "meta" device, and for good only when every name and shape agrees, so that
    a small file cannot ask for a large model. So is an actor of one's own, whose constructor must allow it: its
    settings are those that the constructor names, with whole numbers up to ten million and texts up to 40 letters.

    Raises:
        UserError, TypeError, ValueError, RuntimeError, ...: the first that is wrong.
    """
    built = ACTORS.named_by_file(kind, str(what))
    settings = checked_settings(config, len(state_dict), built)
    with torch.device("meta"):
        expected = built.from_config(settings).state_dict()
    state_dict = float_weights(state_dict, expected, str(what))
    require_dense(state_dict)
    wrong = next(
        (name for name in {**expected, **state_dict} if _shape(expected, name) != _shape(state_dict, name)), None
    )
    if wrong is not None:
        raise UserError(
            f"{wrong[:80]} is {_shape(state_dict, wrong) or 'absent'}, its config asks for {_shape(expected, wrong)}"
        )
    actor = built.from_config(settings)
    actor.load_state_dict(state_dict)
    return actor


def checked_settings(config: object, n_tensors: int, built: type) -> dict[str, Any]:
    """``config`` if it holds nothing but what a model and its encoder write there, in ranges that can be meant.

    Args:
        config: as :meth:`Actor.config` gives it. n_tensors: entries of the state dict; a layer has several.
        built: the actor's class.

    Raises:
        UserError: names the setting.
    """
    settings = _known(config, "config", built, leave="audio_encoder", plus="audio")
    audio = settings["audio"]
    kind = audio.get("kind") if isinstance(audio, Mapping) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"config.audio.kind is {str(kind)[:40]!r}; known are {', '.join(KINDS)}")
    audio = _known(audio, "config.audio", KINDS[kind], plus="kind")
    for name, value in (*settings.items(), *audio.items()):
        if name in _WHOLE and not (type(value) is int and 1 <= value <= _WHOLE[name]):
            raise UserError(f"{name} is {str(value)[:40]}; it must be a whole number from 1 to {_WHOLE[name]}")
    for name, value in (*settings.items(), *audio.items()):
        if name.endswith("_layers") and name in _WHOLE and value > n_tensors:
            raise UserError(f"{name} is {value}, but the file holds {n_tensors} tensors")
    if {"feature_dim", "n_head"} <= set(settings) and settings["feature_dim"] % settings["n_head"]:
        raise UserError(f"n_head is {settings.get('n_head')}, which does not divide feature_dim")
    dropout = settings.get("dropout", 0.0)
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise UserError(f"dropout is {str(dropout)[:40]}; it must be a number from 0 to below 1")
    return {**settings, "audio": KINDS[kind].settings_from_file(audio, n_tensors)}


def _known(config: object, where: str, built: type, leave: str = "", plus: str = "") -> dict[str, Any]:
    if not isinstance(config, Mapping):
        raise UserError(f"{where} is no dictionary of settings")
    parameters = set(inspect.signature(built).parameters) - {leave, *_ONLY_FROM_USERS} | {plus}
    for name, value in config.items():
        if name not in parameters:
            raise UserError(f"{where} holds {str(name)[:40]!r}, which is no setting that a file may have")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{where}.{name} is {value}")
        if name not in _WHOLE and isinstance(value, int) and abs(value) > _LARGEST:
            raise UserError(f"{where}.{name} is {str(value)[:40]}; it can be {_LARGEST} at most")
        if isinstance(value, str) and len(value) > 40:
            raise UserError(f"{where}.{name} is a text of {len(value)} letters")
    if plus not in config:
        raise UserError(f"{where} lacks {plus!r}")
    return dict(config)


def _shape(tensors: Mapping[str, Tensor], name: str) -> list[int] | None:
    return list(tensors[name].shape) if name in tensors else None
