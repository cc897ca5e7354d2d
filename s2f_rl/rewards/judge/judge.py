"""A second reward model of another architecture, to judge what was trained against the first.

A policy learns the mistakes of the model it is trained against, and another seed of the same model shares many of
them. The judge shares neither architecture nor window: temporal convolutions over 21 frames in place of a transformer
over 5, and a comparison of motion and speech at several lags in place of one pair of pooled features. It is never
trained against: its file cannot be read as a reward.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2f_rl.data.mel import CLIP_FRAMES
from s2f_rl.data.stored_features import hash_tensors
from s2f_rl.errors import UserError
from s2f_rl.keys import LIP_SCORE, REAL_SCORE
from s2f_rl.rewards.judge.layers import LOCAL_FRAMES, WINDOW_FRAMES, AudioHalf, MeshHalf, mel_frames
from s2f_rl.rewards.model.checked_arrays import ArrayLike, mel_input
from s2f_rl.rewards.model.checkpoint_files import JUDGE_FILE, is_judge, pick, read_checkpoint, tensors, write_checkpoint
from s2f_rl.rewards.model.meeting import KEY as MADE_FOR
from s2f_rl.rewards.model.meeting import made_for, set_made_for
from s2f_rl.rewards.model.reward_model import RewardModel
from s2f_rl.rewards.model.sequence_scorer import SequenceScorer
from s2f_rl.rewards.training.projection import MeshProjection

_LAGS = range(-6, 7)
_GROUPS = 4
# training tells true from spoiled motion so surely that a mediocre policy would score 0.01; divided by this, log-odds
# leave room below it and above it
_SOFTNESS = 3.0
_FIRST_LOCAL = LOCAL_FRAMES - CLIP_FRAMES  # mel clip at which the first local feature ends
_FIRST_WINDOW = WINDOW_FRAMES - CLIP_FRAMES
_MARKER = "mesh.embed.weight"


class JudgeHead(nn.Module):
    """Log-odds from features: lip from both halves and their lags, real from the mesh alone.

    Args:
        width: W of the features. hidden: of the two small networks. dropout: in training only.
    """

    def __init__(self, width: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        n_inputs = 3 * width + _GROUPS * len(_LAGS)
        self.lip = nn.Sequential(nn.Linear(n_inputs, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, 1))
        self.real = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, 1))

    def forward(self, mesh: Tensor, audio: Tensor, lags: Tensor) -> Tensor:
        """Features [..., W], [..., W] and lag profile [..., 13 * 4] -> lip and real log-odds [..., 2]."""
        seen = torch.cat([mesh, audio, mesh * audio, lags], dim=-1)
        return torch.cat([self.lip(seen), self.real(mesh)], dim=-1)


class Judge(SequenceScorer):
    """Lip and real scores of motion by temporal convolutions; differentiable in the vertices.

    Frame t's scores belong to the window of frames t-20..t, heard in the mel clips t-20..t-4. What does not depend on
    the motion is computed once: :meth:`encode_audio`.

    Args:
        matrix: [R, V*3], per metre, and mean: [V*3], metres: the fixed view of the mesh (:class:`MeshProjection`).
        width: channels of both halves. hidden: of the heads. dropout: of the heads, in training only.
    """

    window_frames = WINDOW_FRAMES
    matrix: Tensor
    mean: Tensor

    def __init__(self, matrix: Tensor, mean: Tensor, width: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        if width < 1 or width % _GROUPS:
            raise UserError(f"width={width} of a judge: use a multiple of {_GROUPS}")
        self.register_buffer("matrix", matrix.detach().clone().float())
        self.register_buffer("mean", mean.detach().clone().float())
        self.width = width
        self.mesh = MeshHalf(len(matrix), width)
        self.audio = AudioHalf(width)
        self.head = JudgeHead(width, hidden, dropout)

    @classmethod
    def of(cls, projection: MeshProjection, width: int, hidden: int, dropout: float) -> Judge:
        """A fresh judge with a fitted view of the mesh."""
        return cls(projection.matrix, projection.mean, width, hidden, dropout)

    # ---------------------------------------------------------------- files, state

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Judge:
        """Read a judge from its folder or its file ``judge.pt``; frozen.

        Raises:
            UserError: missing, damaged, hostile or of another model.
        """
        path = Path(path)
        path = path / JUDGE_FILE if path.is_dir() else path
        content = read_checkpoint(path)
        if not isinstance(content.get("judge"), Mapping):
            raise UserError(f"{path}: holds no judge; train one with recipes/judge.py")
        state = tensors(content["judge"], _MARKER, str(path))
        sizes = {}
        for name, n_axes in (("matrix", 2), ("mean", 1), ("mesh.local_norm.weight", 1), ("head.real.0.bias", 1)):
            if name not in state or state[name].ndim != n_axes:
                raise UserError(f"{path}: lacks {name!r}; use the whole checkpoint of a judge")
            sizes[name] = len(state[name])
        n_rows, n_coordinates = state["matrix"].shape
        fits = n_coordinates == sizes["mean"] and n_coordinates % 3 == 0 and n_rows > 0
        if not fits or sizes["mesh.local_norm.weight"] % _GROUPS:
            raise UserError(f"{path}: its parts do not fit each other; use the checkpoint of one judge")
        built = (state["matrix"], state["mean"], sizes["mesh.local_norm.weight"], sizes["head.real.0.bias"])
        # sizes come from a file: tried on "meta", so that nothing is allocated before the shapes are checked
        with torch.device("meta"):
            state = pick(state, cls(*built).state_dict(), str(path))
        judge = cls(*built)
        judge.load_state_dict(state)
        set_made_for(judge, content.get("config"), str(path))
        return judge.frozen().to(device)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``judge.pt`` into ``folder``, atomically."""
        state = {name: tensor.detach().cpu() for name, tensor in self.state_dict().items()}
        write_checkpoint(Path(folder) / JUDGE_FILE, {"judge": state, "config": {MADE_FOR: made_for(self)}})

    def frozen(self) -> Judge:
        """A copy for use: no parameter takes a gradient, no dropout."""
        return copy.deepcopy(self).requires_grad_(False).eval()

    @property
    def n_vertices(self) -> int:
        """V of the meshes it scores."""
        return self.matrix.shape[1] // 3

    @property
    def feature_width(self) -> int:
        """E, numbers per mel clip that :meth:`encode_audio` gives."""
        return 2 * self.width

    @property
    def score_names(self) -> tuple[str, ...]:
        """What it says of a window."""
        return LIP_SCORE, REAL_SCORE

    @property
    def reference(self) -> Tensor:
        """See the base class."""
        return self.matrix

    def content_hash(self) -> str:
        """sha256 over all that the scores depend on, as hex."""
        return hash_tensors(self.state_dict().items(), f"judge softness={_SOFTNESS}")

    def audio_hash(self) -> str:
        """sha256 over the audio half alone, as hex: the key of cached audio features."""
        return hash_tensors(self.audio.state_dict().items(), "judge")

    # ---------------------------------------------------------------- features

    def encode_audio(self, mel_clips: ArrayLike) -> Tensor:
        """Successive mel clips [n, 20, 128] -> features [n, E]: what is heard up to the end of each clip.

        A clip's feature depends on the 16 clips before it and on none after it. The first half of a row is the
        local feature of 11 frames, the second that of 21; rows that lack frames for one hold 0 in its place.
        """
        mel = mel_input(mel_clips, self.matrix)
        features = mel.new_zeros(len(mel), 2, self.width)
        if len(mel) <= _FIRST_LOCAL:
            return features.flatten(1)
        local, window = self.audio(mel_frames(mel)[None])
        features[_FIRST_LOCAL:, 0] = local[0]
        features[_FIRST_WINDOW:, 1] = window[0]
        return features.flatten(1)

    def project(self, vertices: Tensor) -> Tensor:
        """Vertices [..., V*3], metres -> [..., R], what the mesh half sees."""
        return (vertices - self.mean) @ self.matrix.T

    def log_odds(self, frames: Tensor, local: Tensor, window: Tensor) -> Tensor:
        """Projected frames [B, T, R] and audio features [B, T-10, W], [B, T-20, W] -> log-odds [B, T-20, 2], T >= 21.

        Row w is of the frames w..w+20; lip first, then real.
        """
        mesh_local, mesh_window = self.mesh(frames)
        return self.head(mesh_window, window, lag_profile(mesh_local, local))

    def score_windows(self, meshes: Tensor, audio: Tensor, valid: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """``lip_score`` and ``real_score`` in [0, 1], each [B, N]; see the base class."""
        n_windows = valid.shape[1]
        if valid.numel() == 0:
            return dict.fromkeys((LIP_SCORE, REAL_SCORE), meshes.new_zeros(valid.shape))
        # only what a valid window sees is read: padding becomes a constant, so not even a nan's gradient leaks
        length = n_windows + WINDOW_FRAMES - 1
        column = torch.arange(n_windows, device=meshes.device)
        ends = torch.where(valid, column + WINDOW_FRAMES, 0).amax(1, keepdim=True)
        seen = torch.arange(length, device=meshes.device) < ends
        frames = torch.where(seen[..., None], meshes[:, :length], self.mean)
        heard = torch.where(seen[:, CLIP_FRAMES - 1 :, None], audio[:, : length - CLIP_FRAMES + 1], 0.0)
        local, window = heard.unflatten(-1, (2, self.width)).unbind(-2)
        odds = self.log_odds(self.project(frames), local[:, _FIRST_LOCAL:], window[:, _FIRST_WINDOW:])
        lip, real = (odds / _SOFTNESS).sigmoid().unbind(-1)
        return {LIP_SCORE: lip, REAL_SCORE: real}


def lag_profile(mesh: Tensor, audio: Tensor) -> Tensor:
    """How well motion agrees with speech at lags of -6 to 6 frames, within each window.

    Args:
        mesh, audio: [B, P, W] local features.

    Returns:
        [B, P-10, 13 * 4]: for each lag l and each of 4 groups of channels, the mean cosine of mesh p and audio p - l
        over the pairs that lie within the window's 11 local features. How the lags compare depends less on voice and
        face than how high they are.
    """
    mesh = F.normalize(mesh.unflatten(-1, (_GROUPS, -1)), dim=-1)
    audio = F.normalize(audio.unflatten(-1, (_GROUPS, -1)), dim=-1)
    n_local = WINDOW_FRAMES - LOCAL_FRAMES + 1
    profile = []
    for lag in _LAGS:
        early, late = max(0, lag), max(0, -lag)
        n_pairs = mesh.shape[1] - abs(lag)
        agreement = (mesh[:, early : early + n_pairs] * audio[:, late : late + n_pairs]).sum(-1)
        profile.append(agreement.unfold(1, n_local - abs(lag), 1).mean(-1))
    return torch.cat(profile, dim=-1)


AnyReward = RewardModel | Judge
"""Whatever scores motion: what is trained against, or a judge."""


def load_scorer(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> AnyReward:
    """The judge of a file ``judge.pt``, or of a folder with one and no reward; else the reward of a folder or file.

    For scoring only; what is trained against is read by ``RewardModel.load``, which refuses a judge.
    """
    path = Path(path)
    return Judge.load(path, device) if is_judge(path) else RewardModel.load(path, device=device)
