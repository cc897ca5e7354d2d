"""Stage 2 of CodeTalker: speech, style and past motion to features, frame by frame (Xing et al., CVPR 2023, sec. 3.2).

The layers are those of FaceFormer's decoder, several of them, each of which sees the audio of its own frame.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2f_rl.models.codetalker.codebook import Codebook
from s2f_rl.models.codetalker.prefix import Prefix
from s2f_rl.models.decoder_layer import DecoderLayer, drop, heard_by, run_layer, temporal_bias
from s2f_rl.models.decoder_parts import alibi_slopes, periodic_positions
from s2f_rl.models.step_cache import LayerCache


class CodeDecoder(nn.Module):
    """The cross-modal decoder: features [.., Q*C] of each frame, whose nearest codes are the motion.

    Args:
        n_outputs: V*3, of the displacements that are fed back.
        audio_width: D.
        n_features: Q*C.
        feature_dim: H. n_layers: post-norm decoder layers. n_head: attention heads.
        n_subjects: S.
        period: of positions and of the temporal bias, frames (30 VOCASET, 25 BIWI).
    """

    positions: Tensor
    slopes: Tensor

    def __init__(
        self,
        n_outputs: int,
        audio_width: int,
        n_features: int,
        feature_dim: int,
        n_layers: int,
        n_head: int,
        n_subjects: int,
        period: int,
    ) -> None:
        super().__init__()
        self.feature_dim, self.n_head, self.period = feature_dim, n_head, period
        self.audio_feature_map = nn.Linear(audio_width, feature_dim)
        self.vertice_map = nn.Linear(n_outputs, feature_dim)
        self.style_embedding = nn.Embedding(n_subjects, feature_dim)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(feature_dim, n_head, 2 * feature_dim, batch_first=True) for _ in range(n_layers)
        )
        self.feature_map = nn.Linear(feature_dim, n_features, bias=False)
        nn.init.zeros_(self.feature_map.weight)  # as in the reference
        self.register_buffer("positions", periodic_positions(feature_dim, period), persistent=False)
        self.register_buffer("slopes", torch.tensor(alibi_slopes(n_head)), persistent=False)

    @property
    def stack(self) -> list[DecoderLayer]:
        """The layers, first to last."""
        return [cast(DecoderLayer, layer) for layer in self.layers]

    def embed_style(self, style: Tensor) -> Tensor:
        """Style weights [B, S] to vectors [B, H]: a column's own, or a mixture of several columns'."""
        return style.to(self.style_embedding.weight) @ self.style_embedding.weight

    def hear(self, audio: Tensor) -> list[Tensor]:
        """What each layer keeps of the audio [B, T, A, D], see :func:`~s2f_rl.models.decoder_layer.heard_by`."""
        alone = audio.shape[-2] == 1
        mapped = self.audio_feature_map(audio.squeeze(-2) if alone else audio)
        return [heard_by(layer, mapped, alone) for layer in self.stack]

    def sequence(self, displacement: Tensor, audio: Tensor, style: Tensor, dropout: float = 0.0) -> Tensor:
        """Features [B, T, Q*C] of all frames, each given the displacements [B, T, V*3] before it (teacher forcing).

        Frame 0 is given a zero displacement: it starts from style + bias of ``vertice_map``, as in the reference.
        """
        embedding = self.vertice_map(F.pad(displacement[:, :-1], (0, 0, 1, 0)))
        return self.run(embedding + self.embed_style(style).unsqueeze(1), audio, dropout)

    def run(self, embedding: Tensor, audio: Tensor, dropout: float = 0.0) -> Tensor:
        """Features [B, T, Q*C] of the inputs' embedding without position [B, T, H] and audio [B, T, A, D]."""
        n_frames = embedding.shape[1]
        x = drop(embedding + self.positions[torch.arange(n_frames, device=embedding.device) % self.period], dropout)
        bias = temporal_bias(self.slopes, n_frames, self.period).to(x.dtype)
        for layer, heard in zip(self.stack, self.hear(audio), strict=True):
            x = run_layer(layer, x, heard, bias, dropout)
        return self.feature_map(x)


def feedback_map(decoder: CodeDecoder, codebook: Codebook) -> tuple[Tensor, Tensor]:
    """``vertice_map`` after the output map of stage 1, as one matrix [H, W] and offset [H]: V*3 is in no loop.

    The output map counts as a constant.
    """
    back, out = decoder.vertice_map, codebook.decoder.output
    return back.weight @ out.weight.detach(), back.bias if out.bias is None else back(out.bias.detach())


class CodeSteps:
    """Prediction frame by frame, for lanes that begin together and advance together.

    After :meth:`advance` has given a frame's features, tell its codes to :meth:`remember`: the motion so far is decoded
    with them, and the newest displacement is the next frame's input. Displacements fed back earlier are never revised,
    though the decoder would now give others.

    Args:
        decoder: stage 2. codebook: stage 1. style: [B, S].
        capacity: frames for which there is room at first; it grows.
        feedback: matrix [H, W] and offset [H]: the output map of stage 1 and ``vertice_map`` in one.
        window: see :class:`~s2f_rl.models.codetalker.prefix.Prefix`.

    Attributes:
        latent: of the newest frame that was remembered, in the decoder of stage 1, before its output map [B, W].
        n_lanes: B.
    """

    def __init__(
        self,
        decoder: CodeDecoder,
        codebook: Codebook,
        style: Tensor,
        capacity: int,
        feedback: tuple[Tensor, Tensor],
        window: int | None = None,
    ) -> None:
        self._decoder, self._codebook, self._feedback = decoder, codebook, feedback
        self._caches = [
            LayerCache(layer, decoder.slopes, decoder.period, len(style), capacity) for layer in decoder.stack
        ]
        self._prefix = Prefix(codebook.decoder, len(style), capacity, window)
        self._style = decoder.embed_style(style)
        self._input = self._style
        self.latent: Tensor | None = None
        self.n_lanes = len(style)

    def advance(self, heard: list[Tensor]) -> Tensor:
        """Features [B, Q, C] of the next frame; ``heard``: :meth:`CodeDecoder.hear` of it, layer by layer [B, ..]."""
        x = self._input + self._decoder.positions[self._caches[0].length % self._decoder.period]
        for cache, own in zip(self._caches, heard, strict=True):
            x = cache.advance(x, own)
        return self._decoder.feature_map(x).unflatten(-1, (self._codebook.codes_per_frame, self._codebook.code_width))

    def remember(self, codes: Tensor) -> None:
        """Feed back the codes [B, Q] of the frame that :meth:`advance` gave last."""
        self.latent = self._prefix.push(self._codebook.vectors(codes))
        self._input = F.linear(self.latent, *self._feedback) + self._style
