"""Actor checkpoints: our own files (config + weights) and published FaceFormer weights, never read as code."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from s2f_rl.data.files import require_file
from s2f_rl.errors import UserError
from s2f_rl.models.faceformer import FaceFormer

FORMAT = 1


def load_tensors(path: str | Path, device: str | torch.device = "cpu") -> Any:
    """Read a ``.pt``/``.pth`` file (``torch.load(weights_only=True)``) or a ``.safetensors`` file.

    Raises:
        UserError: the file is missing, a folder, damaged, or holds anything but tensors and plain containers.
    """
    path = require_file(path, "name a checkpoint file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path, device=str(device))
        with warnings.catch_warnings():  # torch also warns about the file that the error below names
            warnings.simplefilter("ignore")
            return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # a hostile file can raise nearly anything in here
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{path}: cannot be read as a checkpoint of plain tensors ({reason}); it is damaged, or not a checkpoint"
        ) from error


def actor_payload(actor: FaceFormer, subjects: list[str], **extra: Any) -> dict[str, Any]:
    """The ``actor`` entry of our checkpoints: plain containers and tensors.

    Args:
        actor: the model.
        subjects: training subjects in the order of the style columns.
        **extra: further plain values, such as the corpus's dataset name and unit.
    """
    return {
        "format": FORMAT,
        "config": actor.config(),
        "state_dict": {k: v.detach().clone() for k, v in actor.state_dict().items()},
        "subjects": list(subjects),
        **extra,
    }


def actor_from_payload(payload: Any, where: str | Path = "checkpoint") -> FaceFormer:
    """Inverse of :func:`actor_payload`."""
    try:
        if payload["format"] > FORMAT:
            raise UserError(f"{where}: written by a newer version (format {payload['format']}); update s2f_rl")
        actor = FaceFormer.from_config(payload["config"])
        actor.load_state_dict(payload["state_dict"])
    except (KeyError, TypeError, RuntimeError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{where}: no actor of this project inside ({reason}); give best.pt or last.pt of a run"
        ) from error
    return actor


def load_actor(
    path: str | Path, topology: str = "vocaset", audio_config: dict[str, Any] | None = None
) -> tuple[FaceFormer, dict[str, Any]]:
    """Load an actor from a run's checkpoint or from published FaceFormer weights.

    Args:
        path: ``best.pt``/``last.pt`` of a run, its folder (then ``best.pt``), or a published ``.pth``/``.safetensors``.
        topology, audio_config: for published weights, see :meth:`FaceFormer.from_reference`.

    Returns:
        the actor in evaluation mode, and the rest of its entry (``subjects``, ...; empty for published weights).
    """
    path = Path(path)
    if path.is_dir():
        path = path / "best.pt" if (path / "best.pt").exists() else path / "last.pt"
    content = load_tensors(path)
    if isinstance(content, dict) and isinstance(content.get("actor"), dict):
        payload = content["actor"]
        actor = actor_from_payload(payload, path)
        rest = {k: v for k, v in payload.items() if k not in ("config", "state_dict")}
        return actor.eval(), rest
    try:
        return FaceFormer.from_reference(content, topology, audio_config=audio_config).eval(), {}
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
