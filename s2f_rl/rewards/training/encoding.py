"""How the backbone is run while it trains: in which precision, and with how much kept for the gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from s2f_rl.rewards.model.speech_mesh import SpeechMeshTransformer


class Encoding:
    """Runs one half of a backbone over clips.

    What the gradient needs of a step is most of its memory: 28 MB for a mel clip at the published size. Where it would
    be more than ``limit_bytes``, the clips go through in pieces, and only their features are kept; the backward
    pass runs each piece again (a third more arithmetic, the same gradient).

    Args:
        limit_bytes: kept for the gradient of one call; None: whatever it takes.
        bfloat16: matrix products in bfloat16 (autocast), half the time on processors that have it. Features and
            what is computed from them stay float32.
    """

    def __init__(self, limit_bytes: float | None = None, bfloat16: bool = False) -> None:
        self.limit_bytes, self.bfloat16 = limit_bytes, bfloat16

    def __call__(self, function: Callable[[Tensor], Tensor], clips: Tensor, clip_bytes: int) -> Tensor:
        """``function(clips)``, clips [M, ...] -> features [M, E]; ``clip_bytes`` is what the gradient needs of one."""
        size = len(clips) if self.limit_bytes is None else max(1, int(self.limit_bytes // clip_bytes))
        if size >= len(clips):
            return self._run(function, clips)
        pieces = [
            checkpoint(self._run, function, piece, use_reentrant=False, preserve_rng_state=False)
            for piece in clips.split(size)
        ]
        return torch.cat(pieces)

    def _run(self, function: Callable[[Tensor], Tensor], clips: Tensor) -> Tensor:
        with torch.autocast(clips.device.type, torch.bfloat16, enabled=self.bfloat16):
            return function(clips).float()


def clip_bytes(backbone: SpeechMeshTransformer, n_tokens: int) -> int:
    """Bytes that the gradient needs of a clip of ``n_tokens``: in each block the inputs of two norms, of four products
    and of the attention, and twice the hidden layer, in float32."""
    return 4 * n_tokens * backbone.depth * (9 * backbone.width + 2 * backbone.mlp_width)
