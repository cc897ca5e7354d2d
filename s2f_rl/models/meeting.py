"""Where an actor meets a corpus: mesh, clock and style columns must be the same, or nothing begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from s2f_rl.data.contract import Corpus, metres_per_file_unit, place_of
from s2f_rl.data.mesh_identity import MeshIdentity, difference
from s2f_rl.errors import UserError
from s2f_rl.models.checkpoint import load_actor
from s2f_rl.models.contract import Actor


def animated_mesh(actor: Actor) -> MeshIdentity:
    """The mesh of an actor: the number of its vertices at least."""
    return actor.mesh_identity or MeshIdentity(actor.n_vertices)


def refuse_other_mesh(actor: Actor, corpus: Corpus, what: str, remedy: str) -> None:
    """Raise UserError unless ``actor`` animates the mesh of ``corpus``; ``remedy``: what else to do."""
    other = difference(animated_mesh(actor), corpus.mesh_identity, what, place_of(corpus))
    if other is not None:
        raise UserError(f"{other}, or {remedy}")


def refuse_other_corpus(actor: Actor, corpus: Corpus, what: str = "the checkpoint") -> None:
    """Raise UserError unless ``actor`` animates the mesh of ``corpus``, at its rate, in its style columns.

    Style columns are compared by name where the actor's file has them. ``what``: how a message calls the actor.
    """
    refuse_other_mesh(actor, corpus, what, "train a supervised actor on this corpus")
    controls, rig = getattr(actor, "controls", None), getattr(corpus, "rig", None)
    if controls is not None and rig is not None and rig.names != controls.names:
        raise UserError(
            f"{what} animates the coefficients {', '.join(controls.names[:3])}, ..., {place_of(corpus)} has others, or "
            "in another order; train a supervised actor on this corpus"
        )
    clocks = actor.audio_encoder.clock.difference(corpus.clock)
    if clocks is not None:
        raise UserError(
            f"{what} and {place_of(corpus)} run at {clocks}; resample the motion (stored_fps and frame_step in "
            "corpus.json say what it is), or train a supervised actor on this corpus"
        )
    subjects = list(corpus.subjects)
    if actor.n_styles != len(subjects):
        raise UserError(
            f"{what} has {actor.n_styles} styles, {place_of(corpus)} {len(subjects)} training subjects: use the "
            "corpus that it was trained on"
        )
    if actor.styles is not None and list(actor.styles) != subjects:
        raise UserError(
            f"{what} has the style columns {', '.join(actor.styles)}, {place_of(corpus)} trains on "
            f"{', '.join(subjects)}; name the training_subjects in corpus.json in the order of the columns, or use its "
            "own corpus"
        )


def load_actor_for(path: str | Path, corpus: Corpus, what: str | None = None) -> tuple[Actor, dict[str, Any]]:
    """:func:`~s2f_rl.models.checkpoint.load_actor` for a corpus, refused where it does not fit.

    Published weights are taken to be of the published corpus whose layout ``corpus`` has, and in its files' unit.
    """
    actor, about = load_actor_of(path, corpus)
    refuse_other_corpus(actor, corpus, what or str(path))
    return actor, about


def load_actor_of(path: str | Path, corpus: Corpus) -> tuple[Actor, dict[str, Any]]:
    """:func:`load_actor_for` without a look at whether it fits."""
    topology: str = getattr(corpus, "topology", "vocaset")  # only a corpus in a published layout has it
    unit = metres_per_file_unit(corpus) if topology == "biwi" else 1.0
    return load_actor(path, topology, metres_per_unit=None if unit == 1.0 else unit)
