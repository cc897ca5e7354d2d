"""FaceFormer (Fan et al., CVPR 2022): speech and a template to an animated face."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from s2f_rl.data.mesh_identity import MeshIdentity
from s2f_rl.errors import UserError
from s2f_rl.models import reference
from s2f_rl.models.audio_encoders import AudioEncoder, build_audio_encoder
from s2f_rl.models.decoder import MotionDecoder
from s2f_rl.threads import one_thread


def flat_mesh(mesh: Tensor, n_outputs: int, name: str) -> Tensor:
    """Bring a mesh given as [.., V*3] or [.., V, 3] to [.., V*3]; a wrong size raises :class:`UserError`."""
    if mesh.shape[-1] == 3 and mesh.ndim > 1 and mesh.shape[-2] * 3 == n_outputs:
        mesh = mesh.flatten(-2)
    if mesh.shape[-1] != n_outputs:
        raise UserError(
            f"{name} has shape {tuple(mesh.shape)}: the model animates {n_outputs // 3} vertices; use a corpus or "
            "template of the mesh that the checkpoint was trained on"
        )
    return mesh


class FaceFormer(nn.Module):
    """Audio encoder plus motion decoder.

    Args:
        audio_encoder: any :class:`AudioEncoder`; its clock is the actor's.
        n_vertices: V.
        feature_dim: H, decoder width (64 VOCASET, 128 BIWI).
        n_subjects: S, training subjects (style columns).
        period: of positions and temporal bias, frames; one second when None (30 VOCASET, 25 BIWI).
        n_head: attention heads of the decoder.
        dropout: in supervised training mode only (0.1 in the reference).

    Attributes:
        styles: names of the style columns; None where they are not known (published weights).
        mesh_identity: which mesh it animates; None where only the number of vertices is known.
    """

    def __init__(
        self,
        audio_encoder: AudioEncoder,
        n_vertices: int,
        feature_dim: int = 64,
        n_subjects: int = 8,
        period: int | None = None,
        n_head: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.audio_encoder = audio_encoder
        self.n_vertices = n_vertices
        self.styles: tuple[str, ...] | None = None
        self.mesh_identity: MeshIdentity | None = None
        period = round(audio_encoder.clock.fps) if period is None else period
        self.decoder = MotionDecoder(
            3 * n_vertices, audio_encoder.width, feature_dim, n_subjects, period, n_head, dropout
        )

    # -- construction --------------------------------------------------------------------------------------------

    @property
    def fps(self) -> float:
        """Frames per second of its motion."""
        return self.audio_encoder.clock.fps

    @property
    def device(self) -> torch.device:
        return self.decoder.vertice_map.weight.device

    def config(self) -> dict[str, Any]:
        """Plain containers from which :meth:`from_config` builds an equal (untrained) model."""
        d = self.decoder
        return {
            "audio": self.audio_encoder.config(),
            "n_vertices": self.n_vertices,
            "feature_dim": d.feature_dim,
            "n_subjects": d.n_subjects,
            "period": d.period,
            "n_head": d.n_head,
            "dropout": d.dropout,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> FaceFormer:
        """Inverse of :meth:`config`."""
        kwargs = dict(config)
        return cls(build_audio_encoder(**kwargs.pop("audio")), **kwargs)

    @classmethod
    def from_reference(
        cls,
        state_dict: Mapping[str, Tensor],
        topology: str = "vocaset",
        period: int | None = None,
        audio_config: Mapping[str, Any] | None = None,
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
        return reference.to_reference(self.state_dict(), self.decoder.period)

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

    # -- inputs --------------------------------------------------------------------------------------------------

    def _mesh(self, mesh: Tensor, name: str) -> Tensor:
        return flat_mesh(mesh, self.decoder.n_outputs, name)

    def _style(self, style: Tensor) -> Tensor:
        if style.shape[-1] != self.decoder.n_subjects:
            raise UserError(
                f"style has {style.shape[-1]} columns: this checkpoint was trained with {self.decoder.n_subjects} "
                "subjects, give one weight for each, in training order"
            )
        return style

    def frames_first(self, hidden: Tensor) -> Tensor:
        """Encoder output [B, T*A, D] to [B, T, A, D]."""
        return hidden.unflatten(1, (-1, self.audio_encoder.features_per_frame))

    # -- the three ways to run it ----------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(
        self,
        waveform: Tensor,
        template: Tensor,
        style: Tensor,
        lengths: Tensor | list[int] | None = None,
        progress: bool = False,
    ) -> Tensor:
        """Deterministic autoregressive animation at the speech's natural length, without dropout.

        Args:
            waveform: [B, N] mono 16 kHz, zero mean and unit variance.
            template: [B, V*3] or [B, V, 3] neutral faces, metres.
            style: [B, S].
            lengths: valid samples of each row; rows are encoded without their padding. None: all N.
            progress: show a bar over the frames on a terminal, when they take longer than two seconds.

        Returns:
            vertices [B, T, V*3], metres; T is the longest row's; frames after a row's own end hold its template.
        """
        template, style = self._mesh(template, "template"), self._style(style)
        lengths = [waveform.shape[1]] * len(waveform) if lengths is None else [int(n) for n in lengths]
        if len(lengths) != len(waveform) or min(lengths) <= 0 or max(lengths) > waveform.shape[1]:
            raise UserError(f"lengths={lengths}: give one number of samples per row, from 1 to {waveform.shape[1]}")
        was_training = self.training
        self.eval()
        try:
            rows = [
                self.frames_first(self.audio_encoder(w[None, :n]))[0] for w, n in zip(waveform, lengths, strict=True)
            ]
        finally:
            self.train(was_training)
        audio = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        displacement = self.decoder.decode(self.generate(audio, style, progress=progress))
        for b, row in enumerate(rows):
            displacement[b, len(row) :] = 0.0
        return displacement.add_(template.unsqueeze(1))

    def generate(
        self,
        audio: Tensor,
        style: Tensor,
        noise: Tensor | None = None,
        dropout: float = 0.0,
        progress: bool = False,
    ) -> Tensor:
        """Autoregressive latents [B, T, H] from encoded audio [B, T, A, D] and style [B, S].

        The embedding of the fed-back frame is linear, so the recursion runs in H dimensions and never touches the
        vertices: z_t = h(z_<t) + noise_t, fed back as M z + c (see :meth:`MotionDecoder.feedback_map`).

        Args:
            noise: [B, T, H] added to the mean at each frame; None gives the means.
            dropout: for supervised training.
        """
        decoder = self.decoder
        style_embedding = decoder.obj_vector(style)
        cache = decoder.new_cache(len(audio), capacity=audio.shape[1])
        if torch.is_grad_enabled():  # supervised training back-propagates through W as well
            cache.feedback = decoder.feedback(detach_output_map=False)
        embedding = style_embedding
        latents = []
        with one_thread():  # not what the cache folds, which is a product over all vertices
            frames: Iterable[Tensor] = decoder.hear(audio).unbind(1)
            if progress:
                frames = tqdm(frames, desc="frames", unit="frame", disable=None, delay=2, leave=False)
            for t, heard in enumerate(frames):
                latent = decoder.run_step(embedding, heard, cache, dropout)
                if noise is not None:
                    latent = latent + noise[:, t]
                latents.append(latent)
                embedding = cache.feedback(latent) + style_embedding
        return torch.stack(latents, dim=1) if latents else audio.new_zeros(len(audio), 0, decoder.feature_dim)

    def _training_dropout(self) -> float:
        return self.decoder.dropout if self.training else 0.0

    def teacher_forced(self, waveform: Tensor, template: Tensor, style: Tensor, vertices: Tensor) -> Tensor:
        """The reference's teacher-forced prediction [B, T', V*3] for ground truth [B, T, V*3] (metres).

        Audio features are stretched (VOCASET) or cut (BIWI) to T frames. T' = T, except for BIWI when the speech is
        shorter than the ground truth, which is then cut to it. In training mode dropout is on. Frame 0's input is
        style + bias of ``vertice_map``, unlike :meth:`autoregressive`.
        """
        template, vertices = self._mesh(template, "template"), self._mesh(vertices, "vertices")
        audio = self.frames_first(self.audio_encoder(waveform, vertices.shape[1]))
        displacement = vertices[:, : audio.shape[1]] - template.unsqueeze(1)
        latent = self.decoder.sequence_from_displacements(
            displacement, audio, self._style(style), "template", self._training_dropout()
        )
        return self.decoder.decode(latent) + template.unsqueeze(1)

    def autoregressive(self, waveform: Tensor, template: Tensor, style: Tensor, n_frames: int) -> Tensor:
        """The reference's autoregressive prediction [B, T', V*3] with a given frame count (metres).

        T' = ``n_frames``, or fewer for BIWI when the speech is shorter. In training mode dropout is on and the
        gradient runs through the whole recursion.
        """
        template = self._mesh(template, "template")
        audio = self.frames_first(self.audio_encoder(waveform, n_frames))
        latent = self.generate(audio, self._style(style), dropout=self._training_dropout())
        return self.decoder.decode(latent) + template.unsqueeze(1)
