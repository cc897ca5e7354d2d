"""The frozen reward: speech-mesh features and the scores that the head reads from them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from s2f_rl.data.mel import CLIP_FRAMES
from s2f_rl.data.stored_features import hash_tensors
from s2f_rl.errors import UserError
from s2f_rl.keys import LIP_SCORE, REAL_SCORE
from s2f_rl.rewards.model.checked_arrays import ArrayLike, mel_input
from s2f_rl.rewards.model.checkpoint_files import (
    BACKBONE_FILE,
    HEAD_FILE,
    backbone_file,
    has_backbone,
    head_file,
    is_judge,
    is_pretrained_folder,
    read_checkpoint,
    write_checkpoint,
)
from s2f_rl.rewards.model.head import ScoreHead
from s2f_rl.rewards.model.hub_folder import load_pretrained, save_pretrained
from s2f_rl.rewards.model.meeting import KEY as MADE_FOR
from s2f_rl.rewards.model.meeting import made_for, set_made_for
from s2f_rl.rewards.model.sequence_scorer import SequenceScorer
from s2f_rl.rewards.model.speech_mesh import SpeechMeshTransformer

T = TypeVar("T")


class RewardModel(SequenceScorer):
    """Backbone and, where there is one, head; frozen and in evaluation mode whatever ``.train()`` says.

    Frozen means that no parameter takes a gradient, with one exception: the value branch of the head, which is a
    critic (``head.value_parameters()``). It shares nothing with the scores, so training it leaves them bit-identical.
    All scores are differentiable in the vertices.

    Clip i is frames i..i+4 and mel clip i; the scores of clip i belong to frame i+4.

    Args:
        backbone: the speech-mesh transformer.
        head: without one, ``lip_score`` is the cosine of the two features, in [-1, 1], and there is no ``real_score``.
    """

    def __init__(self, backbone: SpeechMeshTransformer, head: ScoreHead | None = None) -> None:
        super().__init__()
        if head is not None and (head.d_audio, head.d_mesh) != (backbone.width, backbone.width):
            raise UserError(
                f"the head reads features of width {head.d_audio} and {head.d_mesh}, the backbone's are "
                f"{backbone.width} wide: use a head that was trained on this backbone"
            )
        self.backbone = backbone
        self.head = head
        self.requires_grad_(False)
        if head is not None:
            for parameter in head.value_parameters():
                parameter.requires_grad_(True)
        self.train(False)

    # ---------------------------------------------------------------- construction

    @classmethod
    def from_reference(
        cls,
        backbone_state_dict: Mapping[str, object],
        head_state_dict: Mapping[str, object] | None = None,
        n_heads: int = 8,
        out_activation: str = "sigmoid",
    ) -> RewardModel:
        """Model of state dicts in the published layout; wrapper keys are taken off, extra entries warned about.

        Raises:
            UserError: an entry is missing, misshapen or not finite.
        """
        backbone = SpeechMeshTransformer.from_state_dict(backbone_state_dict, n_heads)
        head = None
        if head_state_dict is not None:
            head = ScoreHead.from_state_dict(head_state_dict, out_activation=out_activation)
        return cls(backbone, head)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        backbone: str | os.PathLike[str] | None = None,
        head: str | os.PathLike[str] | None = None,
        n_heads: int | None = None,
        device: str | torch.device = "cpu",
    ) -> RewardModel:
        """Read a reward from disk.

        Args:
            path: a folder with ``model_loss.pth`` and, for the scores, ``v4_best.pt`` (or their ``.safetensors``), or
                one of :meth:`save_pretrained`; or one file: a backbone, or ``{"model": ..., "head": ...}``.
            backbone, head: the two files by name, in place of ``path``.
            n_heads: attention heads; by default what the file says, else 8 as in the published model.
            device: where the model goes.

        Raises:
            UserError: missing, damaged, hostile or unfitting files.
        """
        if (path is None) == (backbone is None):
            raise UserError("RewardModel.load takes either a folder or file, or backbone=... and head=...")
        if path is not None and is_judge(Path(path)):
            raise UserError(f"{path}: a judge is for scoring only, not for training; name a reward (recipes/reward.py)")
        if path is not None and Path(path).is_dir():
            if not has_backbone(Path(path)) and is_pretrained_folder(path):
                return load_pretrained(cls, path, device)
            backbone = backbone_file(Path(path))
            head = head or head_file(Path(path))
        backbone_path = Path(backbone if backbone is not None else path)  # type: ignore[arg-type]
        content = read_checkpoint(backbone_path)
        heads = n_heads or _setting(content, "n_heads", int) or 8
        reward_backbone = SpeechMeshTransformer.from_state_dict(content, heads, what=str(backbone_path))
        head_content: Mapping[str, object] | None = None
        if head is not None:
            head_content = read_checkpoint(head)
        elif isinstance(content.get("head"), Mapping):
            head_content = {"head": content["head"], "config": content.get("config")}
        reward_head = None
        if head_content is not None:
            activation = _setting(head_content, "out_activation", str) or "sigmoid"
            reward_head = ScoreHead.from_state_dict(
                head_content, out_activation=activation, what=str(head or backbone_path)
            )
        model = cls(reward_backbone, reward_head).to(device)
        set_made_for(model, content.get("config"), str(backbone_path))
        return model

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``model_loss.pth`` and, with a head, ``v4_best.pt`` into ``folder``, atomically.

        The layouts are the published ones; ``config`` beside the state dicts holds what tensors cannot tell.
        """
        folder = Path(folder)
        backbone = {name: tensor.detach().cpu() for name, tensor in self.backbone.state_dict().items()}
        config = {"n_heads": self.backbone.n_heads, MADE_FOR: made_for(self)}
        write_checkpoint(folder / BACKBONE_FILE, {"model": backbone, "config": config})
        if self.head is not None:
            head = {name: tensor.detach().cpu() for name, tensor in self.head.state_dict().items()}
            settings = {"out_activation": self.head.out_activation}
            write_checkpoint(folder / HEAD_FILE, {"head": head, "config": settings})

    def save_pretrained(self, folder: str | os.PathLike[str], corpus: str | None = None) -> None:
        """Write the reward in the form of the Hugging Face hub: :mod:`s2f_rl.rewards.model.hub_folder`."""
        save_pretrained(self, folder, corpus)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        device: str | torch.device = "cpu",
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> RewardModel:
        """Read a folder of :meth:`save_pretrained` (no network), or a hub repository ``owner/name``.

        See :func:`s2f_rl.rewards.model.hub_folder.load_pretrained`.
        """
        return load_pretrained(cls, source, device, revision, cache_dir)

    # ---------------------------------------------------------------- sizes, state

    @property
    def n_vertices(self) -> int:
        """V of the meshes it scores."""
        return self.backbone.n_vertices

    @property
    def feature_width(self) -> int:
        """E."""
        return self.backbone.width

    @property
    def score_names(self) -> tuple[str, ...]:
        """What it says of a clip."""
        return (LIP_SCORE,) if self.head is None else (LIP_SCORE, REAL_SCORE)

    @property
    def reference(self) -> Tensor:
        """See the base class."""
        return self.backbone.encoder.patch_embed.weight

    def train(self, mode: bool = True) -> RewardModel:
        """Stays in evaluation mode: a reward with dropout would be another reward at every call."""
        return super().train(False)

    def content_hash(self) -> str:
        """sha256 over everything lip and real depend on, as hex; the value branch does not enter."""
        parts: list[tuple[str, Tensor]] = list(self.backbone.state_dict().items())
        settings = self._settings()
        if self.head is not None:
            scores = self.head.state_dict().items()
            parts += [(f"head.{name}", tensor) for name, tensor in scores if not name.startswith("value")]
            settings += f" out_activation={self.head.out_activation}"
        return hash_tensors(parts, settings)

    def audio_hash(self) -> str:
        """sha256 over the audio half alone, as hex: the key of cached audio features."""
        return hash_tensors(self.backbone.encoder_audio.state_dict().items(), self._settings())

    def _settings(self) -> str:
        precision = self.backbone.precision
        return f"n_heads={self.backbone.n_heads}" + (f" {precision}" if precision != "float32" else "")

    # ---------------------------------------------------------------- features, scores of clips

    def encode_audio(self, mel_clips: ArrayLike) -> Tensor:
        """Mel clips [M, 20, 128] (or [M, 1, 20, 128]) -> unit features [M, E]."""
        return self.backbone.encode_audio(mel_input(mel_clips, self.reference))

    def encode_mesh(self, vertices: ArrayLike) -> Tensor:
        """Vertices [B, T, V*3] or [B, T, V, 3], metres -> unit features [B, T-4, E] of every clip (none for T < 5)."""
        return self.backbone.encode_mesh(self.meshes(vertices))

    def heads(self, mesh_feature: Tensor, audio_feature: Tensor) -> dict[str, Tensor]:
        """Unit features [..., E] -> ``lip_score``, ``real_score`` [...]; without a head the cosine as ``lip_score``."""
        if self.head is None:
            return {LIP_SCORE: (mesh_feature * audio_feature).sum(-1)}
        lip, real = self.head.scores(audio_feature, mesh_feature)
        return {LIP_SCORE: lip, REAL_SCORE: real}

    def value(self, mesh_feature: Tensor, audio_feature: Tensor) -> Tensor:
        """Critic's estimate [...] from unit features [..., E]; trainable, no gradient to the features."""
        if self.head is None:
            raise UserError("this reward has no head, so no value: load it with its head file (v4_best.pt)")
        return self.head.estimate_value(audio_feature, mesh_feature)

    def score_windows(self, meshes: Tensor, audio: Tensor, valid: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """Scores [B, N] of clips as of :meth:`heads`: cosines without a head; see the base class."""
        batch, n_frames = meshes.shape[:2]
        lane, first = wanted.nonzero(as_tuple=True)
        # only frames of a wanted clip are embedded: padding costs nothing and its content cannot leak, not even as nan
        used = torch.zeros(batch, n_frames, dtype=torch.bool, device=meshes.device)
        frames = first[:, None] + torch.arange(CLIP_FRAMES, device=meshes.device)
        used[lane[:, None], frames] = True
        place = used.flatten().cumsum(0).view(batch, n_frames) - 1
        embedded = self.backbone.embed_frames(meshes.flatten(0, 1) if bool(used.all()) else meshes[used])
        return self._score_clips(embedded[place[lane[:, None], frames]], audio, wanted, lane, first)

    def score_embedded(
        self, frames: Tensor, audio_features: Tensor, n_clips: Tensor | Iterable[int] | None = None, stride: int = 1
    ) -> dict[str, Tensor]:
        """:meth:`score_batch` of frames [B, T, E] that went through :meth:`SpeechMeshTransformer.embed_frames`."""
        return self._placed(self._score_embedded, frames, audio_features, n_clips, stride)

    def _score_embedded(self, frames: Tensor, audio: Tensor, valid: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        lane, first = wanted.nonzero(as_tuple=True)
        clips = frames[lane[:, None], first[:, None] + torch.arange(CLIP_FRAMES, device=frames.device)]
        return self._score_clips(clips, audio, wanted, lane, first)

    def _score_clips(
        self, clips: Tensor, audio: Tensor, wanted: Tensor, lane: Tensor, first: Tensor
    ) -> dict[str, Tensor]:
        """Scores [B, N], 0 elsewhere, of the wanted clips (``lane``, ``first``) in a row, embedded [M, 5, E]."""
        scores = self.heads(self.backbone.encode_embedded(clips), audio[lane, first])
        return {key: value.new_zeros(wanted.shape).index_put((lane, first), value) for key, value in scores.items()}


def _setting(content: Mapping[str, object], key: str, kind: type[T]) -> T | None:
    config = content.get("config")
    value = config.get(key) if isinstance(config, Mapping) else None
    return value if isinstance(value, kind) and type(value) is kind else None
