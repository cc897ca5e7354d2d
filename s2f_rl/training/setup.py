"""Opening what a recipe needs: corpora, and the actor that RL starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s2f_rl.data import FaceCorpus
from s2f_rl.data.contract import Corpus
from s2f_rl.errors import UserError
from s2f_rl.models.checkpoint import MOUTH, actor_file, actor_payload
from s2f_rl.models.contract import Actor
from s2f_rl.models.meeting import load_actor_for
from s2f_rl.runs import PolicyAverage
from s2f_rl.training.optimizers import Moments, named_moments

_LARGE_BYTES = 8 * 2**20


def plain(config: Any) -> dict[str, Any]:
    """A config group as a plain dict, values and nested groups included."""
    return {str(k): _plain(v) for k, v in config.items()}


def _plain(value: object) -> object:
    if hasattr(value, "items"):
        return plain(value)
    return [_plain(v) for v in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


def open_corpora(
    root: str | Path, topology: str | None = None, splits: tuple[str, ...] = ("train", "validation")
) -> list[FaceCorpus]:
    """One :class:`~s2f_rl.data.FaceCorpus` for each split of the corpus folder ``root``, whose rate is as stated."""
    if not Path(root).exists():
        raise UserError(
            f"corpus.root={root}: no such folder; make the built-in corpus with `s2f-rl synthesize {root}` or prepare "
            "VOCASET with `s2f-rl prepare vocaset`"
        )
    corpora = [FaceCorpus(root, split=split, topology=topology) for split in splits]
    for split, corpus in zip(splits, corpora, strict=True):
        corpus.refuse_other_rate()
        if not len(corpus):
            raise UserError(f"corpus.root={root}: the {split} split is empty; run `s2f-rl check {root}`")
    return corpora


def actor_entry(actor: Actor, corpus: FaceCorpus, average: PolicyAverage | None = None) -> dict[str, Any]:
    """The ``actor`` entry of a checkpoint, with what a face needs: templates, triangles, lips and their middles.

    ``average``: its weights stand in place of the actor's. Nothing is copied: write it before training goes on.
    """
    faces = corpus.faces
    return actor_payload(
        actor,
        list(corpus.subjects),
        corpus.mesh_identity,
        actor.state_dict() if average is None else average.weights(actor),
        dataset=str(corpus.metadata.get("dataset", corpus.topology)),
        # a corpus of part of the speakers has not all of their faces
        templates={s: corpus.template(s).float() for s in corpus.subjects if s in corpus.templates},
        faces=None if faces is None else torch.as_tensor(faces).int(),
        **{name: corpus.regions.get(name) for name in MOUTH},
    )


def frozen_encoder(actor: Actor) -> dict[str, Tensor]:
    """Tensors of an audio encoder that does not train and is over 8 MB, to be kept once in a run; else none."""
    encoder = actor.audio_encoder
    tensors = {name: tensor.detach() for name, tensor in encoder.state_dict().items()}
    large = sum(tensor.nbytes for tensor in tensors.values()) > _LARGE_BYTES
    return tensors if large and not any(p.requires_grad for p in encoder.parameters()) else {}


def actor_moments(optimizer: torch.optim.Optimizer, actor: Actor, whole: bool = False) -> Moments:
    """Adam's moments of an actor's parameters; those of an audio encoder over 8 MB only if ``whole``.

    ``last.pt`` holds them with the state of the optimizer in any case; in another file they would be twice the encoder.
    """
    encoder = {id(p): p for p in actor.audio_encoder.parameters()}
    left_out = not whole and sum(p.nbytes for p in encoder.values()) > _LARGE_BYTES
    named = ((name, p) for name, p in actor.named_parameters() if not (left_out and id(p) in encoder))
    return named_moments(optimizer, named)


@dataclass
class Start:
    """A supervised actor and the state of its optimizer (``moments`` by parameter name; None: not in the file)."""

    actor: Actor
    moments: dict[str, object] | None


def load_start(checkpoint: str | Path | None, corpus: Corpus, device: torch.device | str = "cpu") -> Start:
    """The actor that RL starts from.

    Args:
        checkpoint: a run folder, ``best.pt``/``last.pt``, or published FaceFormer weights.
        corpus: the training corpus; mesh, rate and training subjects must be the checkpoint's.

    Raises:
        UserError: nothing given, or it does not fit the corpus.
    """
    if checkpoint is None:
        raise UserError("start: RL starts from a supervised actor; give start=checkpoints/<a run of supervised.py>")
    path = actor_file(checkpoint)
    actor, about = load_actor_for(path, corpus, f"start={path}")
    moments = about.get("moments")
    if about.get("metres_per_unit", 1.0) != 1.0:
        moments = None  # Adam's moments of another unit's gradients
    actor.audio_encoder.requires_grad_(False)
    return Start(actor.to(device), moments)
