"""Actor checkpoints: our own files (config + weights) and published FaceFormer weights, never read as code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from s2f_rl.data.tensor_files import load_tensors
from s2f_rl.errors import UserError
from s2f_rl.models.faceformer import FaceFormer

__all__ = ["actor_from_payload", "actor_payload", "load_actor", "load_tensors"]

FORMAT = 1


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
