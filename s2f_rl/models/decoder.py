"""FaceFormer's motion decoder: parameters, one post-norm transformer layer in sequence mode and in step mode.

The layer is written out (:mod:`~s2f_rl.models.decoder_layer`), because step mode needs a key/value cache and because
cross-attention sees only the audio of its own frame: for VOCASET a softmax over one key, that is, a linear map (Fan et
al., CVPR 2022, section 3.2).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from s2f_rl.models.decoder_layer import drop, heard_by, run_layer
from s2f_rl.models.decoder_layer import temporal_bias as temporal_bias  # where it was until 0.1
from s2f_rl.models.decoder_parts import DecoderParts
from s2f_rl.models.decoder_parts import alibi_slopes as alibi_slopes  # where they were until 0.1
from s2f_rl.models.decoder_parts import periodic_positions as periodic_positions
from s2f_rl.models.step_cache import StepCache


class MotionDecoder(DecoderParts):
    """Audio features, style and the previous frames to the motion latent h [.., H] and the displacement W h + b.

    Arguments are those of :class:`~s2f_rl.models.decoder_parts.DecoderParts`.
    """

    # -- parts ---------------------------------------------------------------------------------------------------

    def hear(self, audio: Tensor) -> Tensor:
        """What cross-attention keeps of the audio [.., A, D], which no motion changes: do it for all frames at once.

        Returns:
            values [.., H] where A is 1, else keys and values, see :func:`~s2f_rl.models.decoder_layer.heard_by`.
        """
        alone = audio.shape[-2] == 1
        return heard_by(self.layer, self.audio_feature_map(audio.squeeze(-2) if alone else audio), alone)

    # -- sequence mode -------------------------------------------------------------------------------------------

    def run_sequence(self, embedding: Tensor, audio: Tensor, dropout: float = 0.0) -> Tensor:
        """All frames at once: inputs' embedding without position [B, T, H], audio [B, T, A, D] -> h [B, T, H]."""
        n_frames = embedding.shape[1]
        row = torch.arange(n_frames, device=embedding.device) % self.period
        x = drop(embedding + self.positions[row], dropout)
        bias = temporal_bias(self.slopes, n_frames, self.period).to(x.dtype)
        return run_layer(self.layer, x, self.hear(audio), bias, dropout)

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
        return cache.advance(drop(embedding + cache.position(), dropout), heard, dropout)


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
