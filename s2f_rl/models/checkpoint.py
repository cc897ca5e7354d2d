"""Actor checkpoints: our own files (config + weights) and published weights, never read as code."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s2f_rl.data.coefficients.controls import Controls
from s2f_rl.data.description import METRES_PER_UNIT
from s2f_rl.data.mesh_identity import MeshIdentity
from s2f_rl.data.shared_tensors import load_whole
from s2f_rl.data.tensor_files import load_tensors, save_tensors
from s2f_rl.data.units import BIWI_METRES_PER_UNIT, PLAUSIBLE_EXTENT_M, published_unit
from s2f_rl.errors import UserError
from s2f_rl.models.actor_files import build_actor
from s2f_rl.models.actors import DEFAULT
from s2f_rl.models.base_actor import BaseActor
from s2f_rl.models.codetalker import published as codetalker
from s2f_rl.models.codetalker.actor import CodeTalker
from s2f_rl.models.contract import Actor
from s2f_rl.models.faceformer import FaceFormer
from s2f_rl.models.reference import clean_state_dict

__all__ = ["actor_file", "actor_from_payload", "actor_payload", "export_actor", "load_actor", "load_tensors"]

FORMAT = 1
logger = logging.getLogger(__name__)
MOUTH = ("lips", "upper_lip", "lower_lip")
"""Regions of the mesh that a checkpoint keeps, where its corpus knows them."""
UNIT = "metres"
"""Unit of every actor that is written, and of every actor in memory."""
_PUBLISHED_UNIT = {"vocaset": 1.0, "biwi": BIWI_METRES_PER_UNIT}


def actor_payload(
    actor: Actor,
    subjects: list[str],
    mesh: MeshIdentity | None = None,
    weights: Mapping[str, Tensor] | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """The ``actor`` entry of our checkpoints: plain containers and tensors.

    Args:
        actor: the model.
        subjects: training subjects in the order of the style columns.
        mesh: that it animates; default: the actor's own, where it has one.
        weights: in place of a copy of its state dict; they are not copied.
        **extra: further plain values, such as the corpus's dataset name, templates (metres) and triangles.
    """
    mesh, controls = mesh or actor.mesh_identity, getattr(actor, "controls", None)
    return {
        "format": FORMAT,
        "kind": actor.kind,
        "config": actor.config(),
        "state_dict": dict(weights or {k: v.detach().clone() for k, v in actor.state_dict().items()}),
        "subjects": list(subjects),
        "unit": UNIT,
        "mesh": None if mesh is None else mesh.to_plain(),
        **({} if controls is None else {"controls": controls.to_plain()}),
        **extra,
    }


def actor_from_payload(payload: object, where: str | Path = "checkpoint") -> Actor:
    """Inverse of :func:`actor_payload`; an actor in another unit than metres is turned into one of metres.

    Raises UserError, also for weights that are not finite or no floats.
    """
    return _actor_and_unit(payload, where)[0]


def _actor_and_unit(payload: Any, where: str | Path) -> tuple[Actor, float]:
    """The actor of a payload, in metres, and the metres per unit that its weights were stored in."""
    written = payload.get("format") if isinstance(payload, dict) else None
    if isinstance(written, int) and written > FORMAT:
        raise UserError(f"{where}: written by a newer version (format {written}); update s2f_rl")
    try:
        if type(written) is not int or written < 1:
            raise UserError(f"its format is {str(written)[:40]}")
        actor = build_actor(payload["config"], payload["state_dict"], where, payload.get("kind", DEFAULT))
        _check_surroundings(payload, actor)
    except UserError as error:
        if str(error).startswith(f"{where}: "):
            raise
        raise UserError(
            f"{where}: no actor of this project inside ({error}); give best.pt or last.pt of a run"
        ) from error
    except Exception as error:  # whatever torch and transformers raise for settings that cannot be
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{where}: no actor of this project inside ({reason}); give best.pt or last.pt of a run"
        ) from error
    actor.styles = tuple(payload["subjects"])
    n_coefficients = payload["config"].get("n_coefficients")
    if n_coefficients is not None and isinstance(actor, BaseActor):
        actor.controls = Controls.from_plain(payload.get("controls"), n_coefficients, str(where))
    mesh, unit = payload.get("mesh"), _metres_per_unit(payload, where)
    if mesh is not None:
        actor.mesh_identity = MeshIdentity.from_plain(mesh, str(where))
    elif payload.get("templates"):  # a file of before
        templates = {name: unit * face.double() for name, face in payload["templates"].items()}
        actor.mesh_identity = MeshIdentity.of(templates, payload.get("faces"))
    return actor.to_metres(unit), unit


def _metres_per_unit(payload: dict[str, Any], where: str | Path) -> float:
    """Of the faces that the weights of a file animate; 1 but for files of before ``unit``, which say ``units``."""
    unit = payload.get("unit")
    if unit is not None:
        if unit != UNIT:
            raise UserError(f"{where}: its unit is {str(unit)[:40]!r}, not {UNIT}; it was written by another version")
        return 1.0
    templates = payload.get("templates")
    if payload.get("dataset") == "biwi" and isinstance(templates, dict):
        return published_unit({str(k): torch.as_tensor(v).numpy() for k, v in templates.items()})
    factor = METRES_PER_UNIT.get(str(payload.get("units")).strip().lower(), 1.0)
    if isinstance(templates, dict) and templates:
        extents = [np.ptp(face.numpy().reshape(-1, 3), axis=0).max() for face in templates.values()]
        size = factor * float(np.median(extents))
        if not PLAUSIBLE_EXTENT_M[0] <= size <= PLAUSIBLE_EXTENT_M[1]:
            logger.warning(
                "%s: states no unit, and its faces would be %.3g m long: if they are not in metres, train it again",
                where, size,
            )  # fmt: skip
    return factor


def _check_surroundings(payload: dict[str, Any], actor: Actor) -> None:
    """Subjects, templates, triangles and lips of a file are those of its actor, where it has them."""
    subjects, templates = payload.get("subjects"), payload.get("templates")
    if (
        not isinstance(subjects, (list, tuple))
        or not all(isinstance(name, str) for name in subjects)
        or len(subjects) != actor.n_styles
    ):
        raise UserError(f"its subjects are not {actor.n_styles} names")
    if templates is not None and not isinstance(templates, dict):
        raise UserError("its templates are no dictionary of faces")
    for name, face in (templates or {}).items():
        whole = isinstance(name, str) and _is_dense(face) and face.is_floating_point()
        if not whole or face.numel() != 3 * actor.n_vertices:
            raise UserError(f"its template of {str(name)[:40]!r} is no face of {actor.n_vertices} vertices")
    for name in ("faces", *MOUTH):
        corners = payload.get(name)
        if corners is None:
            continue
        fits = _is_dense(corners) and corners.dtype in (torch.int32, torch.int64)
        if not fits or corners.numel() and not 0 <= int(corners.min()) <= int(corners.max()) < actor.n_vertices:
            raise UserError(f"its {name} name other vertices than its {actor.n_vertices}")
        if name == "faces" and (corners.ndim != 2 or corners.shape[1] != 3):
            raise UserError(f"its faces have the shape {list(corners.shape)}, not [F, 3]")


def _is_dense(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta


def actor_file(path: str | Path) -> Path:
    """The file that a run folder stands for: ``best.pt``, else ``last.pt``; any other path is the file itself."""
    path = Path(path)
    if path.is_dir():
        path = path / "best.pt" if (path / "best.pt").exists() else path / "last.pt"
    return path


def load_actor(
    path: str | Path,
    topology: str = "vocaset",
    audio_config: dict[str, object] | None = None,
    metres_per_unit: float | None = None,
) -> tuple[Actor, dict[str, Any]]:
    """Load an actor from a run's checkpoint or from published weights of FaceFormer or CodeTalker.

    Args:
        path: ``best.pt``/``last.pt`` of a run, its folder (then ``best.pt``), or a published ``.pth``/``.safetensors``.
            CodeTalker's is that of stage 2, with ``stage2`` in its name; stage 1 lies beside it under the same name
            with ``stage1``.
        topology, audio_config: for published weights, see :meth:`FaceFormer.from_reference`.
        metres_per_unit: of published weights; by default 1 for "vocaset", the size of the published unit for "biwi".

    An actor of one's own must be known: registered, of an installed package, or named by a person
    (:func:`~s2f_rl.models.actors.use_actor`). A file never has code imported.

    Returns:
        the actor in evaluation mode and in metres, and the rest of its entry (``subjects``, ``templates`` in metres,
        ``metres_per_unit`` of the file, the ``moments`` of its optimizer and its ``iteration`` or None, ...; empty for
        published weights).
    """
    path = actor_file(path)
    content = load_whole(path)
    if isinstance(content, dict) and isinstance(content.get("actor"), dict):
        payload = content["actor"]
        actor, unit = _actor_and_unit(payload, path)
        rest = {k: v for k, v in payload.items() if k not in ("config", "state_dict")}
        rest |= {"metres_per_unit": unit, **{k: content.get(k) for k in ("moments", "iteration")}}
        if unit != 1.0 and isinstance(rest.get("templates"), dict):
            rest["templates"] = {k: torch.as_tensor(v) * unit for k, v in rest["templates"].items()}
        return actor.eval(), rest
    try:
        published = _published(path, content, topology, audio_config).eval()
        return published.to_metres(_PUBLISHED_UNIT[topology] if metres_per_unit is None else metres_per_unit), {}
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _published(
    path: Path, content: object, topology: str, audio_config: dict[str, object] | None
) -> FaceFormer | CodeTalker:
    tensors = clean_state_dict(content)
    if codetalker.STAGE1 in tensors:
        raise UserError("is stage 1 of CodeTalker; name the file of stage 2, and leave this one beside it")
    if codetalker.STAGE2 not in tensors:
        return FaceFormer.from_reference(tensors, topology, audio_config=audio_config)
    first = path.with_name(path.name.replace("stage2", "stage1"))
    if first == path or not first.exists():
        wanted = "" if first == path else f" as {first.name}"
        raise UserError(f"is stage 2 of CodeTalker; put stage 1 beside it{wanted} (X_stage2.pth.tar: X_stage1.pth.tar)")
    stage1 = load_tensors(first)
    return CodeTalker.from_reference(stage1, tensors, topology, audio_config=audio_config)


def export_actor(path: str | Path, out: str | Path) -> Path:
    """Write the actor of a run to one file that stands alone, without what only training needs.

    Args:
        path: see :func:`load_actor`; not published weights, which are one file already. out: ``.pt`` to write.

    Raises:
        UserError: no actor of this project, or a file beside it is missing.
    """
    path = actor_file(path)
    content = load_whole(path)
    payload = content.get("actor") if isinstance(content, dict) else None
    actor_from_payload(payload, path)
    save_tensors(out, {"actor": payload})
    return Path(out)
