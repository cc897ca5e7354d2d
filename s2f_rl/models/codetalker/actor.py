"""CodeTalker (Xing et al., CVPR 2023): speech to codes of motion, and these to an animated face."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from s2f_rl import ranks
from s2f_rl.data.clock import rates_alike
from s2f_rl.errors import UserError
from s2f_rl.models.audio_encoders import AudioEncoder, evaluating
from s2f_rl.models.base_actor import BaseActor, decode_rows
from s2f_rl.models.codetalker import published
from s2f_rl.models.codetalker.code_decoder import CodeDecoder, CodeSteps, feedback_map
from s2f_rl.models.codetalker.codebook import Codebook
from s2f_rl.models.codetalker.codebook_files import TrainedCodebook
from s2f_rl.models.contract import Imitation
from s2f_rl.models.latent_actor import frame_bar
from s2f_rl.models.latent_motion import MadeOnce
from s2f_rl.threads import one_thread

if TYPE_CHECKING:
    from s2f_rl.models.policy import MotionPolicy


class CodeTalker(BaseActor):
    """Audio encoder, stage 2 (picks codes) and stage 1 (decodes them); see :class:`~s2f_rl.models.contract.Actor`.

    Its latents are code indices [B, T, Q], int64. They are decoded over whole utterances, so that a code also moves
    frames before its own. The defaults are the published sizes for VOCASET.

    Args:
        audio_encoder: any :class:`AudioEncoder`; its clock is the actor's.
        n_vertices: V.
        n_subjects: S, training subjects (style columns).
        feature_dim, n_layers, n_head: of stage 2, width H, decoder layers and their heads.
        period: of its positions and temporal bias, frames; one second when None (30 VOCASET, 25 BIWI).
        codebook_width, codebook_hidden, codebook_layers, codebook_heads: of stage 1, width W, width of the MLPs, blocks
            of encoder and of decoder, their heads.
        n_codes: K. code_width: C. codes_per_frame: Q.
        mapped_codes: see :class:`~s2f_rl.models.codetalker.codebook.Codebook`.
        codebook: run folder or file of ``recipes/codebook.py``: a trained stage 1, which stays frozen; its sizes
            replace those given, and its mesh is the actor's. None: random weights, which a file's own replace.
        feedback_window: frames that the transformer of stage 1 sees when a frame is fed back; None: all, as published,
            where a frame costs more the longer the speech. The animation itself is always decoded as a whole.
        dropout: of stage 2, in supervised training mode only (0.1 in the reference).
        feature_weight: of the feature regression in supervised training, beside the motion's error in mm^2.

    Attributes:
        codebook: stage 1.
        decoder: stage 2.
    """

    kind = "codetalker"

    def __init__(
        self,
        audio_encoder: AudioEncoder,
        n_vertices: int,
        n_subjects: int = 8,
        feature_dim: int = 1024,
        n_layers: int = 6,
        n_head: int = 4,
        period: int | None = None,
        codebook_width: int = 1024,
        codebook_hidden: int = 1536,
        codebook_layers: int = 6,
        codebook_heads: int = 8,
        n_codes: int = 256,
        code_width: int = 64,
        codes_per_frame: int = 16,
        mapped_codes: bool = False,
        feedback_window: int | None = None,
        dropout: float = 0.1,
        feature_weight: float = 1.0,
        codebook: str | None = None,
    ) -> None:
        super().__init__(audio_encoder, n_vertices, n_subjects)
        trained = None if codebook is None else _codebook_for(codebook, n_vertices, audio_encoder.clock.fps)
        if trained is not None:
            sizes, self.mesh_identity = trained.codebook.settings, trained.mesh_identity
            codebook_width, codebook_hidden = sizes["width"], sizes["hidden"]
            codebook_layers, codebook_heads = sizes["n_layers"], sizes["n_head"]
            n_codes, code_width = sizes["n_codes"], sizes["code_width"]
            codes_per_frame, mapped_codes = sizes["codes_per_frame"], bool(sizes["mapped"])
        period = round(audio_encoder.clock.fps) if period is None else period
        self.feedback_window, self.dropout, self.feature_weight = feedback_window, dropout, feature_weight
        self._settings = {
            "feature_dim": feature_dim,
            "n_layers": n_layers,
            "n_head": n_head,
            "period": period,
            "codebook_width": codebook_width,
            "codebook_hidden": codebook_hidden,
            "codebook_layers": codebook_layers,
            "codebook_heads": codebook_heads,
            "n_codes": n_codes,
            "code_width": code_width,
            "codes_per_frame": codes_per_frame,
            "mapped_codes": mapped_codes,
        }
        self.codebook = Codebook(
            3 * n_vertices, codebook_width, codebook_hidden, codebook_layers, codebook_heads, n_codes, code_width,
            codes_per_frame, mapped_codes,
        ) if trained is None else trained.codebook  # fmt: skip
        self.decoder = CodeDecoder(
            3 * n_vertices, audio_encoder.width, codes_per_frame * code_width, feature_dim, n_layers, n_head,
            n_subjects, period,
        )  # fmt: skip
        self._feedback: MadeOnce[tuple[Tensor, Tensor]] = MadeOnce()

    # -- construction ------------------------------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """Plain containers from which :meth:`from_config` builds an equal (untrained) model."""
        window = {} if self.feedback_window is None else {"feedback_window": self.feedback_window}
        training = {"dropout": self.dropout, "feature_weight": self.feature_weight}
        return super().config() | self._settings | training | window

    @classmethod
    def from_reference(
        cls,
        stage1_state_dict: Mapping[str, object],
        stage2_state_dict: Mapping[str, object],
        topology: str = "vocaset",
        codebook_heads: int = 8,
        heads: int = 4,
        period: int | None = None,
        audio_config: Mapping[str, object] | None = None,
        feedback_window: int | None = None,
    ) -> CodeTalker:
        """Build from the published checkpoints of both stages; sizes are read off the tensors.

        Args:
            stage1_state_dict, stage2_state_dict: the published names and shapes (both spellings of weight norm; the
                ``state_dict`` that wraps them, a ``module.`` prefix and the tables of positions are accepted and
                ignored).
            topology: ``"vocaset"`` or ``"biwi"``.
            codebook_heads, heads: attention heads of stage 1 and 2, which no tensor tells; the published ones are 8, 4.
            period: of positions and temporal bias; one second (30 or 25 frames) when None.
            audio_config: wav2vec2 settings (:class:`transformers.Wav2Vec2Config` keywords); None means wav2vec2-base.
            feedback_window: see the class.

        Raises:
            UserError: names the tensors that are missing, superfluous or of the wrong shape, and their stage.
        """
        options = {"codebook_heads": codebook_heads, "n_head": heads, "period": period}
        return published.build_from_reference(
            cls, stage1_state_dict, stage2_state_dict, topology, dict(audio_config or {}),
            options | {"feedback_window": feedback_window},
        )  # fmt: skip

    def to_reference(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """State dicts of both stages with the published names and shapes (transformers 5 weight-norm spelling)."""
        return published.to_reference(self.state_dict(), self._settings["codebook_width"], self.decoder.period)

    @torch.no_grad()
    def to_metres(self, metres_per_unit: float) -> CodeTalker:
        """Turn an actor of meshes in another unit into one of metres, in place: the same faces, other numbers.

        Published BIWI weights animate faces in a unit of about 0.186 m.
        """
        if metres_per_unit != 1.0:
            self.codebook.to_metres(metres_per_unit)
            self.decoder.vertice_map.weight.div_(metres_per_unit)
        return self

    def output_map(self) -> list[nn.Parameter]:
        """Weight and, where it has one, bias of the output map of stage 1."""
        return list(self.codebook.decoder.output.parameters())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CodeTalker:
        self._feedback = MadeOnce()  # a parameter that moves to a device stays the same one
        return super()._apply(fn, recurse)

    # -- the ways to run it ------------------------------------------------------------------------------------------

    def feedback_map(self) -> tuple[Tensor, Tensor]:
        """:func:`~s2f_rl.models.codetalker.code_decoder.feedback_map`, made once for weights that stay as they are."""
        parts = (self.decoder.vertice_map, self.codebook.decoder.output)
        weights = [parameter for part in parts for parameter in part.parameters()]
        return self._feedback.get(weights, lambda: feedback_map(self.decoder, self.codebook))

    @torch.no_grad()
    def steps(self, style: Tensor, capacity: int) -> CodeSteps:
        """Prediction frame by frame from the first frame on: style [B, S], room for ``capacity`` frames."""
        return CodeSteps(self.decoder, self.codebook, style, capacity, self.feedback_map(), self.feedback_window)

    @torch.no_grad()
    def generate(
        self, features: Tensor, style: Tensor, lengths: list[int] | None = None, *, progress: bool = False
    ) -> Tensor:
        """Code indices [B, T, Q] of features [B, T, A, D] and style [B, S]: always the nearest codes.

        The sequence starts from the style vector alone. A mixed style mixes the style vectors. A lane does not depend
        on the others: all have the position of a batch of one in stage 1.

        Args:
            lengths: of no account: a frame never sees a later one.
        """
        n_frames = features.shape[1]
        steps = self.steps(style, n_frames)
        codes: list[Tensor] = []
        heard = zip(*(layer.unbind(1) for layer in self.decoder.hear(features)), strict=True)
        with one_thread():
            for own in frame_bar(heard, progress):
                if codes:
                    steps.remember(codes[-1])
                codes.append(self.codebook.nearest(steps.advance(list(own))))
        if not codes:
            return torch.zeros(len(features), 0, self.codebook.codes_per_frame, dtype=torch.int64, device=self.device)
        return torch.stack(codes, 1)

    def decode(self, latents: Tensor) -> Tensor:
        """Displacements [B, T, V*3] of the codes [B, T, Q] of whole utterances, none padded."""
        return self.codebook.decode(latents, shared_row=True)

    def imitate(self, features: Tensor, style: Tensor, truth: Tensor, teacher_forced: bool) -> Tensor:
        """Of whole utterances, none padded; see :meth:`imitation`."""
        return self.imitation(features, style, truth, [truth.shape[1]] * len(truth), teacher_forced).displacement

    def imitation(
        self, features: Tensor, style: Tensor, truth: Tensor, lengths: list[int], teacher_forced: bool = True
    ) -> Imitation:
        """Stage 2's loss, less the error of the motion, which is the recipe's (Xing et al., eq. 6).

        The motion is that of the codes nearest to the features, with the gradient of the identity through the choice.
        The term ``feature`` is the mean squared distance of the features' numbers to those of the true motion's codes.
        Stage 1 takes every utterance by itself, as in prediction.

        Args:
            features: [B, T, A, D]. style: [B, S]. truth: [B, T, V*3] displacements, each row's frames up to its length.

        Raises:
            UserError: not ``teacher_forced``: a choice of codes has no gradient to what was chosen before.
        """
        if not teacher_forced:
            raise UserError("mode=autoregressive: an actor of codes learns teacher-forced; use mode=teacher_forced")
        dropout = self.dropout if self.training else 0.0
        predicted = self.forced_features(features, style, truth, dropout)
        apart = []
        for own, true, n in zip(predicted, truth, lengths, strict=True):
            with torch.no_grad():
                wanted = self.codebook.codes[self.codebook.encode(true[None, :n], shared_row=True)]
            apart.append((own[None, :n] - wanted).square().sum())
        count = ranks.mean_count(truth.new_tensor(float(sum(lengths)))) * predicted[0, 0].numel()
        vectors = self.codebook.straight_through(predicted)[1].flatten(-2)
        displacement = decode_rows(lambda rows: self.codebook.decoder(rows, True), vectors, lengths)
        return Imitation(displacement, {"feature": self.feature_weight * torch.stack(apart).sum() / count})

    def make_policy(self, **options: Any) -> MotionPolicy:
        """A :class:`~s2f_rl.models.codetalker.policy.CodePolicy`; ``options`` are its other arguments."""
        from s2f_rl.models.codetalker.policy import CodePolicy

        return CodePolicy(self.decoder, self.codebook, self.feedback_window, **options)

    @torch.no_grad()
    def predict_codes(self, waveform: Tensor, style: Tensor) -> Tensor:
        """Code indices [B, T, Q], int64, of waveforms [B, N] (16 kHz, zero mean, unit variance) and style [B, S]."""
        with evaluating(self):
            return self.generate(self.encode(waveform), self.checked_style(style))

    def teacher_forced(self, waveform: Tensor, template: Tensor, style: Tensor, vertices: Tensor) -> Tensor:
        """The reference's teacher-forced prediction [B, T', V*3] for ground truth [B, T, V*3].

        Audio features are stretched (VOCASET) or cut (BIWI) to T frames. T' = T, except for BIWI when the speech is
        shorter than the ground truth, which is then cut to it. The gradient passes straight through the codes. Frame
        0's input is style + bias of ``vertice_map``, unlike :meth:`predict`.
        """
        template, vertices = self.flat(template, "template"), self.flat(vertices, "vertices")
        audio = self.encode(waveform, vertices.shape[1])
        displacement = vertices[:, : audio.shape[1]] - template.unsqueeze(1)
        features = self.forced_features(audio, self.checked_style(style), displacement)
        _, quantised = self.codebook.straight_through(features)
        return self.codebook.decoder(quantised.flatten(-2), True) + template.unsqueeze(1)

    def forced_features(self, audio: Tensor, style: Tensor, displacement: Tensor, dropout: float = 0.0) -> Tensor:
        """Stage 2's features [B, T, Q, C], each frame given the true displacements [B, T, V*3] before it.

        Supervised training compares them with the true motion's code vectors (the reference's ``loss_reg``).

        Args:
            audio: [B, T, A, D], see :meth:`encode`. style: [B, S].
        """
        features = self.decoder.sequence(displacement, audio, style, dropout)
        return features.unflatten(-1, (self.codebook.codes_per_frame, self.codebook.code_width))


def _codebook_for(path: str, n_vertices: int, fps: float) -> TrainedCodebook:
    """The stage 1 that a person names, refused where it cannot be that of an actor of these."""
    trained = TrainedCodebook.load(path)
    if trained.mesh_identity.n_vertices != n_vertices or not rates_alike(trained.fps, fps):
        raise UserError(
            f"actor.codebook={path}: is of {trained.mesh_identity.n_vertices} vertices at {trained.fps:g} fps, the "
            f"corpus has {n_vertices} at {fps:g}; train one on it (recipes/codebook.py)"
        )
    return trained
