"""Where a reward or a judge meets a corpus: mesh and frame rate must be the same, or nothing begins."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from s2f_rl.data.clock import PRESETS, rates_alike
from s2f_rl.data.contract import Corpus, metres_per_file_unit, place_of
from s2f_rl.data.description import N_VERTICES
from s2f_rl.data.mesh_identity import UNIT, MeshIdentity, difference
from s2f_rl.errors import UserError

logger = logging.getLogger(__name__)
KEY = "made_for"
_RATES = {N_VERTICES[name]: clock.fps for name, clock in PRESETS.items()}


class OnMesh(Protocol):
    """What is made for a mesh: a model, a corpus. One of a person's own may know the number of its vertices only."""

    @property
    def n_vertices(self) -> int:
        """V."""


class MadeFor(Protocol):
    """A model that knows what it was made for."""

    fps: float | None
    mesh_identity: MeshIdentity | None


def made_for(model: MadeFor) -> dict[str, object]:
    """What a model was made for, as plain values for its file: ``unit``, ``fps`` and ``mesh`` (None: not known)."""
    mesh = None if model.mesh_identity is None else model.mesh_identity.to_plain()
    return {"unit": UNIT, "fps": model.fps, "mesh": mesh}


def set_made_for(model: MadeFor, config: object, what: str) -> None:
    """Set ``model.fps`` and ``model.mesh_identity`` from :func:`made_for` in a file's config, where there is one.

    Raises:
        UserError: another unit than metres, an impossible rate, or no mesh.
    """
    stated = config.get(KEY) if isinstance(config, Mapping) else None
    if not isinstance(stated, Mapping):
        return
    fps, mesh = stated.get("fps"), stated.get("mesh")
    if stated.get("unit") != UNIT:
        raise UserError(f"{what}: its unit is {str(stated.get('unit'))[:40]!r}, not {UNIT}; use another version of it")
    if fps is not None and (isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 1 <= fps <= 1000):
        raise UserError(f"{what}: its frame rate is {str(fps)[:40]}; use a sound checkpoint")
    model.fps = None if fps is None else float(fps)
    model.mesh_identity = None if mesh is None else MeshIdentity.from_plain(mesh, what)


def refuse_other_corpus(model: OnMesh | MadeFor, corpus: Corpus, what: str = "the reward model") -> None:
    """Raise UserError unless ``model`` scores the mesh of ``corpus`` at its frame rate; a reward of any mesh may.

    Rates that differ by less than 0.2% (29.97 and 30) score alike and are the same. A file that states no rate, such
    as the published ones, is not refused; a published mesh at another rate than the published one is warned of.
    """
    where = place_of(corpus)
    mesh = _mesh(model)
    other = difference(mesh, _mesh(corpus), what, where)
    if other is not None:
        raise UserError(f"{other}, or train a model on this mesh (recipes/reward.py, recipes/judge.py)")
    stated = mesh is None or getattr(model, "mesh_identity", None) is not None
    if not stated and metres_per_file_unit(corpus) != 1.0:
        logger.warning("%s states no unit and is taken to be of metres; the files of %s are in another", what, where)
    if hasattr(corpus, "fps"):
        refuse_other_rate(model, float(corpus.fps), what, where)


def _mesh(owner: object) -> MeshIdentity | None:
    """Of a model or a corpus; one of a person's own may know the number of its vertices only, or not even that."""
    known, n_vertices = getattr(owner, "mesh_identity", None), getattr(owner, "n_vertices", None)
    return known or (None if n_vertices is None else MeshIdentity(n_vertices))


def refuse_other_rate(model: OnMesh | MadeFor, fps: float, what: str, where: str) -> None:
    """Raise UserError where ``model`` was trained at another frame rate than ``fps`` of the motion in ``where``."""
    trained = getattr(model, "fps", None)
    if trained is not None and not rates_alike(trained, fps):
        raise UserError(
            f"{what} was trained at {trained:g} fps, {where} runs at {fps:g}: its clips are 5 frames long and would "
            f"last another time; train one at {fps:g} fps, or resample the motion"
        )
    usual = _RATES.get(getattr(model, "n_vertices", 0), PRESETS["vocaset"].fps)
    if trained is None and hasattr(model, "n_vertices") and not rates_alike(usual, fps):
        logger.warning(
            "%s states no frame rate, models of its mesh are usually of %g fps, and %s runs at %g: its scores mean "
            "nothing if it is one of these",
            what, usual, where, fps,
        )  # fmt: skip
