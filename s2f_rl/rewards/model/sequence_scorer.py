"""Scores of whole sequences, from windows of frames: what a reward and a judge share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2f_rl.data.mel import CLIP_FRAMES
from s2f_rl.data.mesh_identity import MeshIdentity
from s2f_rl.errors import UserError
from s2f_rl.keys import SCORE_MASK
from s2f_rl.rewards.model.checked_arrays import ArrayLike, beside, mesh_input


class SequenceScorer(nn.Module, ABC):
    """Scores windows of ``window_frames`` frames; a window's score belongs to its last frame.

    Attributes:
        window_frames: W, at least the 5 frames of a mel clip.
        fps: frame rate that it was trained at; None where it is not known.
        mesh_identity: :class:`~s2f_rl.data.mesh_identity.MeshIdentity` that it scores; None where only V is known.
    """

    window_frames = CLIP_FRAMES
    fps: float | None = None
    mesh_identity: MeshIdentity | None = None

    @abstractmethod
    def encode_audio(self, mel_clips: ArrayLike) -> Tensor:
        """Successive mel clips [n, 20, 128] -> features [n, E]: what is heard up to the end of each clip."""

    @abstractmethod
    def score_windows(self, meshes: Tensor, audio: Tensor, valid: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """Scores [B, N] by name of the windows that are ``wanted``; anything elsewhere.

        Args:
            meshes: [B, T, V*3]; audio: [B, n, E]. Window i is of frames i..i+W-1 and mel clips up to i+W-5.
            valid: [B, N] windows that lie within their lane: what no valid window sees is never read.
            wanted: [B, N] those of them to score.
        """

    @property
    @abstractmethod
    def n_vertices(self) -> int:
        """V of the meshes it scores."""

    @property
    @abstractmethod
    def reference(self) -> Tensor:
        """A tensor of the model's own, whose device and type what comes from outside is brought to."""

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.reference.device

    @property
    def look_back(self) -> int:
        """How many frames before its own a score is of."""
        return self.window_frames - 1

    def meshes(self, vertices: ArrayLike, batched: bool = True) -> Tensor:
        """Vertices [(B,) T, V*3] or [(B,) T, V, 3], metres -> [(B,) T, V*3] beside the model; UserError for others."""
        return mesh_input(vertices, 3 * self.n_vertices, self.reference, batched)

    def score(self, vertices: ArrayLike, mel_clips: ArrayLike, stride: int = 1) -> dict[str, Tensor]:
        """Score one sequence.

        Args:
            vertices: [T, V*3] or [T, V, 3], metres. mel_clips: [n, 20, 128].
            stride: score every stride-th window only, from the first on.

        Returns:
            scores float32 [T] by name (``lip_score``, ``real_score``) and ``score_mask`` bool [T]. Frame t's score is
            of the W frames that end with it, and of the mel clips that lie within them, up to clip t-4. A frame without
            a whole window, or without sound, has score 0 and mask False.
        """
        meshes = self.meshes(vertices, batched=False)[None]
        n_wanted = max(0, meshes.shape[1] - CLIP_FRAMES + 1)
        audio = self.encode_audio(beside(mel_clips, self.reference)[:n_wanted])
        scores = self.score_batch(meshes, audio[None], stride=stride)
        return {key: value[0] for key, value in scores.items()}

    def score_batch(
        self,
        vertices: ArrayLike,
        audio_features: Tensor,
        n_clips: Tensor | Iterable[int] | None = None,
        stride: int = 1,
    ) -> dict[str, Tensor]:
        """Score a padded batch with audio features that were computed before.

        Args:
            vertices: [B, T, V*3] or [B, T, V, 3], metres; whatever the padding holds, nan included, is never read.
            audio_features: [B, n, E] from :meth:`encode_audio`.
            n_clips: [B] valid clips per lane, at most frames of the lane minus 4; default all. Capped at n and T-4.
            stride: score every stride-th window of a lane only.

        Returns:
            as :meth:`score`, each [B, T].
        """
        return self._placed(self.score_windows, self.meshes(vertices), audio_features, n_clips, stride)

    def _placed(
        self,
        score_windows: Callable[[Tensor, Tensor, Tensor, Tensor], dict[str, Tensor]],
        frames: Tensor,
        audio_features: Tensor,
        n_clips: Tensor | Iterable[int] | None,
        stride: int,
    ) -> dict[str, Tensor]:
        """Scores and mask [B, T] by :meth:`score_windows`, or by what takes its ``frames`` [B, T, ..] as it does."""
        if stride < 1:
            raise UserError(f"stride={stride}: score every stride-th window, with stride 1 or more")
        audio = beside(audio_features, self.reference)
        batch, n_frames = frames.shape[:2]
        before = self.window_frames - CLIP_FRAMES  # clips of a window before its last
        n_windows = max(0, min(n_frames - self.window_frames + 1, audio.shape[1] - before))
        column = torch.arange(n_windows, device=frames.device)
        valid = torch.ones(batch, n_windows, dtype=torch.bool, device=frames.device)
        if n_clips is not None:
            valid = column + before < torch.as_tensor(n_clips, device=frames.device).reshape(batch, 1)
        wanted = valid & (column % stride == 0)
        first = self.window_frames - 1
        around = (first, n_frames - first - n_windows) if n_windows else (0, n_frames)
        scores = score_windows(frames, audio, valid, wanted)
        placed = {key: F.pad(torch.where(wanted, value, 0.0), around) for key, value in scores.items()}
        return {**placed, SCORE_MASK: F.pad(wanted, around)}
