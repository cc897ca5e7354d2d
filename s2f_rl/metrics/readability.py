"""Perceptual lip readability."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from s2f_rl.data.mel import CLIP_FRAMES
from s2f_rl.errors import UserError
from s2f_rl.metrics._meshes import ArrayLike, as_frames, as_tensor

_CLIPS_AT_ONCE = 128


class ReadsClips(Protocol):
    """What is needed of a reward model; where it has ``n_vertices``, a mesh of another size is refused."""

    @property
    def backbone(self) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Mesh clips [M, 5, V*3] and mel clips [M, 1, 20, 128] -> features of both, [M, E] each."""


def lip_readability_per_clip(vertices: ArrayLike, mel_clips: ArrayLike, reward_model: ReadsClips) -> Tensor:
    """Cosine similarity of mesh and speech for every whole 5-frame clip: float64 [clips] in [-1, 1].

    Clip i holds frames 5i to 5i+4 and mel clip 5i; see :func:`perceptual_lip_readability`.
    """
    frames = as_frames(vertices, "vertices")
    if frames.ndim != 3:
        raise UserError(f"vertices have batch shape {list(frames.shape[:-3])}; pass one sequence [T, V*3] or [T, V, 3]")
    mel = as_tensor(mel_clips, "mel_clips")
    if mel.ndim == 4 and mel.shape[1] == 1:
        mel = mel[:, 0]
    if mel.ndim != 3 or tuple(mel.shape[1:]) != (20, 128):
        raise UserError(f"mel_clips have shape {list(mel.shape)}; expected [n, 20, 128], one clip for every frame")
    expected = getattr(reward_model, "n_vertices", None)
    if expected is not None and int(expected) != frames.shape[-2]:
        raise UserError(
            f"vertices have V={frames.shape[-2]} and the reward model was made for V={int(expected)}; "
            "use a reward model of this topology"
        )
    n_clips = min(frames.shape[0] // CLIP_FRAMES, -(-mel.shape[0] // CLIP_FRAMES))
    backbone = reward_model.backbone
    weight = next(backbone.parameters(), None) if isinstance(backbone, torch.nn.Module) else None
    device, dtype = (frames.device, torch.float32) if weight is None else (weight.device, weight.dtype)
    meshes = frames[: n_clips * CLIP_FRAMES].reshape(n_clips, CLIP_FRAMES, 3 * frames.shape[-2])
    speech = mel[::CLIP_FRAMES][:n_clips].unsqueeze(1)
    similarity = []
    with torch.no_grad():
        for start in range(0, n_clips, _CLIPS_AT_ONCE):
            part = slice(start, start + _CLIPS_AT_ONCE)
            mesh_feature, audio_feature = backbone(meshes[part].to(device, dtype), speech[part].to(device, dtype))
            similarity.append(torch.cosine_similarity(mesh_feature.double(), audio_feature.double(), dim=-1))
    return torch.cat(similarity) if similarity else torch.zeros(0, dtype=torch.float64, device=device)


def perceptual_lip_readability(vertices: ArrayLike, mel_clips: ArrayLike, reward_model: ReadsClips) -> Tensor:
    """PLRS: mean cosine similarity of mesh and speech features over non-overlapping 5-frame clips.

    Chae-Yeon et al., CVPR 2025. Only ``reward_model.backbone`` is used, no head. An incomplete last clip, and clips
    behind the end of the speech, are dropped.

    Args:
        vertices: one sequence [T, V*3] or [T, V, 3], metres.
        mel_clips: [n, 20, 128], one for every frame as :func:`s2f_rl.data.mel_clips` makes them; every fifth is used.
        reward_model: has ``backbone(mesh_clips [M, 5, V*3], mel_clips [M, 1, 20, 128]) -> (mesh, audio)`` features.

    Returns:
        float64 scalar in [-1, 1], higher is better; nan without a whole clip.

    Raises:
        UserError: shapes that do not fit each other or the reward model.
    """
    return lip_readability_per_clip(vertices, mel_clips, reward_model).mean()
