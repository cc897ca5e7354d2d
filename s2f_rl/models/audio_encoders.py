"""Audio encoders: waveform at 16 kHz to a feature vector per frame (VOCASET), or several (BIWI: two).

Every encoder first makes features at 50 Hz on wav2vec2's grid (window 400 samples, hop 320), then brings them to the
video's frames (:func:`resample_to_frames`), then runs its network at that rate, as FaceFormer's encoder does
(Fan et al., CVPR 2022, section 3.1). So all encoders agree on the number of frames of an utterance, and what comes
before the network never changes in training.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2f_rl.data.clock import Clock, clock_of
from s2f_rl.errors import UserError
from s2f_rl.models.log_mel import normed_pairs, paired_log_mel, slaney_filters, slaney_log_mel
from s2f_rl.models.recogniser import convolved, residual_convolutions
from s2f_rl.models.speech_models import (
    BERT,
    SPEECH_MODELS,
    checked_settings,
    known_settings,
    new_model,
    published_model,
)
from s2f_rl.models.time_norms import BandNorm


def frames_from_conv(n_conv: int, topology: str) -> int:
    """Frames of ``n_conv`` features at 50 Hz on the clock of a published corpus ("vocaset", "biwi")."""
    return clock_of(topology).frames_of_features(n_conv)


def resample_to_frames(features: Tensor, clock: Clock | str, n_frames: int | None = None) -> Tensor:
    """Bring 50 Hz features [B, C, D] to the frames of a clock (or of a published corpus): [B, T*A, D].

    30 fps with one feature per frame (VOCASET): linear interpolation with aligned end points to ``n_frames``, stretched
    when it is given. Features that make whole frames (BIWI: pairs at 25 fps): cut to these, and to ``n_frames`` at
    most. Both as in FaceFormer's ``wav2vec.py``. Any other clock: linear interpolation at each frame's own time,
    without stretching; frames beyond the sound hear its last feature.
    """
    clock = clock_of(clock) if isinstance(clock, str) else clock
    if clock.whole_features:
        n_whole = clock.frames_of_features(features.shape[1])
        n_whole = n_whole if n_frames is None else min(n_whole, n_frames)
        return features[:, : clock.features_per_frame * n_whole]
    n_frames = clock.frames_of_features(features.shape[1]) if n_frames is None else n_frames
    if n_frames <= 0:
        return features[:, :0]
    if clock.stretches:
        return F.interpolate(features.transpose(1, 2), size=n_frames, mode="linear", align_corners=True).transpose(1, 2)
    position = torch.from_numpy(clock.feature_positions(features.shape[1], n_frames))
    before = position.floor().long()
    share = (position - before).to(features)[:, None]
    before = before.to(features.device)
    return features[:, before].lerp(features[:, (before + 1).clamp_max(features.shape[1] - 1)], share)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within, a module is in evaluation mode."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


class FrontEnd(NamedTuple):
    """What makes an encoder's features at 50 Hz, where no training changes it.

    Attributes:
        width: D0, of a feature. settings: all that its tensors do not tell. tensors: its weights by name.
    """

    width: int
    settings: str
    tensors: dict[str, Tensor]


class AudioEncoder(nn.Module):
    """Base class: ``encoder(waveform [B, N], n_frames=None) -> [B, T*A, D]``.

    ``waveform`` is mono at 16 kHz with zero mean and unit variance. Rows are encoded as they are: pad nothing, since
    normalisation over time would see the padding (:meth:`FaceFormer.predict` encodes rows one by one).

    Args:
        width: D, width of a feature.
        topology: a published corpus whose clock it runs at: ``"vocaset"`` (30 fps, one feature per frame) or ``"biwi"``
            (25 fps, two per frame).
        fps, features_per_frame: in place of the published corpus's; see :class:`~s2f_rl.data.clock.Clock`.
    """

    kind: str
    windowed: bool = False
    """Whether it may be given a recording in pieces (:mod:`s2f_rl.models.windowed_audio`): ``local_features`` hears
    nothing before a feature's 400 samples and less than 320 behind them, and what normalises over time is a norm of
    :mod:`s2f_rl.models.time_norms` in it."""
    look_around: int = 0
    """Features on either side that ``widened`` hears."""

    def __init__(
        self, width: int, topology: str = "vocaset", fps: float | None = None, features_per_frame: int | None = None
    ) -> None:
        super().__init__()
        self.width = width
        self.clock = clock_of(topology, fps, features_per_frame)

    @property
    def features_per_frame(self) -> int:
        """A."""
        return self.clock.features_per_frame

    def n_frames(self, n_samples: int) -> int:
        """Natural number of frames of ``n_samples`` at 16 kHz."""
        return self.clock.natural_frames(n_samples)

    def _clock_config(self) -> dict[str, object]:
        return {"fps": self.clock.fps, "features_per_frame": self.clock.features_per_frame}

    def set_trainable(self, train: bool) -> None:
        """Let supervised training change the encoder, or freeze it."""
        self.requires_grad_(train)

    def config(self) -> dict[str, Any]:
        """Plain keyword arguments of :func:`~s2f_rl.models.encoder_kinds.build_audio_encoder` that rebuild this one."""
        raise TypeError(f"{type(self).__name__} has no config()")

    @classmethod
    def settings_from_file(cls, config: dict[str, object], n_tensors: int) -> dict[str, Any]:
        """What of a file's ``config`` (of known names and ranges) may be used; ``n_tensors`` are in the file.

        Raises UserError for the rest.
        """
        return config

    def conv_features(self, waveform: Tensor) -> Tensor:
        """Features at 50 Hz: [B, N] -> [B, C, D0]."""
        raise TypeError(f"{type(self).__name__} has no conv_features()")

    def local_features(self, waveform: Tensor) -> Tensor:
        """What of :meth:`conv_features` hears no more than each feature's own samples: [B, N] -> [B, C, D1]."""
        return self.conv_features(waveform)

    def widened(self, features: Tensor) -> Tensor:
        """The rest of :meth:`conv_features`: [B, C, D1] -> [B, C, D0]."""
        return features

    def contextualise(self, features: Tensor) -> Tensor:
        """Features at the video's rate: [B, T*A, D0] -> [B, T*A, D]."""
        raise TypeError(f"{type(self).__name__} has no contextualise()")

    def front_end(self) -> FrontEnd | None:
        """What :meth:`conv_features` is made by; None where it trains, so that its features cannot be kept."""
        return None

    def frame_features(self, waveform: Tensor, n_frames: int | None = None) -> Tensor:
        """The features at 50 Hz brought to the video's rate: [B, N] -> [B, T*A, D0]."""
        if waveform.ndim != 2:
            raise UserError(f"waveform has shape {tuple(waveform.shape)}: expected [B, N] at 16 kHz")
        if self.n_frames(waveform.shape[1]) < 1:
            raise UserError(f"waveform has {waveform.shape[1]} samples at 16 kHz: too short for one video frame")
        return resample_to_frames(self.conv_features(waveform), self.clock, n_frames)

    def forward(self, waveform: Tensor, n_frames: int | None = None) -> Tensor:
        return self.contextualise(self.frame_features(waveform, n_frames))


class SpeechAudioEncoder(AudioEncoder):
    """A speech model of transformers as FaceFormer uses wav2vec 2.0 (Baevski et al., 2020).

    wav2vec 2.0 and XLS-R, HuBERT, WavLM, data2vec, UniSpeech: the features of the convolutions are brought to the
    video's frames, then projected and contextualised. wav2vec2-BERT: the same of its log-mel features.

    Args:
        config: keyword arguments of the model's config class in transformers; nothing means its defaults, which are
            wav2vec2-base for "wav2vec2".
        topology, fps, features_per_frame: see :class:`AudioEncoder`.
        pretrained: hub name or folder of published weights, e.g. ``"facebook/wav2vec2-base-960h"``.
        local_files_only: never ask the network for ``pretrained``; the default, so that nothing downloads by accident.
        spec_augment: mask time spans in training mode, as the reference does. Never used in RL.
        kind: of :data:`~s2f_rl.models.speech_models.SPEECH_MODELS`; None: what ``pretrained`` is.

    The convolution stack is frozen, as in the reference (``_freeze_parameters``).

    Raises:
        UserError: no such model, or one whose features are not at 50 Hz.
    """

    def __init__(
        self,
        config: dict[str, Any] | None = None,
        topology: str = "vocaset",
        pretrained: str | None = None,
        local_files_only: bool = True,
        spec_augment: bool = True,
        fps: float | None = None,
        features_per_frame: int | None = None,
        kind: str | None = "wav2vec2",
    ) -> None:
        if pretrained is not None:
            kind, model = published_model(pretrained, kind, local_files_only)
        elif kind is None:
            raise UserError(f"actor.audio.pretrained: name a folder, or actor.audio.kind: {', '.join(SPEECH_MODELS)}")
        else:
            model = new_model(kind, config or {})
        super().__init__(model.config.hidden_size, topology, fps, features_per_frame)
        self.kind, self.spec_augment = kind, spec_augment
        self.windowed = kind != BERT  # its log-mel features are centred and scaled over the recording
        self.model: Any = model  # its parts are not in the types of transformers
        self.set_trainable(True)

    def set_trainable(self, train: bool) -> None:
        """As in the base class; the convolution stack stays frozen, as in the reference."""
        super().set_trainable(train)
        if self.kind != BERT:
            self.model.feature_extractor._freeze_parameters()

    def config(self) -> dict[str, Any]:
        settings = known_settings(self.kind, self.model.config)
        return {"kind": self.kind, **self._clock_config(), "config": settings, "spec_augment": self.spec_augment}

    @classmethod
    def settings_from_file(cls, config: dict[str, object], n_tensors: int) -> dict[str, Any]:
        """As in the base class; what transformers would take for more than a size or a rate is left out."""
        return {**config, "config": checked_settings(str(config["kind"]), config.get("config"), n_tensors)}

    def front_end(self) -> FrontEnd | None:
        config = self.model.config
        if self.kind == BERT:
            return FrontEnd(config.feature_projection_input_dim, self.kind, {})
        stack = self.model.feature_extractor
        if any(weight.requires_grad for weight in stack.parameters()):
            return None
        return FrontEnd(config.conv_dim[-1], f"{self.kind} {known_settings(self.kind, config)}", stack.state_dict())

    def conv_features(self, waveform: Tensor) -> Tensor:
        if self.kind == BERT:
            return paired_log_mel(waveform)
        return self.model.feature_extractor(waveform).transpose(1, 2)

    def contextualise(self, features: Tensor) -> Tensor:
        hidden = self.model.feature_projection(features)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden  # of some with the normalised features beside
        if self.training and self.spec_augment:
            hidden = self.model._mask_hidden_states(hidden)
        return self.model.encoder(hidden)[0]


Wav2Vec2AudioEncoder = SpeechAudioEncoder
"""Its name where wav2vec 2.0 is meant, which is what it is unless told otherwise."""


class MelAudioEncoder(AudioEncoder):
    """A small convolution stack on log-mel, trained from scratch: the embedded default, needs no download.

    100 Hz log-mel frames (25 ms windows) are paired to 50 Hz, each band is centred and scaled over the utterance (so
    that gain and voice timbre matter little), brought to the video's frames, and passed through ``n_layers`` residual
    convolutions of 5 frames with dilations 1, 2, 1, 2, ...

    Args:
        width: D, and the number of channels.
        n_mels: mel bands from 40 Hz to 7.6 kHz.
        n_layers: residual convolutions.
        topology, fps, features_per_frame: see :class:`AudioEncoder`.
    """

    kind = "mel"
    windowed = True
    mel_filters: Tensor
    window: Tensor

    def __init__(
        self,
        width: int = 64,
        n_mels: int = 40,
        n_layers: int = 3,
        topology: str = "vocaset",
        fps: float | None = None,
        features_per_frame: int | None = None,
    ) -> None:
        super().__init__(width, topology, fps, features_per_frame)
        self.n_mels, self.n_layers = n_mels, n_layers
        self.register_buffer("mel_filters", torch.from_numpy(slaney_filters(n_mels)).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(400), persistent=False)
        self.band_norm = BandNorm()
        self.input = nn.Linear(2 * n_mels, width)
        self.convolutions = residual_convolutions(width, n_layers)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(n_layers + 1))

    def config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            **self._clock_config(),
            "width": self.width,
            "n_mels": self.n_mels,
            "n_layers": self.n_layers,
        }

    def front_end(self) -> FrontEnd:
        return FrontEnd(2 * self.n_mels, f"{self.kind} {self.n_mels}", {})

    def conv_features(self, waveform: Tensor) -> Tensor:
        return normed_pairs(slaney_log_mel(waveform, self.mel_filters, self.window), self.band_norm)

    def contextualise(self, features: Tensor) -> Tensor:
        return convolved(self.input(features), self.convolutions, self.norms)
