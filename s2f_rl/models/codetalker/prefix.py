"""The newest frame of a motion that grows: what the published prediction finds by decoding all codes again.

Of the decoder of stage 1, the maps of single frames and the convolution are kept: a new frame changes the convolution's
last three outputs. The norm over time and the transformer, in which every frame sees the new one, run again; the last
block and the map to vertices for the newest frame alone. The result is the same.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from s2f_rl.models.codetalker.codebook import CodesDecoder
from s2f_rl.models.codetalker.frame_mixer import KERNEL

_REACH = KERNEL // 2


class Prefix:
    """The frames so far of B lanes that advance together, in the decoder of stage 1.

    Args:
        decoder: of the codebook.
        n_lanes: B.
        capacity: frames for which there is room at first; it grows.
        window: frames that the transformer sees, the newest ones; None: all, which is exact and costs more with every
            frame. The convolution and the norm over time see all frames in any case.
    """

    def __init__(self, decoder: CodesDecoder, n_lanes: int, capacity: int, window: int | None = None) -> None:
        self.decoder, self.window, self.length = decoder, window, 0
        weight = decoder.output.weight
        self._inputs = weight.new_zeros(n_lanes, capacity, weight.shape[1])
        self._convolved = torch.zeros_like(self._inputs)

    def push(self, vectors: Tensor) -> Tensor:
        """Code vectors [B, Q*C] of one more frame -> its latent [B, W], which the decoder's output map decodes."""
        mixer, newest = self.decoder.mixer, self.length
        if newest == self._inputs.shape[1]:
            room = (0, 0, 0, max(1, newest))
            self._inputs, self._convolved = F.pad(self._inputs, room), F.pad(self._convolved, room)
        self._inputs[:, newest] = self.decoder.input(vectors)
        self.length += 1
        first = max(0, newest - _REACH)  # before it, outputs see no replicated end
        seen = torch.arange(first - _REACH, self.length + _REACH, device=vectors.device).clamp(0, newest)
        self._convolved[:, first : self.length] = mixer.convolved(self._inputs[:, seen])
        return mixer.transformed(self._convolved[:, : self.length], window=self.window, newest=True)[:, 0]
