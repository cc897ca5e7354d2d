"""FaceFormer's motion decoder: parameters, one post-norm transformer layer in sequence mode and in step mode.

The decoder is written out on the parameters of :class:`torch.nn.TransformerDecoderLayer` (same names, so published
checkpoints load), because step mode needs a key/value cache and because cross-attention sees only the audio of its own
frame: for VOCASET a softmax over one key, that is, a linear map (Fan et al., CVPR 2022, section 3.2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from s2f_rl.models.decoder_parts import DecoderParts
from s2f_rl.models.decoder_parts import alibi_slopes as alibi_slopes  # where they were until 0.1
from s2f_rl.models.decoder_parts import periodic_positions as periodic_positions
from s2f_rl.models.step_cache import StepCache


def temporal_bias(slopes: Tensor, n_frames: int, period: int) -> Tensor:
    """Additive causal mask [heads, T, T]: -slope * floor(distance / period), -inf for later frames."""
    t = torch.arange(n_frames, device=slopes.device)
    distance = t[:, None] - t[None, :]
    bias = -slopes[:, None, None] * torch.div(distance, period, rounding_mode="floor")
    return bias.masked_fill(distance < 0, -math.inf)


class MotionDecoder(DecoderParts):
    """Audio features, style and the previous frames to the motion latent h [.., H] and the displacement W h + b.

    Arguments are those of :class:`~s2f_rl.models.decoder_parts.DecoderParts`.
    """

    # -- parts ---------------------------------------------------------------------------------------------------

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_head, -1))

    def _drop(self, x: Tensor, dropout: float) -> Tensor:
        return F.dropout(x, dropout) if dropout else x

    def hear(self, audio: Tensor) -> Tensor:
        """What cross-attention keeps of the audio [.., A, D], which no motion changes: do it for all frames at once.

        Returns:
            values [.., H] where A is 1 (a softmax over one key weighs nothing), else keys and values
            [.., 2, heads, A, H / heads].
        """
        attention, alone = self.layer.multihead_attn, audio.shape[-2] == 1
        first = (2 if alone else 1) * self.feature_dim
        mapped = self.audio_feature_map(audio.squeeze(-2) if alone else audio)
        heard = F.linear(mapped, attention.in_proj_weight[first:], attention.in_proj_bias[first:])
        return heard if alone else heard.unflatten(-1, (2, self.n_head, -1)).movedim(-4, -2)

    def _mix(self, x: Tensor, heard: Tensor, dropout: float) -> Tensor:
        """Cross-attention of x [.., H] to what :meth:`hear` made of its own frame, before the output map -> [.., H]."""
        if heard.ndim == x.ndim:
            if dropout:  # dropout on the one attention weight of each head
                keep = F.dropout(torch.ones_like(heard[..., : self.n_head]), dropout)
                heard = (self._split_heads(heard) * keep.unsqueeze(-1)).flatten(-2)
            return heard
        attention, width = self.layer.multihead_attn, self.feature_dim
        query = self._split_heads(F.linear(x, attention.in_proj_weight[:width], attention.in_proj_bias[:width]))
        key, value = heard.unbind(-4)
        score = (query.unsqueeze(-2) * key).sum(-1) / math.sqrt(query.shape[-1])
        score = self._drop(score.softmax(-1), dropout)
        return (score.unsqueeze(-1) * value).sum(-2).flatten(-2)

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
        layer, attended = self.layer, attended.transpose(1, 2).flatten(-2)
        x = layer.norm1(x + self._drop(layer.self_attn.out_proj(attended), dropout))
        mixed = layer.multihead_attn.out_proj(self._mix(x, self.hear(audio), dropout))
        x = layer.norm2(x + self._drop(mixed, dropout))
        hidden = self._drop(F.relu(layer.linear1(x)), dropout)
        return layer.norm3(x + self._drop(layer.linear2(hidden), dropout))

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

    # -- what a policy asks, see MotionSource ----------------------------------------------------------------------

    embeds_displacements = True
    capturable = True

    @property
    def latent_width(self) -> int:
        """H."""
        return self.feature_dim

    def steps(
        self, style: Tensor, capacity: int = 64, displacements: bool = False, train_output_map: bool = False
    ) -> FrameSteps:
        """Step mode from the first frame on; see :meth:`s2f_rl.models.contract.MotionSource.steps`."""
        return FrameSteps(self, style, capacity, displacements, train_output_map)

    # -- step mode -----------------------------------------------------------------------------------------------

    def new_cache(self, n_lanes: int, capacity: int = 64) -> StepCache:
        """An empty cache for ``n_lanes`` lanes; folds the feedback map with the current parameters."""
        return StepCache(self, n_lanes, capacity)

    def run_step(self, embedding: Tensor, heard: Tensor, cache: StepCache, dropout: float = 0.0) -> Tensor:
        """One frame: input embedding [B, H] without position, :meth:`hear` of its audio -> h [B, H].

        Appends to the cache. A lane starts anew by :meth:`StepCache.restart` beforehand.
        """
        x = self._drop(embedding + cache.position(), dropout)
        attended = cache.attend(cache.attention_in(x), dropout)
        x = cache.norm(0, x + self._drop(cache.attention_out(attended), dropout))
        x = cache.norm(1, x + self._drop(cache.cross_out(self._mix(x, heard, dropout)), dropout))
        hidden = self._drop(torch.relu(cache.linear1(x)), dropout)
        return cache.norm(2, x + self._drop(cache.linear2(hidden), dropout))


class FrameSteps:
    """The decoder frame by frame, what was drawn going back in; see :class:`s2f_rl.models.contract.Steps`.

    Folds the decoder's parameters when it is made and when a lane restarts: a rollout has one policy.
    """

    def __init__(
        self, decoder: MotionDecoder, style: Tensor, capacity: int, displacements: bool, train_output_map: bool
    ) -> None:
        self.decoder, self.displacements, self.n_lanes = decoder, displacements, len(style)
        self.cache = decoder.new_cache(len(style), capacity)
        if train_output_map:
            self.cache.feedback = decoder.feedback(detach_output_map=False)
        self._style = decoder.obj_vector(style)

    def restart(self, lanes: Tensor, style: Tensor) -> None:
        """As in the contract; the other lanes go on with the present parameters."""
        self.cache.restart(lanes)
        self._style = self.decoder.obj_vector(style)

    def hear(self, features: Tensor) -> Tensor:
        """:meth:`MotionDecoder.hear`."""
        return self.decoder.hear(features)

    def advance(self, heard: Tensor, previous: Tensor | None, first: Tensor | None) -> Tensor:
        """As in the contract."""
        embedding = self._style
        if previous is not None:
            fed_back = self.decoder.vertice_map(previous) if self.displacements else self.cache.feedback(previous)
            if first is not None:
                fed_back = torch.where(first, torch.zeros_like(fed_back), fed_back)
            embedding = embedding + fed_back
        return self.decoder.run_step(embedding, heard, self.cache)
