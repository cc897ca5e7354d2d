"""Names and shapes of the published CodeTalker checkpoints, both stages, both ways."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from torch import Tensor, nn

from s2f_rl.errors import UserError
from s2f_rl.models.audio_encoders import Wav2Vec2AudioEncoder
from s2f_rl.models.decoder_parts import periodic_positions
from s2f_rl.models.reference import clean_state_dict, fit, position_table
from s2f_rl.models.state_dicts import require_dense

M = TypeVar("M", bound=nn.Module)
STAGE1, STAGE2 = "quantize.embedding.weight", "learnable_style_emb.weight"
"""Tensors by which the stages' files are told."""
_TABLES = ("encoder.encoder_pos_embedding.pe", "decoder.decoder_pos_embedding.pe", "PPE.pe")
_TABLE_ROWS = 5000  # of stage 1
_BLOCK = {  # in a block of stage 1: published name -> ours; attention and MLP are entries of their own
    0: {"fn.norm": "norm1", "fn.fn.to_qkv": "qkv", "fn.fn.to_out": "out"},
    1: {"fn.norm": "norm2", "fn.fn.l1": "up", "fn.fn.l2": "down"},
}
_ATTENTION_OR_MLP = {own: (which, name) for which, names in _BLOCK.items() for name, own in names.items()}
_NAMES = {  # published prefix -> ours
    "quantize.embedding.weight": "codebook.codes",
    "encoder.vertice_mapping.0.": "codebook.encoder.input.",
    "encoder.squasher.0.0.": "codebook.encoder.mixer.convolution.",
    "encoder.encoder_linear_embedding.net.": "codebook.encoder.mixer.map.",
    "encoder.encoder_linear_embedding_post.net.": "codebook.encoder.output.",
    "encoder.encoder_transformer.net.": "codebook.encoder.mixer.blocks.",
    "decoder.decoder_linear_embedding_pre.net.": "codebook.decoder.input.",
    "decoder.expander.0.0.": "codebook.decoder.mixer.convolution.",
    "decoder.decoder_linear_embedding.net.": "codebook.decoder.mixer.map.",
    "decoder.decoder_transformer.net.": "codebook.decoder.mixer.blocks.",
    "decoder.vertice_map_reverse.": "codebook.decoder.output.",
    "transformer_decoder.layers.": "decoder.layers.",
    "audio_feature_map.": "decoder.audio_feature_map.",
    "vertice_map.": "decoder.vertice_map.",
    "feat_map.": "decoder.feature_map.",
    "learnable_style_emb.": "decoder.style_embedding.",
    "audio_encoder.": "audio_encoder.model.",
}


def own_name(name: str) -> str:
    """Published name of either stage -> name in our model; an unknown one stays as it is."""
    for theirs, ours in _NAMES.items():
        if name.startswith(theirs):
            rest = name.removeprefix(theirs)
            if ours.endswith(".blocks."):
                found = re.fullmatch(r"(\d+)\.(.+)\.(\w+)", rest)
                which = int(found[1]) if found else 0
                part = _BLOCK[which % 2].get(found[2]) if found else None
                return name if found is None or part is None else f"{ours}{which // 2}.{part}.{found[3]}"
            return ours + rest
    return name


def published_name(name: str) -> str:
    """Name in our model -> published name."""
    for theirs, ours in _NAMES.items():
        if name.startswith(ours):
            rest = name.removeprefix(ours)
            if ours.endswith(".blocks."):
                block, part, leaf = rest.split(".")
                which, inner = _ATTENTION_OR_MLP[part]
                return f"{theirs}{2 * int(block) + which}.{inner}.{leaf}"
            return theirs + rest
    return name


def _size(tensors: Mapping[str, Tensor], name: str, n_dim: int, axis: int, what: str) -> int:
    if name not in tensors or tensors[name].ndim != n_dim or not tensors[name].numel():
        raise UserError(f"the checkpoint lacks {name}: is it a CodeTalker checkpoint of {what}?")
    return tensors[name].shape[axis]


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """One more than the largest number in the names that fit ``pattern``, at most as many as there are tensors."""
    found = [int(match[1]) for name in tensors if (match := re.match(pattern, name))]
    return min(1 + max(found, default=-1), len(tensors))


def build_from_reference(
    make: Callable[..., M],
    stage1: Mapping[str, object],
    stage2: Mapping[str, object],
    topology: str,
    audio_config: dict[str, object],
    options: Mapping[str, int | None],
) -> M:
    """See :meth:`s2f_rl.models.codetalker.CodeTalker.from_reference`; ``make`` is that class."""
    one, two = clean_state_dict(stage1), clean_state_dict(stage2)
    require_dense(one)
    require_dense(two)
    width = _size(one, "encoder.vertice_mapping.0.weight", 2, 0, "stage 1")
    n_outputs = _size(one, "encoder.vertice_mapping.0.weight", 2, 1, "stage 1")
    code_width = _size(one, STAGE1, 2, 1, "stage 1")
    n_features = _size(two, "feat_map.weight", 2, 0, "stage 2")
    if n_outputs % 3:
        raise UserError(f"encoder.vertice_mapping.0.weight has {n_outputs} inputs: not a multiple of 3: no vertices")
    if n_features % code_width:
        raise UserError(f"feat_map.weight gives {n_features} numbers: not a multiple of the {code_width} of a code")
    sizes = {
        "n_vertices": n_outputs // 3,
        "n_subjects": _size(two, STAGE2, 2, 0, "stage 2"),
        "feature_dim": _size(two, "feat_map.weight", 2, 1, "stage 2"),
        "n_layers": _count(two, r"transformer_decoder\.layers\.(\d+)\."),
        "codebook_width": width,
        "codebook_hidden": _size(one, "encoder.encoder_transformer.net.1.fn.fn.l1.weight", 2, 0, "stage 1"),
        "codebook_layers": _count(one, r"encoder\.encoder_transformer\.net\.(\d+)\.") // 2,
        "n_codes": _size(one, STAGE1, 2, 0, "stage 1"),
        "code_width": code_width,
        "codes_per_frame": n_features // code_width,
        "mapped_codes": topology == "biwi",
    }

    def build() -> M:
        try:
            return make(Wav2Vec2AudioEncoder(audio_config, topology), **sizes, **options)
        except (ValueError, AssertionError) as error:
            raise UserError(f"the checkpoint does not fit CodeTalker ({error}): check topology and heads") from error

    own, stages = {}, {}
    for stage, tensors in (("stage 1", one), ("stage 2", two)):
        for name, tensor in tensors.items():
            if name not in _TABLES:
                ours = own_name(name)
                ours = ours if _stage(ours) == stage else name  # known in the other file alone
                own[ours], stages[ours] = tensor, stage
    return fit(build, own, lambda name: f"{stages.get(name, _stage(name))} {published_name(name)}", "CodeTalker")


def _stage(name: str) -> str:
    """Of a name in our model."""
    return "stage 1" if name.startswith("codebook.") else "stage 2"


def to_reference(
    state_dict: Mapping[str, Tensor], codebook_width: int, period: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A CodeTalker's own state dict under the published names, stage 1 and stage 2, with the tables of positions."""
    stages: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    for name, tensor in state_dict.items():
        stages[not name.startswith("codebook.")][published_name(name)] = tensor.detach().clone()
    rows = periodic_positions(codebook_width, _TABLE_ROWS).unsqueeze(1)
    stages[0].update(dict.fromkeys(_TABLES[:2], rows))
    stages[1][_TABLES[2]] = position_table(stages[1]["feat_map.weight"].shape[1], period)
    return stages
