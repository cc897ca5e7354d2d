"""Which settings of a wav2vec2 config are used: sizes and rates; nothing that names code, files or a hub."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from s2f_rl.errors import UserError

if TYPE_CHECKING:
    from transformers import Wav2Vec2Config

_LARGEST = 10**6
_BESIDE = ("model_type",)  # written with the settings, and always the same
log = logging.getLogger(__name__)


def known_settings(config: Wav2Vec2Config) -> dict[str, Any]:
    """The settings of ``config`` that differ from wav2vec2-base, plain values."""
    return {name: value for name, value in config.to_diff_dict().items() if name in _defaults()}


def checked_wav2vec2(config: object, n_tensors: int) -> dict[str, Any]:
    """The settings in a file's ``config``; others are left out with a warning.

    Transformers takes any key: some make it download code for attention, whatever the weights are.

    Args:
        config: keywords of :class:`transformers.Wav2Vec2Config`. n_tensors: in the file; a layer has several.

    Raises:
        UserError: a value of another type than its default's, or out of range; names the key.
    """
    if not isinstance(config, Mapping):
        raise UserError("config.audio.config is no dictionary of settings")
    settings = {name: value for name, value in config.items() if isinstance(name, str) and name in _defaults()}
    beside = [str(name)[:40] for name in config if name not in settings and name not in _BESIDE]
    if beside:
        log.warning("wav2vec2: the file's %s are no settings of the model and are not used", ", ".join(beside[:4]))
    for name, value in settings.items():
        if not _is_like(value, _defaults()[name]):
            raise UserError(f"config.audio.config.{name} is {str(value)[:40]}; it cannot be")
    layers = max(
        (settings.get(name, 0) for name in settings if name.startswith("num_") and name.endswith("layers")), default=0
    )
    longest = max((len(value) for value in settings.values() if isinstance(value, (list, tuple))), default=0)
    if max(layers, longest) > n_tensors:
        raise UserError(
            f"config.audio.config asks for {max(layers, longest)} layers, the file holds {n_tensors} tensors"
        )
    return settings


def grid_of(kernels: Sequence[int], strides: Sequence[int]) -> tuple[int, int]:
    """Receptive field and hop, in samples, of a stack of convolutions."""
    field, hop = 1, 1
    for kernel, stride in zip(kernels, strides, strict=False):
        field, hop = field + (kernel - 1) * hop, hop * stride
    return field, hop


def _is_like(value: object, default: object) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return type(value) is type(default)
    if isinstance(default, int):
        return type(value) is int and 0 <= value <= _LARGEST
    if isinstance(default, float):
        return isinstance(value, (int, float)) and 0 <= value <= 1
    if isinstance(default, str):
        return isinstance(value, str) and len(value) <= 40
    if isinstance(default, (list, tuple)):
        return isinstance(value, (list, tuple)) and all(type(item) is int and 1 <= item <= _LARGEST for item in value)
    return value is None


@lru_cache(maxsize=1)
def _defaults() -> dict[str, object]:
    from transformers import PretrainedConfig, Wav2Vec2Config

    common = PretrainedConfig().to_dict()
    return {name: value for name, value in Wav2Vec2Config().to_dict().items() if name not in common}
