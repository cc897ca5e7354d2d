"""A small CodeTalker of random weights."""

from __future__ import annotations

from typing import Any

import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.models import CodeTalker, MelAudioEncoder
from s2f_rl.training import actor_entry

SIZES = {"feature_dim": 16, "n_layers": 2, "codebook_width": 16, "codebook_hidden": 24, "codebook_layers": 2,
         "codebook_heads": 2, "n_codes": 12, "code_width": 4, "codes_per_frame": 4}  # fmt: skip


def small_actor(n_vertices: int = 40, n_subjects: int = 2, **options: Any) -> CodeTalker:
    """Random weights whose codes follow the sound."""
    torch.manual_seed(0)
    actor = CodeTalker(MelAudioEncoder(width=8), n_vertices, n_subjects, **{**SIZES, **options}).eval()
    torch.nn.init.normal_(actor.codebook.codes)
    torch.nn.init.normal_(actor.decoder.feature_map.weight, std=0.3)
    return actor


def small_checkpoint(corpus: FaceCorpus) -> dict[str, Any]:
    """What a checkpoint holds of a random CodeTalker of a corpus, whose faces move by a little."""
    actor = small_actor(corpus.n_vertices, len(corpus.subjects))
    with torch.no_grad():
        for parameter in actor.output_map():
            parameter.mul_(0.01)
    return {"actor": actor_entry(actor, corpus)}
