"""Names and shapes of the published FaceFormer checkpoints, both ways, and what every published checkpoint must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from s2f_rl.data.soundness import float_weights
from s2f_rl.errors import UserError
from s2f_rl.models.audio_encoders import Wav2Vec2AudioEncoder
from s2f_rl.models.decoder_parts import periodic_positions
from s2f_rl.models.state_dicts import require_dense

M = TypeVar("M", bound=nn.Module)
_LAYER = "transformer_decoder.layers.0."
_WEIGHT_NORM_2022 = {  # spelling of 2022-era torch -> torch parametrizations
    "pos_conv_embed.conv.weight_g": "pos_conv_embed.conv.parametrizations.weight.original0",
    "pos_conv_embed.conv.weight_v": "pos_conv_embed.conv.parametrizations.weight.original1",
}
_MAX_FRAMES = 600  # the reference's ceiling, which fixes the rows of its position table
_N_HEAD = 4  # fixed in the reference, and not readable off the tensors


def _own_name(name: str) -> str:
    """Published name -> name in our model."""
    if name.startswith("audio_encoder."):
        return "audio_encoder.model." + name.removeprefix("audio_encoder.")
    if name.startswith(_LAYER):
        return "decoder.layer." + name.removeprefix(_LAYER)
    return "decoder." + name


def _published_name(name: str) -> str:
    """Name in our model -> published name."""
    if name.startswith("audio_encoder.model."):
        return "audio_encoder." + name.removeprefix("audio_encoder.model.")
    if name.startswith("decoder.layer."):
        return _LAYER + name.removeprefix("decoder.layer.")
    return name.removeprefix("decoder.")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def clean_state_dict(state_dict: object) -> dict[str, Tensor]:
    """Drop wrappers (``{"model": ..}``, ``{"state_dict": ..}``, ``module.``) and check that the values are tensors."""
    for wrapper in ("model", "state_dict", "model_state_dict"):
        if isinstance(state_dict, Mapping) and isinstance(state_dict.get(wrapper), Mapping):
            state_dict = state_dict[wrapper]
    if not isinstance(state_dict, Mapping) or not state_dict:
        raise UserError("the checkpoint is not a state dict: expected a mapping from names to tensors")
    wrong = [str(k) for k, v in state_dict.items() if not isinstance(v, Tensor)]
    if wrong:
        raise UserError(f"the checkpoint's {_listed(wrong)} is no tensor: pass the model's state dict alone")
    return {str(k).removeprefix("module."): v for k, v in state_dict.items()}


def build_from_reference(
    make: Callable[..., M],
    state_dict: Mapping[str, object],
    topology: str,
    period: int | None,
    audio_config: dict[str, object],
) -> M:
    """See :meth:`s2f_rl.models.FaceFormer.from_reference`; ``make`` is that class."""
    published = clean_state_dict(state_dict)
    sizes = {"vertice_map.weight": 2, "obj_vector.weight": 2}
    for name, ndim in sizes.items():
        if name not in published or published[name].ndim != ndim or not published[name].numel():
            raise UserError(f"the checkpoint lacks {name}: is it a FaceFormer checkpoint?")
    require_dense(published)
    feature_dim, n_outputs = published["vertice_map.weight"].shape
    if feature_dim % _N_HEAD:
        raise UserError(f"vertice_map.weight is {feature_dim} wide: not a multiple of the {_N_HEAD} attention heads")
    if n_outputs % 3:
        raise UserError(f"vertice_map.weight has {n_outputs} inputs: not a multiple of 3, so these are no vertices")

    def build() -> M:
        return make(
            Wav2Vec2AudioEncoder(audio_config, topology),
            n_vertices=n_outputs // 3,
            feature_dim=feature_dim,
            n_subjects=published["obj_vector.weight"].shape[1],
            period=period,
            n_head=_N_HEAD,
        )

    own = {_own_name(k): v for k, v in published.items() if k != "PPE.pe"}
    return fit(build, own, _published_name, "FaceFormer")


def fit(build: Callable[[], M], own: Mapping[str, Tensor], published_name: Callable[[str], str], what: str) -> M:
    """A model with the tensors of a published checkpoint.

    Args:
        build: makes the model; nothing is allocated before names and shapes are compared.
        own: the tensors under our names, in either spelling of weight norm.
        published_name: our name to what a message says. what: the model's name, for messages.

    Raises:
        UserError: names the tensors that are missing, superfluous or of the wrong shape.
    """
    own = {_parametrized(k): v for k, v in own.items()}
    with torch.device("meta"):
        expected = build().state_dict()
    mask = "audio_encoder.model.masked_spec_embed"  # used in training only; absent where masking was off
    lacks_mask = mask in expected and mask not in own
    if lacks_mask:
        own[mask] = expected[mask]
    if mask in own and mask not in expected:
        del own[mask]
    missing = [published_name(k) for k in expected if k not in own]
    extra = [published_name(k) for k in own if k not in expected]
    shape = [published_name(k) for k in expected if k in own and own[k].shape != expected[k].shape]
    if missing or extra or shape:
        parts = [f"{what}: {_listed(names)}" for what, names in
                 (("missing", missing), ("unknown", extra), ("wrong shape", shape)) if names]  # fmt: skip
        raise UserError(f"the checkpoint does not fit {what} ({'; '.join(parts)}): check topology and audio_config")
    model = build()
    if lacks_mask:
        own[mask] = model.state_dict()[mask]
    model.load_state_dict(float_weights(own, expected, "the checkpoint"))
    return model


def _parametrized(name: str) -> str:
    for old, new in _WEIGHT_NORM_2022.items():
        name = name.replace(old, new)
    return name


def to_reference(state_dict: Mapping[str, Tensor], period: int) -> dict[str, Tensor]:
    """A FaceFormer's own state dict under the published names; ``period`` is that of its positions, in frames."""
    published = {_published_name(k): v.detach().clone() for k, v in state_dict.items()}
    published["PPE.pe"] = position_table(published["vertice_map.weight"].shape[0], period)
    return published


def position_table(width: int, period: int) -> Tensor:
    """The table of periodic positions [1, rows, width] that published files hold."""
    table = periodic_positions(width, period).repeat(_MAX_FRAMES // period + 1, 1)
    return table.unsqueeze(0).to(torch.float32)
