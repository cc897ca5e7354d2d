"""The file of a trained stage 1, ``codebook.pt``; nothing in it is ever run as code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from s2f_rl.data.mesh_identity import UNIT, MeshIdentity
from s2f_rl.data.soundness import float_weights
from s2f_rl.data.tensor_files import load_tensors, save_tensors
from s2f_rl.errors import UserError
from s2f_rl.models.codetalker.codebook import Codebook

FILE = "codebook.pt"
KIND = "codebook"
FORMAT = 1
_LARGEST = 10**7  # of any size
_REMEDY = "name the folder of a run of recipes/codebook.py"


@dataclass
class TrainedCodebook:
    """A codebook and what it was made for.

    Attributes:
        codebook: of motion in metres. fps: frames per second. mesh_identity: whose motion it knows.
        about: where it comes from, plain values: corpus, iteration, what was measured, commit and versions.
    """

    codebook: Codebook
    fps: float
    mesh_identity: MeshIdentity
    about: dict[str, object]

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``codebook.pt`` into ``folder``, atomically."""
        made_for = {"fps": float(self.fps), "unit": UNIT, "mesh": self.mesh_identity.to_plain()}
        entry = {"kind": KIND, "format": FORMAT, "config": self.codebook.settings, **made_for, "about": self.about}
        weights = {name: tensor.detach().cpu() for name, tensor in self.codebook.state_dict().items()}
        save_tensors(Path(folder) / FILE, {**entry, "state_dict": weights})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TrainedCodebook:
        """Read one from its folder or its file; frozen, in evaluation mode, on the CPU.

        It is built once without memory, and for good only when every name and shape agrees with the file's tensors.

        Raises:
            UserError: missing, damaged, hostile, or something else than a codebook.
        """
        path = Path(path)
        path = path / FILE if path.is_dir() else path
        content = load_tensors(path, remedy=_REMEDY)
        if not isinstance(content, Mapping) or content.get("kind") != KIND:
            raise UserError(f"{path}: holds no codebook; {_REMEDY}")
        if content.get("format") != FORMAT:
            raise UserError(f"{path}: is of format {str(content.get('format'))[:40]}, not {FORMAT}; update s2f_rl")
        fps, mesh = content.get("fps"), MeshIdentity.from_plain(content.get("mesh"), str(path))
        known = isinstance(fps, (int, float)) and 1 <= fps <= 1000 and mesh is not None and content.get("unit") == UNIT
        if not known or mesh is None or fps is None:
            raise UserError(f"{path}: says not for which mesh, rate and unit it was made; train it again")
        codebook = _built(content.get("config"), content.get("state_dict"), path)
        if codebook.settings["n_outputs"] != 3 * mesh.n_vertices:
            raise UserError(f"{path}: its weights are not of its mesh of {mesh.n_vertices} vertices; train it again")
        about = content.get("about")
        return cls(codebook, float(fps), mesh, dict(about) if isinstance(about, Mapping) else {})


def _built(config: object, state: object, path: Path) -> Codebook:
    try:
        if not isinstance(config, Mapping) or not isinstance(state, Mapping):
            raise TypeError("no config, or no weights")
        settings = {str(name): value for name, value in config.items()}
        for name, value in settings.items():
            if not (type(value) is bool if name == "mapped" else type(value) is int and 1 <= value <= _LARGEST):
                raise ValueError(f"{name[:40]} is {str(value)[:40]}")
        if settings["n_layers"] > len(state):
            raise ValueError(f"{settings['n_layers']} layers, and {len(state)} tensors")
        with torch.device("meta"):
            expected = Codebook(**settings)
        weights = float_weights(state, expected.state_dict(), str(path))
        expected.load_state_dict(weights, assign=True)
        with torch.random.fork_rng(devices=[]):  # its first weights are replaced
            codebook = Codebook(**settings)
        codebook.load_state_dict(weights)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path}: its sizes and weights make no codebook ({reason}); {_REMEDY}") from error
    return codebook.eval().requires_grad_(False)
