"""Loads the golden CodeTalker files."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from s2f_rl.models import CodeTalker

GOLDEN = Path(__file__).parent / "golden" / "codetalker"
Arrays = dict[str, np.ndarray]


class Golden(NamedTuple):
    """``arrays``: the file's. ``stages``: state dicts of both, which ``from_reference`` takes with ``options``."""

    arrays: Arrays
    options: dict[str, Any]
    stages: tuple[dict[str, Tensor], dict[str, Tensor]]
    actor: CodeTalker

    def given(self, *names: str) -> list[Tensor]:
        """Inputs in the actor's precision, by name."""
        return [torch.from_numpy(self.arrays[name]).to(self.actor.codebook.codes.dtype) for name in names]


def load(topology: str, dtype: torch.dtype = torch.float32) -> Golden:
    """Everything of one file; the actor is shared by all tests, in evaluation mode, and to be left as it is."""
    golden = _loaded(topology)
    return golden if dtype is torch.float32 else golden._replace(actor=_actor_in(topology, dtype))


@functools.cache
def _actor_in(topology: str, dtype: torch.dtype) -> CodeTalker:
    return copy.deepcopy(_loaded(topology).actor).to(dtype)


@functools.cache
def _loaded(topology: str) -> Golden:
    with np.load(GOLDEN / f"codetalker_{topology}.npz") as file:
        arrays = {name: file[name] for name in file.files}
    config = json.loads(bytes(arrays["config_json"]).decode())
    first, second = (
        {k.removeprefix(f"sd{n}/"): torch.from_numpy(v) for k, v in arrays.items() if k.startswith(f"sd{n}/")}
        for n in (1, 2)
    )
    options = {
        "topology": topology,
        "codebook_heads": config["stage1"]["num_attention_heads"],
        "heads": config["stage2"]["n_head"],
        "period": config["stage2"]["period"],
        "audio_config": config["wav2vec2"],
    }
    return Golden(arrays, options, (first, second), CodeTalker.from_reference(first, second, **options).eval())
