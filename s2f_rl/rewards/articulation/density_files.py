"""The file of a trained density, ``articulation.pt``; nothing in it is ever run as code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from s2f_rl.data.mesh_identity import MeshIdentity
from s2f_rl.data.phone_classes import CLASSES
from s2f_rl.data.stored_features import hash_tensors
from s2f_rl.data.tensor_files import load_tensors, save_tensors
from s2f_rl.errors import UserError
from s2f_rl.rewards.articulation.density import LipDensity
from s2f_rl.rewards.model.checkpoint_files import pick, tensors
from s2f_rl.rewards.model.meeting import KEY as MADE_FOR
from s2f_rl.rewards.model.meeting import made_for, set_made_for

FILE = "articulation.pt"
_MARKER = "basis"
_LARGEST = 2**24


@dataclass
class TrainedDensity:
    """A density and what it was made for.

    Attributes:
        density: frozen. subjects: training subjects, in the order of the style columns.
        fps: frames per second. mesh_identity: the mesh whose lips it knows.
        about: where it comes from, plain values: the corpus, its phones, commit and versions.
    """

    density: LipDensity
    subjects: tuple[str, ...]
    fps: float | None = None
    mesh_identity: MeshIdentity | None = None
    about: dict[str, object] | None = None

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``articulation.pt`` into ``folder``, atomically."""
        state = {name: tensor.detach().cpu() for name, tensor in self.density.state_dict().items()}
        lips = state.pop("lips")  # the only whole numbers
        config = {
            MADE_FOR: made_for(self),
            "subjects": list(self.subjects),
            "classes": list(CLASSES),
            "lips": lips.tolist(),
            "about": self.about or {},
        }
        save_tensors(Path(folder) / FILE, {"articulation": state, "config": config})

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | torch.device = "cpu") -> TrainedDensity:
        """Read one from its folder or its file; frozen.

        Raises:
            UserError: missing, damaged, hostile, of another model, or of another version's phones.
        """
        path = Path(path)
        path = path / FILE if path.is_dir() else path
        content = load_tensors(path, remedy="name the folder of a run of recipes/articulation.py")
        if not isinstance(content, Mapping) or not isinstance(content.get("articulation"), Mapping):
            raise UserError(f"{path}: holds no density of lips; train one with recipes/articulation.py")
        state = tensors(content["articulation"], _MARKER, str(path))
        config = content.get("config")
        config = config if isinstance(config, Mapping) else {}
        if config.get("classes") != list(CLASSES):
            raise UserError(f"{path}: its classes of phones are not this version's; train it again")
        subjects, lips = _texts(config.get("subjects"), str(path)), _vertices(config.get("lips"), str(path))
        for name, n_axes in (("basis", 2), ("mean", 1), ("style.weight", 2), ("head.weight", 2)):
            if name not in state or state[name].ndim != n_axes:
                raise UserError(f"{path}: lacks {name!r}; use the whole checkpoint")
        depth = sum(name.startswith("layers.") and name.endswith(".bias") for name in state)
        fits = state["basis"].shape[1] == 3 * len(lips) == len(state["mean"]) and 0 < len(state["basis"])
        if not fits or state["style.weight"].shape[1] != len(subjects) or not 0 < depth < 100:
            raise UserError(f"{path}: its parts do not fit each other; use the checkpoint of one density")
        state["lips"] = torch.tensor(lips)
        built = (state["lips"], state["basis"], state["mean"], len(subjects), state["head.weight"].shape[1], depth)
        with torch.device("meta"):  # sizes come from a file: nothing is allocated before the shapes are checked
            state = pick(state, LipDensity(*built).state_dict(), str(path))
        density = LipDensity(*built)
        density.load_state_dict(state)
        about = config.get("about")
        found = cls(
            density.requires_grad_(False).eval().to(device),
            subjects,
            about=dict(about) if isinstance(about, Mapping) else None,
        )
        set_made_for(found, config, str(path))
        n_vertices = None if found.mesh_identity is None else found.mesh_identity.n_vertices
        if n_vertices is not None and max(lips) >= n_vertices:
            raise UserError(f"{path}: its lips are not on its mesh of {n_vertices} vertices; use a sound checkpoint")
        return found

    def content_hash(self) -> str:
        """sha256 over the density and its style columns, as hex."""
        return hash_tensors(self.density.state_dict().items(), f"articulation {self.subjects}")


def is_articulation(path: str | os.PathLike[str]) -> bool:
    """Whether this is the file of a density, or a folder that holds one."""
    path = Path(path)
    return (path / FILE).is_file() if path.is_dir() else path.name == FILE


def _texts(value: object, where: str) -> tuple[str, ...]:
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return tuple(value)
    raise UserError(f"{where}: says not which subjects it was trained on; use the whole checkpoint")


def _vertices(value: object, where: str) -> list[int]:
    if isinstance(value, list) and value and all(type(each) is int and 0 <= each < _LARGEST for each in value):
        return value
    raise UserError(f"{where}: says not which vertices its lips are; use the whole checkpoint")
