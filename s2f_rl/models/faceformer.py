"""FaceFormer (Fan et al., CVPR 2022): speech and a template to an animated face."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from s2f_rl.data.coefficients.controls import Controls
from s2f_rl.data.coefficients.rig import Rig
from s2f_rl.errors import UserError
from s2f_rl.models import reference
from s2f_rl.models.audio_encoders import AudioEncoder
from s2f_rl.models.decoder import MotionDecoder
from s2f_rl.models.latent_actor import LatentActor, frame_bar
from s2f_rl.threads import one_thread


class FaceFormer(LatentActor):
    """Audio encoder plus motion decoder; see :class:`~s2f_rl.models.contract.Actor`.

    Args:
        audio_encoder: any :class:`AudioEncoder`; its clock is the actor's.
        n_vertices: V.
        feature_dim: H, decoder width (64 VOCASET, 128 BIWI).
        n_subjects: S, training subjects (style columns).
        period: of positions and temporal bias, frames; one second when None (30 VOCASET, 25 BIWI).
        n_head: attention heads of the decoder.
        dropout: in supervised training mode only (0.1 in the reference).
        n_coefficients: K, of a rig that it animates (give its shapes by :meth:`use_rig`); None: vertices.

    Attributes:
        styles: names of the style columns; None where they are not known (published weights).
        mesh_identity: which mesh it animates; None where only the number of vertices is known.
        controls: of the rig that it animates; None where it animates vertices.
    """

    kind = "faceformer"

    def __init__(
        self,
        audio_encoder: AudioEncoder,
        n_vertices: int,
        feature_dim: int = 64,
        n_subjects: int = 8,
        period: int | None = None,
        n_head: int = 4,
        dropout: float = 0.1,
        n_coefficients: int | None = None,
    ) -> None:
        super().__init__(audio_encoder, n_vertices, n_subjects)
        period = round(audio_encoder.clock.fps) if period is None else period
        self.decoder = MotionDecoder(
            3 * n_vertices, audio_encoder.width, feature_dim, n_subjects, period, n_head, dropout,
            n_coefficients,
        )  # fmt: skip

    # -- construction --------------------------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """Plain containers from which :meth:`from_config` builds an equal (untrained) model."""
        d = self.decoder
        own = {"feature_dim": d.feature_dim, "period": d.period, "n_head": d.n_head, "dropout": d.dropout}
        if d.basis is not None:
            own["n_coefficients"] = len(d.basis)
        return super().config() | own

    @classmethod
    def from_reference(
        cls,
        state_dict: Mapping[str, Tensor],
        topology: str = "vocaset",
        period: int | None = None,
        audio_config: Mapping[str, object] | None = None,
    ) -> FaceFormer:
        """Build from a published FaceFormer checkpoint; sizes are read off the tensors.

        Args:
            state_dict: the published names and shapes (both spellings of weight norm; ``PPE.pe`` and a ``module.``
                prefix are accepted and ignored).
            topology: ``"vocaset"`` or ``"biwi"``.
            period: of positions and temporal bias; one second (30 or 25 frames) when None.
            audio_config: wav2vec2 settings (:class:`transformers.Wav2Vec2Config` keywords); None means wav2vec2-base.

        Raises:
            UserError: names the tensors that are missing, superfluous or of the wrong shape.
        """
        return reference.build_from_reference(cls, state_dict, topology, period, dict(audio_config or {}))

    def to_reference(self) -> dict[str, Tensor]:
        """State dict with the names and shapes of the published checkpoints (transformers 5 weight-norm spelling)."""
        tensors = self.state_dict()
        if self.decoder.basis is not None:  # the published layout has vertices
            del tensors["decoder.basis"], tensors["decoder.metres_per_coefficient"]
            weight, bias = self.decoder.linear_decode
            tensors |= {"decoder.vertice_map_r.weight": weight, "decoder.vertice_map_r.bias": bias}
        return reference.to_reference(tensors, self.decoder.period)

    @torch.no_grad()
    def to_metres(self, metres_per_unit: float) -> FaceFormer:
        """Turn an actor of meshes in another unit into one of metres, in place: the same faces, other numbers.

        Published BIWI weights animate faces in a unit of about 0.186 m.
        """
        if metres_per_unit != 1.0:
            self.decoder.vertice_map.weight.div_(metres_per_unit)
            self.decoder.vertice_map_r.weight.mul_(metres_per_unit)
            self.decoder.vertice_map_r.bias.mul_(metres_per_unit)
        return self

    def use_rig(self, rig: Rig) -> FaceFormer:
        """Animate a rig of the ``n_coefficients`` and vertices that this actor was made for. In place."""
        self.decoder.set_basis(rig.basis.matrix)
        self.controls = Controls.of(rig)
        return self

    def coefficients(self, latents: Tensor) -> Tensor:
        """Coefficients [.., K] of latents [.., H], as they are: :meth:`Controls.clamped` brings them within bounds.

        Raises UserError where the actor animates vertices.
        """
        unit = self.decoder.metres_per_coefficient
        if unit is None:
            raise UserError("this actor animates vertices and has no coefficients; train it on a corpus that has them")
        return self.decoder.vertice_map_r(latents) / unit

    # -- the ways to run it ----------------------------------------------------------------------------------------

    def generate(
        self,
        features: Tensor,
        style: Tensor,
        lengths: list[int] | Tensor | None = None,
        *,
        noise: Tensor | None = None,
        dropout: float = 0.0,
        progress: bool = False,
    ) -> Tensor:
        """Autoregressive latents [B, T, H] from features [B, T, A, D] and style [B, S].

        The embedding of the fed-back frame is linear, so the recursion runs in H dimensions and never touches the
        vertices: z_t = h(z_<t) + noise_t, fed back as M z + c (see :meth:`MotionDecoder.feedback_map`).

        Args:
            lengths: of no account: a frame never sees a later one. Noise stood here until 0.1, and is still taken.
            noise: [B, T, H] added to the mean at each frame; None gives the means.
            dropout: for supervised training.
        """
        if isinstance(lengths, Tensor) and lengths.ndim == 3:
            warnings.warn("generate takes its noise by name: noise=...", FutureWarning, stacklevel=2)
            noise = lengths
        decoder = self.decoder
        style_embedding = decoder.obj_vector(style)
        cache = decoder.new_cache(len(features), capacity=features.shape[1])
        if torch.is_grad_enabled():  # supervised training back-propagates through W as well
            cache.feedback = decoder.feedback(detach_output_map=False)
        embedding = style_embedding
        latents = []
        with one_thread():  # not what the cache folds, which is a product over all vertices
            for t, heard in enumerate(frame_bar(decoder.hear(features).unbind(1), progress)):
                latent = decoder.run_step(embedding, heard, cache, dropout)
                if noise is not None:
                    latent = latent + noise[:, t]
                latents.append(latent)
                embedding = cache.feedback(latent) + style_embedding
        return torch.stack(latents, dim=1) if latents else features.new_zeros(len(features), 0, decoder.feature_dim)

    def imitate(self, features: Tensor, style: Tensor, truth: Tensor, teacher_forced: bool) -> Tensor:
        """See :meth:`s2f_rl.models.contract.Actor.imitate`."""
        dropout = self._training_dropout()
        if teacher_forced:
            latent = self.decoder.sequence_from_displacements(truth, features, style, "template", dropout)
        else:
            latent = self.generate(features, style, dropout=dropout)
        return self.decode(latent)

    def _training_dropout(self) -> float:
        return self.decoder.dropout if self.training else 0.0

    def teacher_forced(self, waveform: Tensor, template: Tensor, style: Tensor, vertices: Tensor) -> Tensor:
        """The reference's teacher-forced prediction [B, T', V*3] for ground truth [B, T, V*3] (metres).

        Audio features are stretched (VOCASET) or cut (BIWI) to T frames. T' = T, except for BIWI when the speech is
        shorter than the ground truth, which is then cut to it. In training mode dropout is on. Frame 0's input is
        style + bias of ``vertice_map``, unlike :meth:`autoregressive`.
        """
        template, vertices = self.flat(template, "template"), self.flat(vertices, "vertices")
        audio = self.encode(waveform, vertices.shape[1])
        displacement = vertices[:, : audio.shape[1]] - template.unsqueeze(1)
        latent = self.decoder.sequence_from_displacements(
            displacement, audio, self.checked_style(style), "template", self._training_dropout()
        )
        return self.decoder.decode(latent) + template.unsqueeze(1)

    def autoregressive(self, waveform: Tensor, template: Tensor, style: Tensor, n_frames: int) -> Tensor:
        """The reference's autoregressive prediction [B, T', V*3] with a given frame count (metres).

        T' = ``n_frames``, or fewer for BIWI when the speech is shorter. In training mode dropout is on and the
        gradient runs through the whole recursion.
        """
        template = self.flat(template, "template")
        audio = self.encode(waveform, n_frames)
        latent = self.generate(audio, self.checked_style(style), dropout=self._training_dropout())
        return self.decoder.decode(latent) + template.unsqueeze(1)
