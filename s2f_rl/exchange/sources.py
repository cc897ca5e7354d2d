"""Motions that are to be written for other tools: where they lie, at which rate, of which face."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.data.clock import Clock
from s2f_rl.data.coefficients.basis import LinearBasis
from s2f_rl.data.coefficients.rig import FOLDER
from s2f_rl.data.files import load_npy, require_file
from s2f_rl.data.meshes import read_mesh, read_triangles
from s2f_rl.data.motion_files import SUFFIXES
from s2f_rl.data.splits import parse_name
from s2f_rl.data.units import metres_per_unit
from s2f_rl.errors import UserError
from s2f_rl.exchange.face import Face
from s2f_rl.render.colours import find_colours
from s2f_rl.render.command import load_of_corpus, utterance_of
from s2f_rl.render.faces import check_faces, find_faces, outward
from s2f_rl.render.meshes import as_sequence, check_finite


@dataclass(frozen=True)
class Motion:
    """A sequence of a face.

    Attributes:
        path: its file.
        vertices: [T, V, 3], in metres.
        fps: frames per second.
        rest: [V, 3] in metres, the face at rest; None where it is not known.
        up: the axis that points up.
    """

    path: Path
    vertices: np.ndarray
    fps: float
    rest: np.ndarray | None
    up: str = "y"


def motion_files(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The sequences that files and folders name, in order. Raises UserError where there are none."""
    files: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(each for each in path.glob("[!.]*") if each.suffix in SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise UserError(f"{path}: holds no sequences; give a folder of {' or '.join(SUFFIXES)} files")
        files += map(require_file, inside)
    return files


def load_motion_of(
    path: Path,
    corpus: FaceCorpus | None = None,
    fps: float | None = None,
    rest: str | None = None,
    unit: str | None = None,
) -> Motion:
    """Read a sequence.

    Args:
        path: .npy or .npz.
        corpus: gives rate, unit and the speaker's face at rest; of its own recordings, those at its rate.
        fps: frames per second, where there is no corpus.
        rest: file of the face at rest, .npy, .obj, .ply or .glb, in place of the corpus's.
        unit: of the lengths in the files; None tells it from the size of the face.

    Raises:
        UserError: what cannot be read, or does not fit together.
    """
    up = "y"
    if corpus is not None:
        if unit is not None or fps is not None:
            raise UserError("a corpus tells its unit and rate; leave out --unit and --fps, or --corpus")
        vertices, rate, up = load_of_corpus(path, corpus), corpus.fps, corpus.mesh_identity.up
        name = utterance_of(path, corpus)
        own = None if name is None else parse_name(name)[0]
        still = None if own is None else corpus.template(own).numpy().reshape(-1, 3)
    else:
        if fps is None:
            raise UserError(f"{path}: does not say its frame rate; give --fps, or --corpus")
        vertices, rate, still = as_sequence(path), Clock(fps).fps, None
        size = metres_per_unit(vertices[0], unit, str(path))
        vertices = vertices if size == 1 else vertices * np.float32(size)
    if rest is not None:
        still = _rest(Path(rest), vertices.shape[1], unit)
    check_finite(vertices, str(path))
    return Motion(path, vertices, rate, still, up)


def load_weights_of(
    path: Path,
    basis: LinearBasis,
    corpus: FaceCorpus | None = None,
    fps: float | None = None,
    rest: str | None = None,
    unit: str | None = None,
) -> tuple[Motion, np.ndarray]:
    """Read weights [T, K] of a rig that are known already, and what the first of them does to the face.

    Args:
        path: .npy; of the corpus's own recordings, those at its rate. basis: the rig. The others as in
            :func:`load_motion_of`; ``fps`` goes before the corpus's, but for these.

    Raises:
        UserError: no such weights, or no rate.
    """
    name = None if corpus is None else utterance_of(path, corpus)
    recorded = _recorded_weights(path, basis, corpus)
    weights = load_npy(path, mmap=False).astype(np.float32) if recorded is None else recorded
    if weights.ndim != 2 or weights.shape[1] != len(basis.names) or not len(weights):
        raise UserError(f"{path}: has shape {list(weights.shape)}; weights of this rig are [T, {len(basis.names)}]")
    if not np.isfinite(weights).all():
        raise UserError(f"{path}: holds weights that are not finite; write it again")
    if fps is None and corpus is None:
        raise UserError(f"{path}: does not say its frame rate; give --fps, or --corpus")
    still = None
    if rest is not None:
        still = _rest(Path(rest), basis.n_vertices, unit)
    elif corpus is not None and name is not None:
        still = corpus.template(parse_name(name)[0]).numpy().reshape(-1, 3)
    vertices = basis.vertices(torch.from_numpy(weights[:1])).unflatten(1, (-1, 3)).numpy()
    rate = corpus.fps if corpus is not None and (fps is None or recorded is not None) else Clock(fps or 0).fps
    return Motion(path, vertices, rate, still, "y" if corpus is None else corpus.mesh_identity.up), weights


def surface(
    motion: Motion, corpus: FaceCorpus | None, triangles: str | os.PathLike[str] | np.ndarray | None,
    colours: np.ndarray | None = None, sound: str | os.PathLike[str] | None = None,
) -> Face:  # fmt: skip
    """What a file of a motion tells of the face.

    Args:
        triangles: array [F, 3], or an .obj, .ply or .npy file that has them; None: the corpus's.
        colours: uint8 [V, 3]; None: the corpus's.
        sound: the recording; None: the corpus's, of its own utterances.

    Raises:
        UserError: nobody knows the triangles, or they are of another mesh.
    """
    n = motion.vertices.shape[1]
    faces, what = None, "triangles"
    if isinstance(triangles, np.ndarray):
        faces = triangles
    elif triangles is not None:
        faces, what = read_triangles(Path(triangles)), str(triangles)
    elif corpus is not None:
        faces, what = find_faces(corpus.root, n), str(corpus.root)
    if faces is None:
        raise UserError(
            f"{motion.path}: its triangles are not known; give --triangles FACE.obj (or .ply, .glb, .npy), or --corpus"
        )
    name = None if corpus is None else utterance_of(motion.path, corpus)
    if corpus is not None and colours is None:
        colours = find_colours(corpus.root, n, corpus.regions, None if name is None else parse_name(name)[0])
    if sound is None and corpus is not None and name is not None:
        sound = corpus.wav(corpus.index(name))
    checked = outward(check_faces(faces, n, what), motion.vertices[0])
    return Face(checked, colours, motion.up, None if sound is None else require_file(sound))


def _recorded_weights(path: Path, basis: LinearBasis, corpus: FaceCorpus | None) -> np.ndarray | None:
    """Weights [T, K] of a file in the corpus's own folder, which may hold more frames than the corpus has."""
    if corpus is None or corpus.rig is None or path.parent.resolve() != (corpus.root / FOLDER).resolve():
        return None
    if path.stem not in corpus:
        return None
    if corpus.rig.names != basis.names:
        raise UserError(
            f"{path}: its columns have other names than the shapes of the basis; give the corpus's basis.npz"
        )
    values = corpus[path.stem].coefficients
    return None if values is None else values.numpy()


def _rest(path: Path, n_vertices: int, unit: str | None) -> np.ndarray:
    points = read_mesh(path).vertices
    if len(points) != n_vertices:
        raise UserError(f"{path}: has {len(points)} vertices, the sequence {n_vertices}; give its own face at rest")
    return points * metres_per_unit(points, unit, str(path))
