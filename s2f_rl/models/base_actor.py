"""What actors (:class:`~s2f_rl.models.contract.Actor`) share: configs, encoding, decoding of whole utterances."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from s2f_rl.data.coefficients.controls import Controls
from s2f_rl.data.mesh_identity import MeshIdentity
from s2f_rl.errors import UserError
from s2f_rl.models.audio_encoders import AudioEncoder, evaluating
from s2f_rl.models.contract import LinearMotion, own_parameters
from s2f_rl.models.encoder_kinds import build_audio_encoder
from s2f_rl.models.windowed_audio import encode_long

A = TypeVar("A", bound="BaseActor")


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


class BaseActor(nn.Module):
    """Derive from it and write ``generate``, ``decode``, ``imitate``, ``config`` and, for RL, ``make_policy``.

    The constructor of an actor takes ``audio_encoder``, ``n_vertices``, ``n_subjects`` and settings of its own, which
    ``config`` returns beside ``audio`` (:meth:`config` here gives the first ones). It must also work on torch's "meta"
    device, since a file's settings are compared with its tensors before memory is taken.

    Args:
        audio_encoder: its clock is the actor's.
        n_vertices: V.
        n_subjects: S, training subjects (style columns).
    """

    kind: ClassVar[str]

    def __init__(self, audio_encoder: AudioEncoder, n_vertices: int, n_subjects: int) -> None:
        super().__init__()
        self.audio_encoder = audio_encoder
        self.n_vertices, self.n_styles = n_vertices, n_subjects
        self.styles: tuple[str, ...] | None = None
        self.mesh_identity: MeshIdentity | None = None
        self.controls: Controls | None = None

    # -- what it is ------------------------------------------------------------------------------------------------

    @property
    def fps(self) -> float:
        """Frames per second of its motion."""
        return self.audio_encoder.clock.fps

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def linear_decode(self) -> LinearMotion | None:
        return None

    def output_map(self) -> Iterable[nn.Parameter]:
        """W and b of a linear decode; none without."""
        return own_parameters(self.linear_decode)

    def config(self) -> dict[str, Any]:
        """Plain containers from which :meth:`from_config` builds an equal (untrained) model."""
        return {"audio": self.audio_encoder.config(), "n_vertices": self.n_vertices, "n_subjects": self.n_styles}

    @classmethod
    def from_config(cls: type[A], config: Mapping[str, Any]) -> A:
        """Inverse of :meth:`config`."""
        kwargs = dict(config)
        return cls(build_audio_encoder(**kwargs.pop("audio")), **kwargs)

    @torch.no_grad()
    def to_metres(self: A, metres_per_unit: float) -> A:
        """Turn an actor of meshes in another unit into one of metres, in place: the same faces, other numbers."""
        if metres_per_unit != 1.0:
            raise UserError(f"an actor of kind {self.kind} is in metres; this one's file says otherwise")
        return self

    # -- inputs ----------------------------------------------------------------------------------------------------

    def flat(self, mesh: Tensor, name: str) -> Tensor:
        """:func:`flat_mesh` of this actor's mesh."""
        return flat_mesh(mesh, 3 * self.n_vertices, name)

    def checked_style(self, style: Tensor) -> Tensor:
        """The style [B, S] itself. Raises UserError where S is another."""
        if style.shape[-1] != self.n_styles:
            raise UserError(
                f"style has {style.shape[-1]} columns: this checkpoint was trained with {self.n_styles} "
                "subjects, give one weight for each, in training order"
            )
        return style

    def frames_first(self, hidden: Tensor) -> Tensor:
        """Encoder output [B, T*A, D] to [B, T, A, D]."""
        return hidden.unflatten(1, (-1, self.audio_encoder.features_per_frame))

    def encode(self, waveform: Tensor, n_frames: int | None = None) -> Tensor:
        """Waveforms [B, N] of one length to features [B, T, A, D]; see :class:`AudioEncoder` for ``n_frames``.

        In evaluation mode and without gradient, sound longer than a minute is encoded in windows
        (:func:`~s2f_rl.models.windowed_audio.encode_long`).
        """
        return self.frames_first(encode_long(self.audio_encoder, waveform, n_frames))

    # -- what an actor must have -----------------------------------------------------------------------------------

    def generate(
        self, features: Tensor, style: Tensor, lengths: list[int] | None = None, *, progress: bool = False
    ) -> Tensor:
        """See :meth:`s2f_rl.models.contract.Actor.generate`."""
        raise TypeError(f"{type(self).__name__} has no generate()")

    def decode(self, latents: Tensor) -> Tensor:
        """See :meth:`s2f_rl.models.contract.Actor.decode`."""
        raise TypeError(f"{type(self).__name__} has no decode()")

    def imitate(self, features: Tensor, style: Tensor, truth: Tensor, teacher_forced: bool) -> Tensor:
        """See :meth:`s2f_rl.models.contract.Actor.imitate`."""
        raise TypeError(f"{type(self).__name__} has no imitate()")

    def make_policy(self, **options: Any) -> Any:
        """See :meth:`s2f_rl.models.contract.Actor.make_policy`. Raises UserError where there is none."""
        raise UserError(f"an actor of kind {self.kind} has no policy, so RL cannot tune it; give it make_policy()")

    # -- what follows ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(
        self,
        waveform: Tensor,
        template: Tensor,
        style: Tensor,
        lengths: Tensor | list[int] | None = None,
        progress: bool = False,
    ) -> Tensor:
        """Deterministic animation at the speech's natural length, without dropout.

        Args:
            waveform: [B, N] mono 16 kHz, zero mean and unit variance.
            template: [B, V*3] or [B, V, 3] neutral faces, metres.
            style: [B, S].
            lengths: valid samples of each row; rows are encoded without their padding. None: all N.
            progress: show a bar over the frames on a terminal, when they take longer than two seconds.

        Returns:
            vertices [B, T, V*3], metres; T is the longest row's; frames after a row's own end hold its template.
        """
        template, style = self.flat(template, "template"), self.checked_style(style)
        lengths = [waveform.shape[1]] * len(waveform) if lengths is None else [int(n) for n in lengths]
        if len(lengths) != len(waveform) or min(lengths) <= 0 or max(lengths) > waveform.shape[1]:
            raise UserError(f"lengths={lengths}: give one number of samples per row, from 1 to {waveform.shape[1]}")
        with evaluating(self):
            rows = [self.encode(w[None, :n])[0] for w, n in zip(waveform, lengths, strict=True)]
        audio = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        n_frames = [len(row) for row in rows]
        latents = self.generate(audio, style, n_frames, progress=progress)
        if self.linear_decode is None:
            displacement = decode_rows(self.decode, latents, n_frames)
        else:
            displacement = self.decode(latents)
            for b, n in enumerate(n_frames):
                displacement[b, n:] = 0.0
        return displacement.add_(template.unsqueeze(1))


def decode_rows(decode: Callable[[Tensor], Tensor], latents: Tensor, lengths: list[int]) -> Tensor:
    """What a decoder that mixes frames makes of padded rows [B, T, ..]; 0 behind a row's end.

    Rows of equal length are decoded together.

    Args:
        decode: latents [b, n, ..] of b whole utterances to displacements [b, n, V*3].
        lengths: valid frames of each row.
    """
    order, parts = [], []
    for n in dict.fromkeys(lengths):
        rows = [row for row, length in enumerate(lengths) if length == n]
        order += rows
        parts.append(nn.functional.pad(decode(latents[rows, :n]), (0, 0, 0, latents.shape[1] - n)))
    place = sorted(range(len(order)), key=order.__getitem__)
    return torch.cat(parts)[place] if len(parts) > 1 else parts[0]
