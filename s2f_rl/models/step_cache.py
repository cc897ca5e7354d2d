"""What the decoder remembers between the frames of a rollout: keys and values, and everything that is the same for all.

A frame is some twenty products of a few thousand numbers, so what counts is how many operations there are: transposed
weights, the temporal bias and the positions are laid out once per cache, and lanes cost something only after one of
them began later than the others.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from s2f_rl.models.decoder_layer import DecoderLayer, drop, mix
from s2f_rl.models.decoder_parts import Affine, DecoderParts, alibi_slopes


def horizons(slopes: list[float], period: int, dtype: torch.dtype = torch.float32) -> list[int]:
    """Frames that each head looks back: those before weigh less than the last bit, where all scores are equal.

    A frame of age a weighs exp(-slope * floor(a / period)), so all beyond m periods weigh exp(-slope * m) together.
    """
    last_bit = min(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    return [period * math.ceil(-math.log(last_bit) / slope) for slope in slopes]


class LayerCache:
    """Keys and values of one layer for the frames so far, for one batch of lanes that advance together.

    A head forgets frames so old that all of them together weigh less than the last bit of a float32, if their scores
    are like the others': at 30 fps with 4 heads after 64 s, 4, 17 and 68 minutes. Until then nothing is cut. So a frame
    costs the most after 68 minutes, and memory stays below 130 MB a lane; :meth:`forget_after` cuts sooner.

    Folds the layer's parameters when it is made and when a lane restarts: a rollout has one policy. With gradient
    enabled they stay in the graph.

    Args:
        layer: whose step mode it serves.
        slopes: of the temporal bias [heads]. period: its frames.
        n_lanes: B.
        capacity: frames for which there is room at first; it grows.

    Attributes:
        start: [B], the frame at which each lane's utterance begins, so lanes may be reset one by one (:meth:`restart`).
        length: frames so far.
    """

    def __init__(self, layer: DecoderLayer, slopes: Tensor, period: int, n_lanes: int, capacity: int) -> None:
        self._layer, self._slopes, self._period, self._n_head = layer, slopes, period, len(slopes)
        self._fold()
        weight = layer.linear1.weight
        self.start = torch.zeros(n_lanes, dtype=torch.int64, device=weight.device)
        self.length = 0
        self._restarted = False  # some lane may have begun later than the others
        self._horizons = horizons(alibi_slopes(self._n_head), period, weight.dtype)
        width = layer.self_attn.embed_dim // self._n_head
        self._store = weight.new_zeros(2, n_lanes * self._n_head, max(1, capacity), width)  # keys and values
        self._lay_out_bias(self._store.shape[2])

    def _fold(self) -> None:
        layer = self._layer
        self.attention_in = Affine(layer.self_attn.in_proj_weight.t(), layer.self_attn.in_proj_bias)
        self.attention_out, self.cross_out, self.linear1, self.linear2 = (
            Affine(linear.weight.t(), linear.bias)
            for linear in (layer.self_attn.out_proj, layer.multihead_attn.out_proj, layer.linear1, layer.linear2)
        )
        norms = (layer.norm1, layer.norm2, layer.norm3)
        self._norms = [(norm.normalized_shape, norm.weight, norm.bias, norm.eps) for norm in norms]

    def _lay_out_bias(self, n_frames: int) -> None:
        """The temporal bias of frames by their age, the oldest first: [B * heads, 1, n_frames]."""
        age = torch.arange(n_frames - 1, -1, -1, device=self.start.device)
        bias = -self._slopes[:, None] * (age // self._period)
        self._bias = bias.to(self._store.dtype).repeat(len(self.start), 1).unsqueeze(1)

    def restart(self, lanes: Tensor) -> None:
        """Let ``lanes`` [B] (bool) begin a new utterance with the next frame; all go on with the present parameters."""
        self.start = torch.where(lanes, self.length, self.start)
        self._restarted = True
        self._fold()

    def advance(self, x: Tensor, heard: Tensor, dropout: float = 0.0) -> Tensor:
        """The next frame: x [B, H], :func:`~s2f_rl.models.decoder_layer.heard_by` of its audio -> [B, H]."""
        attended = self.attend(self.attention_in(x), dropout)
        x = self.norm(0, x + drop(self.attention_out(attended), dropout))
        x = self.norm(1, x + drop(self.cross_out(mix(self._layer, x, heard, dropout)), dropout))
        hidden = drop(torch.relu(self.linear1(x)), dropout)
        return self.norm(2, x + drop(self.linear2(hidden), dropout))

    def forget_after(self, n_frames: int) -> None:
        """Look back ``n_frames`` at most, at least one: a frame then costs the same however long the rollout lasts."""
        self._horizons = [min(horizon, max(1, n_frames)) for horizon in self._horizons]

    def norm(self, which: int, x: Tensor) -> Tensor:
        """The decoder layer's norm 1 to 3 (``which`` from 0)."""
        return torch.layer_norm(x, *self._norms[which])

    def attend(self, projected: Tensor, dropout: float = 0.0) -> Tensor:
        """Append the next frame and attend from it to all of its utterance: query, key and value [B, 3H] -> [B, H]."""
        n_lanes, n_head = len(projected), self._n_head
        parts = projected.view(n_lanes, 3, n_head, -1).transpose(0, 1).reshape(3, n_lanes * n_head, -1)
        self._append(parts[1:])
        query, n, end = parts[:1].transpose(0, 1), self.length, self._bias.shape[2]
        if n > min(self._horizons) < max(self._horizons):  # head by head, as far back as each looks
            attended = []
            for head, horizon in enumerate(self._horizons):
                own, seen = slice(head, None, n_head), min(n, horizon)
                store, bias = self._store[:, own, n - seen : n], self._bias[own, :, end - seen :]
                attended.append(self._look(query[own], store, bias, dropout))
            return torch.cat(attended, 1).flatten(1)
        seen = min(n, self._horizons[0])
        store, bias = self._store[:, :, n - seen : n], self._bias[:, :, end - seen :]
        return self._look(query, store, bias, dropout).view(n_lanes, -1)

    def _look(self, query: Tensor, store: Tensor, bias: Tensor, dropout: float) -> Tensor:
        """Attention of queries [rows, 1, H / heads] to the last n frames: store [2, rows, n, ..], bias [rows, 1, n]."""
        keys, values = store.unbind(0)
        score = torch.baddbmm(bias, query, keys.transpose(1, 2), alpha=1 / math.sqrt(keys.shape[-1]))
        if self._restarted:
            first = self.length - keys.shape[1]
            dead = torch.arange(first, self.length, device=score.device) < self.start[:, None, None]
            score = score.unflatten(0, (len(dead), -1)).masked_fill(dead.unsqueeze(1), -math.inf).flatten(0, 1)
        weight = score.softmax(-1)
        if dropout:
            weight = torch.dropout(weight, dropout, True)
        return torch.bmm(weight, values)

    def _append(self, new: Tensor) -> None:
        """Keep keys and values [2, B * heads, H / heads] of one more frame."""
        if new.requires_grad:  # back-propagation through the recursion forbids writing in place
            self._store = torch.cat([self._store[:, :, : self.length], new.unsqueeze(2)], dim=2)
        else:
            if self.length == self._store.shape[2]:
                self._make_room()
            self._store[:, :, self.length] = new
        self.length += 1
        if self.length > self._bias.shape[2]:
            self._lay_out_bias(2 * self.length)

    def _make_room(self) -> None:
        # rows before every lane's start are dead, and those that all heads forget (whole periods: positions go on)
        old = (self.length - max(self._horizons)) // self._period * self._period
        dead = max(int(self.start.min()), old)
        if dead >= self.length // 2:
            self._store = self._store[:, :, dead:]
            self.start, self.length = self.start - dead, self.length - dead
        room = self._store.new_zeros(*self._store.shape[:2], max(64, self.length), self._store.shape[3])
        self._store = torch.cat([self._store, room], dim=2)


class StepCache(LayerCache):
    """What FaceFormer's decoder remembers: its layer's cache, the positions, and the way back of a latent as an input.

    Args:
        decoder: whose step mode it serves. n_lanes, capacity: see :class:`LayerCache`.

    Attributes:
        feedback: W, b and ``vertice_map`` folded into an H x H map of the latent; replace it to feed back otherwise.
    """

    def __init__(self, decoder: DecoderParts, n_lanes: int, capacity: int) -> None:
        self._decoder = decoder
        super().__init__(decoder.layer, decoder.slopes, decoder.period, n_lanes, capacity)
        self.positions, self._position_rows = decoder.positions, decoder.positions.unbind(0)

    def _fold(self) -> None:
        self.feedback = self._decoder.feedback()
        super()._fold()

    def position(self) -> Tensor:
        """Positional encoding of the next frame: [H] while all lanes began together, else [B, H]."""
        if self._restarted:
            return self.positions[(self.length - self.start) % self._period]
        return self._position_rows[self.length % self._period]
