"""One post-norm decoder layer whose frames see the frames before them and the audio of their own frame alone.

Written out on the parameters of :class:`torch.nn.TransformerDecoderLayer` (same names, so published checkpoints load);
frame by frame it runs in a :class:`~s2f_rl.models.step_cache.LayerCache`. FaceFormer has one such layer, CodeTalker
several.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DecoderLayer = nn.TransformerDecoderLayer


def temporal_bias(slopes: Tensor, n_frames: int, period: int) -> Tensor:
    """Additive causal mask [heads, T, T]: -slope * floor(distance / period), -inf for later frames."""
    t = torch.arange(n_frames, device=slopes.device)
    distance = t[:, None] - t[None, :]
    bias = -slopes[:, None, None] * torch.div(distance, period, rounding_mode="floor")
    return bias.masked_fill(distance < 0, -math.inf)


def drop(x: Tensor, dropout: float) -> Tensor:
    """Dropout, also outside training mode; nothing at 0."""
    return F.dropout(x, dropout) if dropout else x


def heard_by(layer: DecoderLayer, audio: Tensor, alone: bool) -> Tensor:
    """What the layer's cross-attention keeps of the audio, which no motion changes.

    Args:
        audio: mapped to the decoder's width: [.., H] where a frame has one feature (``alone``), else [.., A, H].

    Returns:
        values [.., H] where a frame has one feature (a softmax over one key weighs nothing), else keys and values
        [.., 2, heads, A, H / heads].
    """
    attention = layer.multihead_attn
    first = (2 if alone else 1) * attention.embed_dim
    heard = F.linear(audio, attention.in_proj_weight[first:], attention.in_proj_bias[first:])
    return heard if alone else heard.unflatten(-1, (2, attention.num_heads, -1)).movedim(-4, -2)


def mix(layer: DecoderLayer, x: Tensor, heard: Tensor, dropout: float) -> Tensor:
    """Cross-attention of x [.., H] to :func:`heard_by` of its own frame, before the output map -> [.., H]."""
    attention, n_head = layer.multihead_attn, layer.multihead_attn.num_heads
    if heard.ndim == x.ndim:
        if dropout:  # dropout on the one attention weight of each head
            keep = F.dropout(torch.ones_like(heard[..., :n_head]), dropout)
            heard = (heard.unflatten(-1, (n_head, -1)) * keep.unsqueeze(-1)).flatten(-2)
        return heard
    width = attention.embed_dim
    query = F.linear(x, attention.in_proj_weight[:width], attention.in_proj_bias[:width]).unflatten(-1, (n_head, -1))
    key, value = heard.unbind(-4)
    score = (query.unsqueeze(-2) * key).sum(-1) / math.sqrt(query.shape[-1])
    score = drop(score.softmax(-1), dropout)
    return (score.unsqueeze(-1) * value).sum(-2).flatten(-2)


def run_layer(layer: DecoderLayer, x: Tensor, heard: Tensor, bias: Tensor, dropout: float = 0.0) -> Tensor:
    """All frames at once: x [B, T, H], :func:`heard_by` of their audio, ``bias`` [heads, T, T] -> [B, T, H]."""
    attention = layer.self_attn
    projected = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    query, key, value = (
        part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in projected.chunk(3, dim=-1)
    )
    attended = F.scaled_dot_product_attention(query, key, value, bias[None], dropout_p=dropout)
    attended = attended.transpose(1, 2).flatten(-2)
    x = layer.norm1(x + drop(attention.out_proj(attended), dropout))
    x = layer.norm2(x + drop(layer.multihead_attn.out_proj(mix(layer, x, heard, dropout)), dropout))
    hidden = drop(F.relu(layer.linear1(x)), dropout)
    return layer.norm3(x + drop(layer.linear2(hidden), dropout))
