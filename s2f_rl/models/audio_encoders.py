"""Audio encoders: waveform at 16 kHz to a feature vector per frame (VOCASET), or several (BIWI: two).

Every encoder first makes features at 50 Hz on wav2vec2's grid (window 400 samples, hop 320), then brings them to the
video's frames (:func:`resample_to_frames`), then runs its network at that rate, as FaceFormer's encoder does
(Fan et al., CVPR 2022, section 3.1). So all encoders agree on the number of frames of an utterance, and what comes
before the network never changes in training.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2f_rl.data.audio import SPEECH_RATE_HZ, conv_frames
from s2f_rl.data.clock import Clock, clock_of
from s2f_rl.errors import UserError
from s2f_rl.models.log_mel import paired_log_mel
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
    """Whether it may be given a recording in pieces (:mod:`s2f_rl.models.windowed_audio`): ``conv_features`` hears
    nothing before a feature's 400 samples and less than 320 behind them, and what normalises over time is a norm of
    :mod:`s2f_rl.models.time_norms`."""

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
        """Plain keyword arguments that rebuild this encoder (:func:`build_audio_encoder`)."""
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


def slaney_filters(n_mels: int) -> np.ndarray:
    """Triangles on Slaney's mel scale from 40 Hz to 7.6 kHz over the bins of a 512-point FFT at 16 kHz: [257, n_mels].

    The scale is linear below 1 kHz (200/3 Hz a step), logarithmic above (27 steps for a factor of 6.4); each triangle
    has the same area (Slaney, Auditory Toolbox, 1998).
    """
    linear, turn = 3 / 200, 15.0  # steps per Hz; steps at 1 kHz
    growth = math.log(6.4) / 27
    mel = np.linspace(40.0 * linear, turn + math.log(7.6) / growth, n_mels + 2)
    edges = np.where(mel < turn, mel / linear, 1000.0 * np.exp(growth * (mel - turn)))
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bins = np.linspace(0, SPEECH_RATE_HZ / 2, 257)[:, None]
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (right - left))


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
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, width, 5, dilation=1 + i % 2, padding=2 * (1 + i % 2)) for i in range(n_layers)
        )
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
        n_conv = conv_frames(waveform.shape[1])
        padded = F.pad(waveform, (0, 160))  # the second 100 Hz window of the last pair
        spectrum = torch.stft(padded, 512, 160, 400, self.window, center=False, return_complex=True).abs().square()
        mel = (spectrum.transpose(1, 2) @ self.mel_filters).clamp_min(1e-6).log()
        # torch.stft centres a 400-sample window in 512 samples, so the last window may be missing: repeat the last one.
        missing = 2 * n_conv - mel.shape[1]
        if missing > 0:
            mel = torch.cat([mel, mel[:, -1:].expand(-1, missing, -1)], dim=1)
        mel = mel[:, : 2 * n_conv]
        mel = self.band_norm(mel)
        return mel.reshape(mel.shape[0], n_conv, 2 * self.n_mels)

    def contextualise(self, features: Tensor) -> Tensor:
        x = self.input(features)
        for norm, convolution in zip(self.norms, self.convolutions, strict=False):
            x = x + F.gelu(convolution(norm(x).transpose(1, 2))).transpose(1, 2)
        return self.norms[-1](x)


KINDS: dict[str, type[AudioEncoder]] = {
    **dict.fromkeys(SPEECH_MODELS, SpeechAudioEncoder),
    MelAudioEncoder.kind: MelAudioEncoder,
}
"""What a file may call its encoder."""


def build_audio_encoder(kind: str, **kwargs: Any) -> AudioEncoder:
    """Build an encoder by name; unknown names and arguments raise :class:`UserError`.

    Args:
        kind: of :data:`KINDS`, or ``"speech"``: whichever of them ``pretrained`` is.
        **kwargs: of :class:`MelAudioEncoder` for ``"mel"``, else of :class:`SpeechAudioEncoder`.
    """
    if kind not in KINDS and kind != "speech":
        raise UserError(f"actor.audio.kind={kind!r} is unknown: use one of speech, {', '.join(KINDS)}")
    built = KINDS.get(kind, SpeechAudioEncoder)
    if built is SpeechAudioEncoder:
        kwargs["kind"] = None if kind == "speech" else kind
    try:
        return built(**kwargs)
    except TypeError as error:
        raise UserError(f"actor.audio: {error}; see {built.__name__}") from error


def packed_encoder(encoder: AudioEncoder) -> Callable[[], AudioEncoder]:
    """What makes the same encoder in another process, which gets it pickled: frozen, on the CPU, to be evaluated.

    An encoder of this project goes as its settings and weights, since torch pickles no layer with weight norm, which
    wav2vec2 has; one of one's own goes as it is.
    """
    if KINDS.get(encoder.kind) is not type(encoder):
        return copy.deepcopy(encoder).cpu().requires_grad_(False).eval
    weights = {name: tensor.detach().cpu() for name, tensor in encoder.state_dict().items()}
    return partial(_with_weights, partial(build_audio_encoder, **encoder.config()), weights)


def _with_weights(make: Callable[[], AudioEncoder], weights: dict[str, Tensor]) -> AudioEncoder:
    with torch.random.fork_rng(devices=[]):  # its first weights, which are replaced, use up no random number of a run
        encoder = make()
    encoder.load_state_dict(weights)
    return encoder.requires_grad_(False).eval()
