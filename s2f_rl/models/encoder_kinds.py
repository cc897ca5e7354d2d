"""Audio encoders by name, and in another process."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from s2f_rl.errors import UserError
from s2f_rl.models.audio_encoders import AudioEncoder, MelAudioEncoder, SpeechAudioEncoder
from s2f_rl.models.listener import ListenerAudioEncoder
from s2f_rl.models.speech_models import SPEECH_MODELS

KINDS: dict[str, type[AudioEncoder]] = {
    **dict.fromkeys(SPEECH_MODELS, SpeechAudioEncoder),
    MelAudioEncoder.kind: MelAudioEncoder,
    ListenerAudioEncoder.kind: ListenerAudioEncoder,
}
"""What a file may call its encoder."""


def build_audio_encoder(kind: str, **kwargs: Any) -> AudioEncoder:
    """Build an encoder by name; unknown names and arguments raise :class:`UserError`.

    Args:
        kind: of :data:`KINDS`, or ``"speech"``: whichever of them ``pretrained`` is.
        **kwargs: of :class:`MelAudioEncoder` for ``"mel"``, of :class:`ListenerAudioEncoder` for ``"listener"``, else
            of :class:`SpeechAudioEncoder`.
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
