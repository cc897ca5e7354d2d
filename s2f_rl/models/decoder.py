"""FaceFormer's motion decoder: parameters, one post-norm transformer layer in sequence mode and in step mode.

The decoder is written out on the parameters of :class:`torch.nn.TransformerDecoderLayer` (same names, so published
checkpoints load), because step mode needs a key/value cache and because cross-attention sees only the audio of its own
frame: for VOCASET a softmax over one key, that is, a linear map (Fan et al., CVPR 2022, section 3.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def alibi_slopes(n_head: int) -> list[float]:
    """Slopes of the temporal bias by head: 2^(-8k/n) for a power of two (Press et al., 2022; FaceFormer eq. 5)."""

    def powers(n: int) -> list[float]:
        start = 2.0 ** (-(2.0 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]

    if math.log2(n_head).is_integer():
        return powers(n_head)
    lower = 2 ** math.floor(math.log2(n_head))
    return powers(lower) + alibi_slopes(2 * lower)[0::2][: n_head - lower]


def temporal_bias(slopes: Tensor, n_frames: int, period: int) -> Tensor:
    """Additive causal mask [heads, T, T]: -slope * floor(distance / period), -inf for later frames."""
    t = torch.arange(n_frames, device=slopes.device)
    distance = t[:, None] - t[None, :]
    bias = -slopes[:, None, None] * torch.div(distance, period, rounding_mode="floor")
    return bias.masked_fill(distance < 0, -math.inf)


def periodic_positions(width: int, period: int) -> Tensor:
    """One period of FaceFormer's sinusoidal positions [period, width] (eq. 4); frame t uses row t mod period."""
    position = torch.arange(period, dtype=torch.float32)[:, None]
    frequency = torch.exp(torch.arange(0, width, 2).float() * (-math.log(10000.0) / width))
    table = torch.zeros(period, width)
    table[:, 0::2] = torch.sin(position * frequency)
    table[:, 1::2] = torch.cos(position * frequency)
    return table


@dataclass
class StepCache:
    """Keys and values of the frames so far, for one batch of lanes that advance together.

    ``start`` [B] is the cache row at which each lane's utterance begins, so lanes may be reset one by one.
    ``matrix``, ``offset`` fold the feedback W, b and ``vertice_map`` into an H x H map of the latent.
    """

    key: Tensor  # [B, heads, capacity, H / heads]
    value: Tensor
    start: Tensor
    matrix: Tensor
    offset: Tensor
    length: int = 0

    def append(self, key: Tensor, value: Tensor) -> None:
        if key.requires_grad:  # back-propagation through the recursion forbids writing in place
            self.key = torch.cat([self.key[:, :, : self.length], key.unsqueeze(2)], dim=2)
            self.value = torch.cat([self.value[:, :, : self.length], value.unsqueeze(2)], dim=2)
            self.length += 1
            return
        if self.length == self.key.shape[2]:
            oldest = int(self.start.min())
            if oldest >= self.length // 2:  # rows before every lane's start are dead
                self.key, self.value = self.key[:, :, oldest:], self.value[:, :, oldest:]
                self.start, self.length = self.start - oldest, self.length - oldest
            room = max(64, self.length)
            self.key = torch.cat([self.key, self.key.new_zeros(*self.key.shape[:2], room, self.key.shape[3])], dim=2)
            self.value = torch.cat([self.value, torch.zeros_like(self.key[:, :, -room:])], dim=2)
        self.key[:, :, self.length] = key
        self.value[:, :, self.length] = value
        self.length += 1


class MotionDecoder(nn.Module):
    """Audio features, style and the previous frames to the motion latent h [.., H] and the displacement W h + b.

    Args:
        n_outputs: V*3.
        audio_width: D.
        feature_dim: H, decoder width (64 VOCASET, 128 BIWI).
        n_subjects: S.
        period: of positions and of the temporal bias, frames (30 VOCASET, 25 BIWI).
        n_head: attention heads.
        dropout: used by supervised training alone, by the methods that say so; never in rollouts or RL updates.
    """

    positions: Tensor
    slopes: Tensor

    def __init__(
        self,
        n_outputs: int,
        audio_width: int,
        feature_dim: int = 64,
        n_subjects: int = 8,
        period: int = 30,
        n_head: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.n_outputs, self.feature_dim, self.n_subjects = n_outputs, feature_dim, n_subjects
        self.audio_width, self.period, self.n_head, self.dropout = audio_width, period, n_head, dropout
        self.audio_feature_map = nn.Linear(audio_width, feature_dim)
        self.vertice_map = nn.Linear(n_outputs, feature_dim)
        self.vertice_map_r = nn.Linear(feature_dim, n_outputs)
        self.obj_vector = nn.Linear(n_subjects, feature_dim, bias=False)
        self.layer = nn.TransformerDecoderLayer(feature_dim, n_head, 2 * feature_dim, dropout, batch_first=True)
        nn.init.zeros_(self.vertice_map_r.weight)  # as in the reference: an untrained model predicts the template
        nn.init.zeros_(self.vertice_map_r.bias)
        self.register_buffer("positions", periodic_positions(feature_dim, period), persistent=False)
        self.register_buffer("slopes", torch.tensor(alibi_slopes(n_head)), persistent=False)

    # -- parts ---------------------------------------------------------------------------------------------------

    def decode(self, latent: Tensor) -> Tensor:
        """Latent [.., H] to displacement [.., V*3], metres."""
        return self.vertice_map_r(latent)

    def feedback_map(self, detach_output_map: bool = True) -> tuple[Tensor, Tensor]:
        """``vertice_map(W z + b) = M z + c``: returns M [H, H] and c [H].

        With ``detach_output_map`` W and b count as constants: the policy gradient must not train the map from latent
        to face, which belongs to the supervised term.
        """
        weight: Tensor = self.vertice_map_r.weight
        bias: Tensor = self.vertice_map_r.bias
        if detach_output_map:
            weight, bias = weight.detach(), bias.detach()
        return self.vertice_map.weight @ weight, self.vertice_map(bias)

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_head, -1))

    def _drop(self, x: Tensor, dropout: float) -> Tensor:
        return F.dropout(x, dropout) if dropout else x

    def _cross_attention(self, x: Tensor, audio: Tensor, dropout: float) -> Tensor:
        """Query [.., H], audio of the same frame after ``audio_feature_map`` [.., A, H] -> [.., H]."""
        attention = self.layer.multihead_attn
        weight_q, weight_k, weight_v = attention.in_proj_weight.chunk(3)
        bias_q, bias_k, bias_v = attention.in_proj_bias.chunk(3)
        value = F.linear(audio, weight_v, bias_v)
        if audio.shape[-2] == 1:
            mixed = value.squeeze(-2)
            if dropout:  # dropout on the one attention weight of each head
                keep = F.dropout(torch.ones_like(mixed[..., : self.n_head]), dropout)
                mixed = (self._split_heads(mixed) * keep.unsqueeze(-1)).flatten(-2)
        else:
            query = self._split_heads(F.linear(x, weight_q, bias_q))
            key = self._split_heads(F.linear(audio, weight_k, bias_k))
            score = torch.einsum("...hd,...ahd->...ha", query, key) / math.sqrt(query.shape[-1])
            score = self._drop(score.softmax(-1), dropout)
            mixed = torch.einsum("...ha,...ahd->...hd", score, self._split_heads(value)).flatten(-2)
        return attention.out_proj(mixed)

    def _after_self_attention(self, x: Tensor, attended: Tensor, audio: Tensor, dropout: float) -> Tensor:
        layer = self.layer
        x = layer.norm1(x + self._drop(layer.self_attn.out_proj(attended), dropout))
        x = layer.norm2(x + self._drop(self._cross_attention(x, audio, dropout), dropout))
        hidden = self._drop(F.relu(layer.linear1(x)), dropout)
        return layer.norm3(x + self._drop(layer.linear2(hidden), dropout))

    # -- sequence mode -------------------------------------------------------------------------------------------

    def run_sequence(self, embedding: Tensor, audio: Tensor, dropout: float = 0.0) -> Tensor:
        """All frames at once: inputs' embedding without position [B, T, H], audio [B, T, A, D] -> h [B, T, H]."""
        n_frames = embedding.shape[1]
        row = torch.arange(n_frames, device=embedding.device) % self.period
        x = self._drop(embedding + self.positions[row], dropout)
        projected = F.linear(x, self.layer.self_attn.in_proj_weight, self.layer.self_attn.in_proj_bias)
        query, key, value = (self._split_heads(part).transpose(1, 2) for part in projected.chunk(3, dim=-1))
        bias = temporal_bias(self.slopes, n_frames, self.period).to(query.dtype)
        attended = F.scaled_dot_product_attention(query, key, value, bias[None], dropout_p=dropout)
        return self._after_self_attention(
            x, attended.transpose(1, 2).flatten(-2), self.audio_feature_map(audio), dropout
        )

    def sequence(self, latent: Tensor, audio: Tensor, style: Tensor, dropout: float = 0.0) -> Tensor:
        """Means h [B, T, H] given the latents of the same frames [B, T, H] (autoregressive semantics).

        Frame t sees the latents before t only: they are mapped, then shifted right by one; frame 0 starts from the
        style vector alone. ``style`` [B, S]; the latents' gradient is kept if they have one.
        """
        matrix, offset = self.feedback_map()
        embedding = F.pad(F.linear(latent[:, :-1], matrix, offset), (0, 0, 1, 0))
        return self.run_sequence(embedding + self.obj_vector(style).unsqueeze(1), audio, dropout)

    def sequence_from_displacements(
        self, displacement: Tensor, audio: Tensor, style: Tensor, first_input: str, dropout: float = 0.0
    ) -> Tensor:
        """Means h [B, T, H] given displacements [B, T, V*3]; ``first_input`` is what frame 0 sees.

        ``"style"``: the style vector alone (autoregressive semantics). ``"template"``: a zero displacement through
        ``vertice_map``, so style + its bias (the reference's teacher forcing; the two differ already at frame 0).
        """
        embedding = self.vertice_map(displacement[:, :-1])
        first = self.vertice_map.bias if first_input == "template" else torch.zeros_like(self.vertice_map.bias)
        embedding = torch.cat([first.expand(len(displacement), 1, -1), embedding], dim=1)
        return self.run_sequence(embedding + self.obj_vector(style).unsqueeze(1), audio, dropout)

    # -- step mode -----------------------------------------------------------------------------------------------

    def new_cache(self, n_lanes: int, capacity: int = 64) -> StepCache:
        """An empty cache for ``n_lanes`` lanes; folds the feedback map with the current parameters."""
        shape = (n_lanes, self.n_head, capacity, self.feature_dim // self.n_head)
        weight = self.vertice_map.weight
        matrix, offset = self.feedback_map()
        return StepCache(
            weight.new_zeros(shape),
            weight.new_zeros(shape),
            torch.zeros(n_lanes, dtype=torch.int64, device=weight.device),
            matrix,
            offset,
        )

    def run_step(self, embedding: Tensor, audio: Tensor, cache: StepCache, dropout: float = 0.0) -> Tensor:
        """One frame: input embedding [B, H] without position, audio [B, A, D] -> h [B, H]; appends to the cache.

        A lane starts anew by setting its ``cache.start`` to ``cache.length`` beforehand.
        """
        position = self.positions[(cache.length - cache.start) % self.period]
        x = self._drop(embedding + position, dropout)
        projected = F.linear(x, self.layer.self_attn.in_proj_weight, self.layer.self_attn.in_proj_bias)
        query, key, value = (self._split_heads(part) for part in projected.chunk(3, dim=-1))
        cache.append(key, value)
        n = cache.length
        distance = torch.arange(n - 1, -1, -1, device=x.device)
        bias = (-self.slopes[:, None] * (distance // self.period)).to(query.dtype)
        score = torch.einsum("bhd,bhjd->bhj", query, cache.key[:, :, :n]) / math.sqrt(query.shape[-1]) + bias
        dead = torch.arange(n, device=x.device) < cache.start[:, None]
        score = score.masked_fill(dead[:, None], -math.inf)
        weight = self._drop(score.softmax(-1), dropout)
        attended = torch.einsum("bhj,bhjd->bhd", weight, cache.value[:, :, :n]).flatten(-2)
        return self._after_self_attention(x, attended, self.audio_feature_map(audio), dropout)
