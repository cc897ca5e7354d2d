"""``s2f-rl blendshapes`` and ``s2f-rl convert``: sequences of vertices into files of other tools."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.data.coefficients.basis import LinearBasis
from s2f_rl.data.coefficients.basis_files import on_mesh, read_basis, read_surface
from s2f_rl.data.coefficients.fit import CoefficientFit, fit_coefficients
from s2f_rl.data.coefficients.livelink import write_live_link
from s2f_rl.data.coefficients.rig import require_mesh
from s2f_rl.data.files import atomic_save_npy, atomic_write_text, require_target
from s2f_rl.data.glb_files import GlbMesh
from s2f_rl.data.mesh_identity import MeshIdentity, difference
from s2f_rl.errors import UserError
from s2f_rl.exchange.names import read_names, renamed
from s2f_rl.exchange.obj import write_obj_sequence
from s2f_rl.exchange.scene import SUFFIXES as SCENE_SUFFIXES
from s2f_rl.exchange.scene import require_scene, write_rig, write_scene
from s2f_rl.exchange.sources import Motion, load_motion_of, load_weights_of, motion_files, surface
from s2f_rl.exchange.weights import write_csv, write_json

TABLES = ("csv", "livelink", "json", "npy")
SCENES = tuple(suffix[1:] for suffix in SCENE_SUFFIXES)
_STRANGE_MM = 2.0


def blendshapes(
    meshes: Sequence[str | os.PathLike[str]],
    basis: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    form: str | None = None,
    corpus: str | os.PathLike[str] | None = None,
    topology: str | None = None,
    fps: float | None = None,
    rest: str | None = None,
    unit: str | None = None,
    mesh: str | None = None,
    basis_unit: str | None = None,
    names: str | os.PathLike[str] | None = None,
    triangles: str | None = None,
    audio: str | None = None,
    weights: bool = False,
    smooth: float = 0.0,
    sparse: float = 1e-6,
    residual: str | os.PathLike[str] | None = None,
) -> Iterator[str]:
    """Fit a rig's weights to sequences and write them, or write known ones; yields a line for each sequence.

    Args:
        meshes: .npy or .npz sequences [T, V*3], or folders of them; with ``weights`` weights [T, K].
        basis: ``basis.npz`` or a GLB with morph targets, of the same mesh.
        out: file for one sequence; a folder for a folder, or several, with ``NAME.FORM`` for each.
        form: one of :data:`TABLES` or :data:`SCENES`; None tells it from ``out``.
        corpus, topology: give rate, unit, faces at rest, triangles, colours and sound.
        fps, rest, unit: in place of a corpus (see :func:`~s2f_rl.exchange.sources.load_motion_of`).
        mesh: of a GLB with several. basis_unit: of a GLB whose size does not tell it.
        names: table of names (:func:`~s2f_rl.exchange.names.read_names`).
        triangles: for GLB and USD, file that has them; default: those of the GLB or the corpus.
        audio: for USD, the sound of one sequence.
        weights: the sequences are weights of this rig already; they are written as they are.
        smooth, sparse: see :func:`~s2f_rl.data.coefficients.fit.fit_coefficients`.
        residual: CSV of the residual of every frame.

    Raises:
        UserError: anything missing or wrong, naming the file and the remedy.
    """
    files = motion_files(meshes)
    targets = _targets(files, meshes, Path(out), form, {f".{each}": each for each in ("csv", "json", "npy", *SCENES)})
    if residual is not None:
        require_target(residual)
    if weights and residual is not None:
        raise UserError("--residual: nothing is fitted to known weights; leave out --residual or --weights")
    opened = None if corpus is None else FaceCorpus(corpus, "all", topology)
    _check_early(targets, audio)
    rows: list[tuple[str, int, float, float]] = []

    @lru_cache(maxsize=1)
    def rig_of(n_vertices: int | None) -> tuple[LinearBasis, GlbMesh | None]:
        return read_basis(basis, mesh, n_vertices, basis_unit), read_surface(basis, mesh, n_vertices)

    def kept(rig: LinearBasis) -> dict[int, str]:
        return dict(enumerate(rig.names)) if names is None else read_names(names, rig.names)

    for path, (target, kind) in zip(files, targets, strict=True):
        if weights:
            rig, known = rig_of(None if opened is None else opened.n_vertices)
            motion, values = load_weights_of(path, rig, opened, fps, rest, unit)
            values, rig, said = values[:, list(kept(rig))], renamed(rig, kept(rig)), f"{len(values)} frames"
        else:
            motion = load_motion_of(path, opened, fps, rest, unit)
            rig, known = rig_of(motion.vertices.shape[1])
            rig = _fitting(rig, motion, basis)
            rig = renamed(rig, kept(rig))
            fit = fit_coefficients(motion.vertices, rig, motion.rest, smooth=smooth, sparse=sparse)
            values, said = fit.coefficients, _said(fit)
            rows += [(path.stem, t, a, b) for t, (a, b) in enumerate(zip(fit.mean_mm, fit.max_mm, strict=True))]
        if kind in SCENES:
            shown = rig if motion.rest is None else replace(rig, neutral=torch.as_tensor(motion.rest).float())
            own = triangles if triangles is not None or known is None else known.triangles
            face = surface(motion, opened, own, None if known is None else known.colours, audio)
            write_rig(target, shown, values, motion.fps, face)
        elif kind == "npy":
            atomic_save_npy(target, values)
        else:
            write = {"csv": write_csv, "json": write_json, "livelink": write_live_link}[kind]
            write(target, rig.names, values, motion.fps)
        yield f"{target}: {said}"
    if residual is not None:
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["sequence", "frame", "mean_mm", "max_mm"])
        table.writerows((name, t, f"{a:.6f}", f"{b:.6f}") for name, t, a, b in rows)
        atomic_write_text(residual, text.getvalue())


def convert(
    meshes: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    form: str | None = None,
    corpus: str | os.PathLike[str] | None = None,
    topology: str | None = None,
    fps: float | None = None,
    unit: str | None = None,
    triangles: str | None = None,
    audio: str | None = None,
    error_mm: float = 0.01,
) -> Iterator[str]:
    """Write sequences as USD (points over time), GLB (few shapes and their weights) or OBJ sequences.

    Args:
        out: a file of USD or GLB, or for ``form`` obj a folder of OBJ files; of several sequences, the folder of these.
        form: obj or one of :data:`SCENES`; None tells it from ``out``.
        error_mm: how far a vertex may be off in a GLB.
        meshes, corpus, topology, fps, unit, triangles, audio: as in :func:`blendshapes`.

    Yields:
        A line for each sequence.

    Raises:
        UserError: anything missing or wrong, naming the file and the remedy.
    """
    files = motion_files(meshes)
    targets = _targets(files, meshes, Path(out), form, {f".{each}": each for each in SCENES})
    opened = None if corpus is None else FaceCorpus(corpus, "all", topology)
    require_mesh(opened, "a file of its motion")
    _check_early(targets, audio)
    if not error_mm > 0:
        raise UserError(f"--error is {error_mm}; give millimetres above 0")
    for path, (target, kind) in zip(files, targets, strict=True):
        motion = load_motion_of(path, opened, fps, None, unit)
        face = surface(motion, opened, triangles, None, audio)
        if kind == "obj":
            write_obj_sequence(target, motion.vertices, motion.fps, face)
            said = f"{len(motion.vertices)} files, {motion.fps:g} per second"
        else:
            said = write_scene(target, motion.vertices, motion.fps, face, error_mm)
        yield f"{target}: {said}"


def _targets(
    files: Sequence[Path], given: Sequence[object], out: Path, form: str | None, known: dict[str, str]
) -> list[tuple[Path, str]]:
    """Where each sequence goes, and as what."""
    if len(files) == 1 and not Path(str(given[0])).is_dir():
        kind = form or known.get(out.suffix.lower())
        if kind is None:
            raise UserError(f"{out}: its name tells no form; end it in {', '.join(known)}, or give --form")
        if kind != "obj" and out.suffix.lower() != _suffix(kind):
            raise UserError(f"{out}: is to be {kind}; end its name in {_suffix(kind)}")
        return [(out if kind == "obj" else require_target(out), kind)]
    if form is None:
        raise UserError(f"{out}: is a folder for {len(files)} sequences; say in which form with --form")
    if len({path.stem for path in files}) < len(files):
        raise UserError("two sequences have the same name; write them to different folders, one call each")
    return [(out / f"{path.stem}{_suffix(form)}", form) for path in files]


def _suffix(form: str) -> str:
    return {"obj": "", "livelink": ".csv"}.get(form, f".{form}")


def _fitting(basis: LinearBasis, motion: Motion, path: str | os.PathLike[str]) -> LinearBasis:
    """The basis on the vertices of a motion."""
    n = motion.vertices.shape[1]
    reference = motion.vertices[0] if motion.rest is None else motion.rest
    if basis.n_vertices != n:
        if motion.rest is None:
            raise UserError(
                f"{motion.path}: has {n} vertices, the basis {path} {basis.n_vertices}; give a basis of its mesh, or "
                "with --rest its face at rest, whose vertices are then sought among those of the basis"
            )
        return on_mesh(basis, motion.rest, str(motion.path))
    neutral = basis.neutral.numpy()
    other = difference(MeshIdentity.of(reference), MeshIdentity.of(neutral), str(motion.path), str(path))
    if other is not None:
        raise UserError(other)
    return basis


def _check_early(targets: Sequence[tuple[Path, str]], audio: str | None) -> None:
    """Refuse what would only show after the work."""
    if audio is not None and len(targets) > 1:
        raise UserError(f"--audio {audio}: is the sound of one sequence, {len(targets)} are given; write them singly")
    for target, kind in targets[:1]:
        if kind in SCENES:
            require_scene(target)


def _said(fit: CoefficientFit) -> str:
    mean, worst = fit.mean_mm.mean(), fit.max_mm.max()
    said = f"{len(fit.mean_mm)} frames, residual {mean:.3f} mm in the mean, {worst:.3f} at most"
    if mean > _STRANGE_MM:
        said += " (much: is the face of the basis that of the sequence? else give --rest or --corpus)"
    return said
