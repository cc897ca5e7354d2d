"""Whose face and way of speaking an adapted actor has, from its training corpus or from its own file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.data.templates import load_templates
from s2f_rl.errors import UserError
from s2f_rl.models.checkpoint import MOUTH, load_actor
from s2f_rl.models.meeting import load_actor_for
from s2f_rl.rewards.calibration.auc import spread_evenly


@dataclass(frozen=True)
class Recording:
    """A sentence of the training corpus with its mesh: names of its files, which are linked, not copied."""

    name: str
    subject: str
    wav: Path
    vertices: Path
    phones: Path


@dataclass(frozen=True)
class Faces:
    """What a corpus of new recordings takes from an actor.

    Attributes:
        style: the training subject whose face and way of speaking the new voices get.
        subjects: all training subjects, in the order of the style columns.
        templates: {subject: [V*3]} in the unit of ``description``. triangles: [F, 3]; None: not known.
        regions: {region: vertex indices}.
        description: unit and rates, as ``corpus.json`` has them.
        recordings: with meshes, that may join; none without a training corpus.
    """

    style: str
    subjects: tuple[str, ...]
    templates: dict[str, np.ndarray]
    triangles: np.ndarray | None
    regions: dict[str, list[int]]
    description: dict[str, object]
    recordings: list[Recording] = field(default_factory=list)

    def some_recordings(self, wanted: int) -> list[Recording]:
        """As many as ``wanted``, or all, evenly over the speakers."""
        turns: dict[str, int] = {}
        numbered = []
        for each in self.recordings:
            turns[each.subject] = turns.get(each.subject, -1) + 1
            numbered.append((turns[each.subject], each))
        numbered.sort(key=lambda pair: pair[0])  # first sentences of all, then second ones: stable
        if wanted <= len(turns):
            return [numbered[k][1] for k in spread_evenly(len(turns), wanted)]
        return [each for _, each in numbered[:wanted]]


def faces_of(
    checkpoint: str | Path, corpus: str | Path | None, style: str | None, topology: str | None = None
) -> Faces:
    """Read what is needed of an actor.

    Args:
        checkpoint: see :func:`~s2f_rl.models.checkpoint.load_actor`.
        corpus: its training corpus; None takes everything from the checkpoint, without recordings.
        style: a training subject, or its column; None: the first that has a face.
        topology: see :class:`~s2f_rl.data.FaceCorpus`.

    Raises:
        UserError: files that cannot be read or do not fit each other, no such style, or no faces anywhere.
    """
    if corpus is not None:
        return _from_corpus(checkpoint, FaceCorpus(corpus, "train", topology), style)
    actor, about = load_actor(checkpoint, topology or "vocaset")
    templates = about.get("templates") or {}
    if not templates or about.get("lips") is None:
        raise UserError(f"{checkpoint}: holds no face to animate; give --corpus, its training corpus")
    subjects, triangles, clock = tuple(about["subjects"]), about.get("faces"), actor.audio_encoder.clock
    return Faces(
        style=_chosen(style, subjects, list(templates)),
        subjects=subjects,
        templates={name: torch.as_tensor(face).float().flatten().numpy() for name, face in templates.items()},
        triangles=None if triangles is None else torch.as_tensor(triangles).numpy(),
        regions={name: torch.as_tensor(about[name]).tolist() for name in MOUTH if about.get(name) is not None},
        description={
            "topology": topology or "vocaset",
            "stored_fps": clock.fps,
            "frame_step": 1,
            "audio_features_per_frame": clock.features_per_frame,
            "units": "metres",
        },
    )


def _from_corpus(checkpoint: str | Path, corpus: FaceCorpus, style: str | None) -> Faces:
    if corpus.rig is not None:
        raise UserError(
            f"{corpus.root}: its motion is coefficients, adapt takes vertices; leave --corpus out, or write "
            "the vertices (s2f_rl.data.FaceCorpus gives them)"
        )
    load_actor_for(checkpoint, corpus)
    templates, about = load_templates(corpus.root), corpus.description
    root, faces = corpus.root.resolve(), corpus.faces
    recordings = [
        Recording(
            name=name,
            subject=corpus[i].subject,
            wav=corpus.wav(i).resolve(),
            vertices=root / "vertices_npy" / f"{name}.npy",
            phones=root / "phones" / f"{name}.json",
        )
        for i, name in enumerate(corpus.names)
        if corpus.has_vertices(i)
    ]
    return Faces(
        style=_chosen(style, tuple(corpus.subjects), list(templates)),
        subjects=tuple(corpus.subjects),
        templates=templates,
        triangles=None if faces is None else faces.numpy(),
        regions={name: indices.tolist() for name, indices in corpus.regions.items()},
        description={
            "topology": corpus.topology,
            "stored_fps": about.stored_fps,
            "frame_step": about.frame_step,
            "audio_features_per_frame": about.audio_features_per_frame,
            "metres_per_unit": corpus.metres_per_unit,
        },
        recordings=recordings,
    )


def _chosen(style: str | None, subjects: tuple[str, ...], faces: list[str]) -> str:
    there = [subject for subject in subjects if subject in faces]
    if style is None and there:
        return there[0]
    if style in there:
        return str(style)
    if style is not None and style.isascii() and style.isdigit() and int(style) < len(subjects):
        if subjects[int(style)] in there:
            return subjects[int(style)]
    asked = "no face of a training subject" if style is None else f"--style {style}: unknown"
    raise UserError(f"{asked}; use {', '.join(there) or 'another checkpoint, or --corpus'}")
