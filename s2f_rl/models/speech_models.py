"""Speech models of transformers that hear at 50 Hz: which, what settings they have, and their weights from a folder.

Of a config only sizes and rates are used; nothing in it names code, files or a hub.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from s2f_rl.data.clock import CONV_RATE_HZ
from s2f_rl.data.soundness import not_finite
from s2f_rl.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

SPEECH_MODELS = {
    "wav2vec2": "Wav2Vec2",
    "hubert": "Hubert",
    "wavlm": "WavLM",
    "data2vec-audio": "Data2VecAudio",
    "unispeech": "UniSpeech",
    "unispeech-sat": "UniSpeechSat",
    "wav2vec2-bert": "Wav2Vec2Bert",
}
"""``model_type`` in config.json, and how the names of its classes in transformers begin. XLS-R and MMS are wav2vec2."""
BERT = "wav2vec2-bert"
"""The one that hears log-mel features; the others convolve the waveform."""

_GRID = (400, 320)  # window and hop in samples at 16 kHz
_LARGEST = 10**6
_LARGEST_OF = {"max_source_positions": 10**4, "num_hidden_layers": 1000}  # of what is made before a file is read
_BESIDE = ("model_type", "vocab_size", "pad_token_id", "bos_token_id", "eos_token_id")  # no part of the encoder
log = logging.getLogger(__name__)


def new_model(kind: str, config: Mapping[str, object]) -> PreTrainedModel:
    """A model of a kind with random weights.

    Args:
        kind: of :data:`SPEECH_MODELS`. config: keywords of its config class in transformers.

    Raises:
        UserError: they make no model, or one that does not make 50 features a second.
    """
    where = "actor.audio.config"
    try:
        # Eager attention would give the same numbers; the default kernel is faster.
        made: PreTrainedModel = _class(kind, "Model")(_config(kind, config, where))
        return made
    except (ValueError, KeyError) as error:
        raise UserError(f"{where}: {str(error)[:200]}") from error


def published_model(pretrained: str, kind: str | None, local_files_only: bool) -> tuple[str, PreTrainedModel]:
    """Kind and model of published weights, float32.

    Args:
        pretrained: folder with config.json and model.safetensors (or pytorch_model.bin), or a hub name.
        kind: that it must be; None: any of :data:`SPEECH_MODELS`.
        local_files_only: never ask the network.

    Raises:
        UserError: nothing there, another kind, weights that lack a part, are quantised or not finite, or features at
            another rate than 50 Hz.
    """
    import torch
    from transformers import PretrainedConfig

    where, named = f"actor.audio.pretrained={pretrained}", kind or "speech model"
    try:
        found = PretrainedConfig.get_config_dict(pretrained, local_files_only=local_files_only)[0]
        if not found:
            raise UserError(f"{where}: no config.json there; give a folder with config.json and model.safetensors")
        named = str(found.get("model_type") if isinstance(found, dict) else None)[:40]
        if isinstance(found, dict) and found.get("quantization_config"):
            raise UserError(f"{where}: its weights are quantised (quantization_config); give those of the model itself")
        if named not in SPEECH_MODELS:
            raise UserError(f"{where}: its config.json says {named!r}; known are {', '.join(SPEECH_MODELS)}")
        if kind not in (None, named):
            raise UserError(f"{where}: holds {named}, not {kind}; set actor.audio.kind={named}, or actor=speech")
        # null is what a setting was before it had a name
        settings = {name: value for name, value in found.items() if name in _defaults(named) and value is not None}
        config = _config(named, checked_settings(named, settings, _LARGEST, f"{where}: its "), where)
        with _quiet():
            model, report = _class(named, "Model").from_pretrained(
                pretrained, config=config, local_files_only=local_files_only, dtype=torch.float32,
                output_loading_info=True,
            )  # fmt: skip
    except UserError:
        raise
    except OSError as error:
        raise UserError(
            f"{where}: no weights of a {named} there; give a folder with config.json and model.safetensors, or set "
            "actor.audio.local_files_only=false to download a hub name"
        ) from error
    except Exception as error:  # whatever torch, safetensors and transformers raise for files that cannot be
        reason = " ".join(str(error).split())[:200]
        if "ignore_mismatched_sizes" in reason:
            reason = "its weights have other sizes than its config.json states"
        if isinstance(error, UnpicklingError):
            reason = "its pytorch_model.bin is damaged, or holds more than tensors"
        raise UserError(f"{where}: {reason}; give the folder of a whole {named}") from error
    lacking = sorted(set(report["missing_keys"]) - {"masked_spec_embed"})  # which only training with masks needs
    if lacking:
        raise UserError(f"{where}: its weights lack {', '.join(lacking[:3])}; give the folder of a whole {named}")
    broken = not_finite(model.state_dict())
    if broken is not None:
        raise UserError(f"{where}: {broken} holds NaN or infinite values; give the folder of a whole {named}")
    return named, model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' report of weights that are missing, not used or of another size: one line tells of them."""
    logger = logging.getLogger("transformers.modeling_utils")
    before, logger.disabled = logger.disabled, True  # a level would have it say something else
    try:
        yield
    finally:
        logger.disabled = before


def known_settings(kind: str, config: PretrainedConfig) -> dict[str, object]:
    """The settings of ``config`` that differ from its class's defaults, plain values."""
    return {name: value for name, value in config.to_diff_dict().items() if name in _defaults(kind)}


def checked_settings(
    kind: str, config: object, n_tensors: int, where: str = "config.audio.config."
) -> dict[str, object]:
    """The settings in a file's ``config``; others are left out with a warning.

    Transformers takes any key: some make it download code for attention, whatever the weights are.

    Args:
        kind: of :data:`SPEECH_MODELS`. config: keywords of its config class in transformers.
        n_tensors: in the file; a layer has several. where: what the message begins with.

    Raises:
        UserError: a value of another type than its default's, or out of range; names the key.
    """
    if not isinstance(config, Mapping):
        raise UserError("config.audio.config is no dictionary of settings")
    defaults = _defaults(kind)
    settings = {name: value for name, value in config.items() if isinstance(name, str) and name in defaults}
    beside = [str(name)[:40] for name in config if name not in settings and name not in _BESIDE]
    if beside:
        log.warning("%s: the file's %s are no settings of the model and are not used", kind, ", ".join(beside[:4]))
    for name, value in settings.items():
        if not _is_like(value, defaults[name], _LARGEST_OF.get(name, _LARGEST)):
            raise UserError(f"{where}{name} is {str(value)[:40]}; it cannot be")
    layers = [value for name, value in settings.items() if name.startswith("num_") and name.endswith("layers")]
    lists = [len(value) for value in settings.values() if isinstance(value, (list, tuple))]
    most = max([value for value in layers if isinstance(value, int)] + lists, default=0)
    if most > n_tensors:
        raise UserError(f"config.audio.config asks for {most} layers, the file holds {n_tensors} tensors")
    return settings


def _config(kind: str, settings: Mapping[str, object], where: str) -> PretrainedConfig:
    from huggingface_hub.errors import StrictDataclassError

    try:
        config: PretrainedConfig = _class(kind, "Config")(**settings)
    except StrictDataclassError as error:
        raise UserError(f"{where}: {str(error)[:200]}") from error
    _refuse_other_rates(kind, config, where)
    return config


def _refuse_other_rates(kind: str, config: PretrainedConfig, where: str) -> None:
    values = config.to_dict()
    if values.get("add_adapter"):
        raise UserError(f"{where}: its adapter (add_adapter) changes the rate of {CONV_RATE_HZ} features a second")
    if kind == BERT:
        if values["feature_projection_input_dim"] != 160:
            raise UserError(
                f"{where}: feature_projection_input_dim is {values['feature_projection_input_dim']}; it must be 160, "
                f"two windows of 80 mel bands, to make {CONV_RATE_HZ} features a second, as published"
            )
        return
    if values["num_feat_extract_layers"] != len(values["conv_dim"]):
        raise UserError(f"{where}: num_feat_extract_layers and conv_dim disagree")
    grid = _grid_of(values["conv_kernel"], values["conv_stride"])
    if grid != _GRID:
        raise UserError(
            f"{where}: conv_kernel and conv_stride must make {CONV_RATE_HZ} features a second, as published, of 400 "
            f"samples every 320; theirs are of {grid[0]} every {grid[1]}"
        )


def _grid_of(kernels: Sequence[int], strides: Sequence[int]) -> tuple[int, int]:
    """Receptive field and hop, in samples, of a stack of convolutions."""
    field, hop = 1, 1
    for kernel, stride in zip(kernels, strides, strict=False):
        field, hop = field + (kernel - 1) * hop, hop * stride
    return field, hop


def _is_like(value: object, default: object, largest: int) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return type(value) is type(default)
    if isinstance(default, int):
        return type(value) is int and 0 <= value <= largest
    if isinstance(default, float):
        return isinstance(value, (int, float)) and 0 <= value <= 1
    if isinstance(default, str):
        return isinstance(value, str) and len(value) <= 40
    if isinstance(default, (list, tuple)):
        return isinstance(value, (list, tuple)) and all(type(item) is int and 1 <= item <= largest for item in value)
    return value is None or (type(value) is int and 0 <= value <= largest)


def _class(kind: str, end: str) -> Any:
    """A class of transformers, whose modules are loaded when they are asked for."""
    import transformers

    return getattr(transformers, SPEECH_MODELS[kind] + end)


@lru_cache
def _defaults(kind: str) -> dict[str, object]:
    """Settings of a kind and their defaults, without those that say nothing of the encoder."""
    from transformers import PretrainedConfig

    beside = {*PretrainedConfig().to_dict(), *_BESIDE}
    return {name: value for name, value in _class(kind, "Config")().to_dict().items() if name not in beside}
