"""The embedded audio encoder that knows phones."""

from __future__ import annotations

from torch import Tensor, nn

from s2f_rl.data.synthetic.phones import PHONES
from s2f_rl.errors import UserError
from s2f_rl.models.audio_encoders import AudioEncoder, FrontEnd
from s2f_rl.models.mishearing import misheard
from s2f_rl.models.recogniser import PhoneRecogniser, convolved, residual_convolutions
from s2f_rl.models.recogniser_files import load_recogniser


class ListenerAudioEncoder(AudioEncoder):
    """An ear that hears: a frozen phone recogniser, whose posteriors at 50 Hz go through convolutions that train.

    The probabilities of the phones are brought to the video's frames and passed through ``n_layers`` residual
    convolutions of 5 frames, as the mel encoder's. So one recogniser serves every frame rate, and says of a new voice
    what is said, which an encoder trained from scratch on a corpus of few voices cannot.

    Args:
        width: D, and the number of channels.
        n_layers: residual convolutions that train.
        pretrained: folder of a recogniser that ``recipes/listener.py`` wrote, or ``"shipped"``: the one that comes
            with the package. None: random weights of the sizes below, which a file's own replace.
        errors: share of frames at which training hears wrong (:func:`~s2f_rl.models.mishearing.misheard`).
        n_phones, ear_width, ear_layers, n_mels: sizes of the recogniser.
        topology, fps, features_per_frame: see :class:`AudioEncoder`.

    Raises:
        UserError: ``pretrained`` is no such folder, or ``errors`` are asked of other phones than ``PHONES``.
    """

    kind = "listener"
    windowed = True

    def __init__(
        self,
        width: int = 64,
        n_layers: int = 3,
        topology: str = "vocaset",
        fps: float | None = None,
        features_per_frame: int | None = None,
        pretrained: str | None = None,
        errors: float = 0.0,
        n_phones: int = len(PHONES),
        ear_width: int = 128,
        ear_layers: int = 6,
        n_mels: int = 40,
    ) -> None:
        super().__init__(width, topology, fps, features_per_frame)
        self.n_layers, self.errors = n_layers, errors
        if pretrained is None:
            self.recogniser = PhoneRecogniser(n_phones, ear_width, ear_layers, n_mels)
        else:
            self.recogniser = load_recogniser(pretrained)
        if errors and self.recogniser.n_phones != len(PHONES):
            raise UserError(
                f"actor.audio.errors={errors:g}: of {len(PHONES)} phones it is known which are taken for which, "
                f"{pretrained} tells {self.recogniser.n_phones}; use 0"
            )
        self.look_around = self.recogniser.look_around
        self.input = nn.Linear(self.recogniser.n_phones, width)
        self.convolutions = residual_convolutions(width, n_layers)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(n_layers + 1))
        self.set_trainable(True)

    def set_trainable(self, train: bool) -> None:
        """As in the base class; the recogniser stays frozen."""
        super().set_trainable(train)
        self.recogniser.requires_grad_(False)

    def config(self) -> dict[str, object]:
        ear = self.recogniser
        sizes = {"n_phones": ear.n_phones, "ear_width": ear.width, "ear_layers": ear.n_layers, "n_mels": ear.n_mels}
        return {"kind": self.kind, **self._clock_config(), "width": self.width, "n_layers": self.n_layers, **sizes}

    def front_end(self) -> FrontEnd:
        return FrontEnd(self.recogniser.n_phones, self.kind, self.recogniser.state_dict())

    def local_features(self, waveform: Tensor) -> Tensor:
        return self.recogniser.bands(waveform)

    def widened(self, features: Tensor) -> Tensor:
        return self.recogniser(features).softmax(-1)

    def conv_features(self, waveform: Tensor) -> Tensor:
        return self.widened(self.local_features(waveform))

    def contextualise(self, features: Tensor) -> Tensor:
        if self.training and self.errors:
            features = misheard(features, self.errors)
        return convolved(self.input(features), self.convolutions, self.norms)
