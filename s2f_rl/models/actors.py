"""Kinds of actors by name: what ``actor.kind`` in a config and ``kind`` in a checkpoint may say."""

from __future__ import annotations

import inspect
from typing import Any

from s2f_rl.data.contract import Corpus, place_of
from s2f_rl.data.mesh_identity import difference
from s2f_rl.errors import UserError
from s2f_rl.models.contract import Actor
from s2f_rl.registry import Registry

DEFAULT = "faceformer"
"""Kind of a file that names none."""

ACTORS: Registry[Any] = Registry(
    "actors",
    {DEFAULT: "s2f_rl.models.faceformer:FaceFormer", "codetalker": "s2f_rl.models.codetalker.actor:CodeTalker"},
)
"""Actor classes; packages add theirs in the group ``s2f_rl.actors`` of their entry points."""


def use_actor(name: str | None) -> Any:
    """The actor class that a person names, also as ``package.module:Name``; its files can be read from now on.

    Args:
        name: None: the default.

    Raises:
        UserError: it is not there, or is no class of an actor.
    """
    found = ACTORS.named_by_person(name or DEFAULT)
    kind = getattr(found, "kind", None)
    if not isinstance(found, type) or not isinstance(kind, str) or not callable(getattr(found, "from_config", None)):
        raise UserError(f"{name}: is no class of an actor; derive it from s2f_rl.models.BaseActor and give it a kind")
    if kind not in ACTORS.names():
        ACTORS.register(kind, found)
    elif ACTORS.named_by_person(kind) is not found:
        raise UserError(f"{name}: its kind {kind!r} is that of another actor; choose another")
    return found


def new_actor(kind: str | None, audio: dict[str, Any], corpus: Corpus, **options: Any) -> Actor:
    """An untrained actor of a kind for a corpus; ``audio``, ``options``: keys of the config group ``actor``.

    Raises:
        UserError: a kind or an option that does not exist, or an actor made from something of another mesh.
    """
    from s2f_rl.models.encoder_kinds import build_audio_encoder

    cls, rig = use_actor(kind), getattr(corpus, "rig", None)
    # an actor that knows nothing of coefficients animates the vertices that they make
    if rig is not None and "n_coefficients" not in inspect.signature(cls).parameters:
        rig = None
    if rig is not None:
        options["n_coefficients"] = len(rig.names)
    encoder = build_audio_encoder(**audio, fps=corpus.fps, features_per_frame=corpus.audio_features_per_frame)
    try:
        actor = cls(encoder, n_vertices=corpus.n_vertices, n_subjects=len(corpus.subjects), **options)
    except TypeError as error:
        raise UserError(f"actor: {error}; see {cls.__name__}") from error
    if actor.mesh_identity is not None:  # of what it was made from
        other = difference(actor.mesh_identity, corpus.mesh_identity, "what the actor is made from", place_of(corpus))
        if other is not None:
            raise UserError(f"{other}, or train that on this corpus")
    return actor if rig is None else actor.use_rig(rig)
