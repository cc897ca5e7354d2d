"""Motion that a trained policy made, read from a folder of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from s2f_rl.data.contract import Corpus
from s2f_rl.data.motion_files import SUFFIXES, load_motion, motion_shape
from s2f_rl.data.sequences import metres_per_unit_of
from s2f_rl.errors import UserError

_CONDITION = "_condition_"
_MEAN = "mean"


class PolicySamples:
    """Predictions of a policy by utterance: what the corruption ``policy_samples`` leads to.

    The folder is ``predictions/`` of ``recipes/evaluate.py``: ``NAME_condition_SUBJECT.npy`` or
    ``NAME.npy``, vertices [T', V*3] or [T', V, 3] metres, or the same as ``.npz``. The mean over the conditions
    (``NAME_condition_mean.npy``) is left out, since no policy makes it. Files are opened when they are asked for.

    Args:
        folder: the folder, or several: an utterance's predictions are those of all of them.
        n_vertices: V, checked against every file's header.

    Raises:
        UserError: no such folder, no predictions in it, or meshes of another size.
    """

    def __init__(self, folder: str | Path | Sequence[str | Path], n_vertices: int) -> None:
        self.n_vertices = n_vertices
        self.files: dict[str, list[Path]] = {}
        for each in [folder] if isinstance(folder, (str, Path)) else folder:
            self._read(Path(each))

    def _read(self, folder: Path) -> None:
        n_vertices, n_before = self.n_vertices, sum(map(len, self.files.values()))
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; recipes/evaluate.py writes one (predictions/)")
        for path in sorted(p for suffix in SUFFIXES for p in folder.glob(f"[!.]*{suffix}")):
            name, _, condition = path.stem.partition(_CONDITION)
            if condition == _MEAN:
                continue
            shape = motion_shape(path)
            if len(shape) < 2 or shape[0] < 1 or shape[1:] not in ((n_vertices * 3,), (n_vertices, 3)):
                raise UserError(
                    f"{path}: shape {shape}, expected [T, {n_vertices * 3}]; predict with an actor of this corpus"
                )
            self.files.setdefault(name, []).append(path)
        if sum(map(len, self.files.values())) == n_before:
            raise UserError(f"{folder}: holds no predictions (NAME_condition_SUBJECT.npy or NAME.npy); check the path")

    def __contains__(self, name: object) -> bool:
        return name in self.files

    def __len__(self) -> int:
        """Utterances that have a prediction."""
        return len(self.files)

    def __call__(
        self, name: str, template: Tensor, n_frames: int, generator: torch.Generator, frames: slice | None = None
    ) -> Tensor | None:
        """A random one of the predictions of an utterance.

        Args:
            name: of the utterance. template: [V*3] its face at rest.
            n_frames: T of the utterance; a longer prediction is cut, a shorter one holds its last frame.
            generator: of the draw, which is made even where there is nothing to choose.
            frames: which of the T frames to return, default all.

        Returns:
            Displacement [T, V*3] (or of ``frames``); None where the folder has no prediction of it.

        Raises:
            UserError: the file is damaged or holds values that are not finite.
        """
        draw = float(torch.rand((), generator=generator))
        found = self.files.get(name)
        if not found:
            return None
        path = found[min(int(draw * len(found)), len(found) - 1)]
        vertices = load_motion(path)
        wanted = np.arange(n_frames)[frames or slice(None)].clip(max=len(vertices) - 1)
        chosen = torch.from_numpy(np.array(vertices[wanted], dtype=np.float32)).flatten(1)
        if not torch.isfinite(chosen).all():
            raise UserError(f"{path}: holds values that are not finite; predict it again")
        return chosen - template.flatten()


def samples_of(folder: str | Path, corpus: Corpus) -> PolicySamples:
    """The predictions in a folder for a corpus. Raises UserError where they are of another mesh or not in metres."""
    samples = PolicySamples(folder, corpus.n_vertices)
    if hasattr(corpus, "mesh_identity"):  # a corpus of one's own may not know its mesh
        path = next(iter(samples.files.values()))[0]
        if metres_per_unit_of(load_motion(path)[0], corpus, str(path)) != 1.0:
            raise UserError(f"{path}: is in the unit of the corpus's files, not in metres; predict it again")
    return samples
