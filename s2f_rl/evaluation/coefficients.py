"""An actor's coefficients, written for other programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from s2f_rl.data.coefficients.basis import LinearBasis
from s2f_rl.data.coefficients.livelink import write_live_link
from s2f_rl.data.files import atomic_save_npy
from s2f_rl.errors import NotFinite, UserError
from s2f_rl.exchange.weights import write_csv
from s2f_rl.models import windowed_audio
from s2f_rl.models.contract import Actor
from s2f_rl.models.faceformer import FaceFormer
from s2f_rl.models.latent_stream import stream_latents


def animates_coefficients(actor: Actor) -> bool:
    """Whether what it animates is a rig."""
    return isinstance(actor, FaceFormer) and actor.controls is not None


@torch.no_grad()
def predicted_coefficients(actor: Actor, signal: Tensor, style: Tensor, long: bool = False) -> np.ndarray:
    """Coefficients [T, K] float32 within their bounds, of a waveform [N] (16 kHz, normalised) in a style [S].

    Args:
        long: encode in windows.

    Raises:
        UserError: the actor animates vertices. NotFinite: they are not finite.
    """
    if not isinstance(actor, FaceFormer) or actor.controls is None:
        raise UserError("this actor animates vertices and has no coefficients; fit them, or train on a corpus of them")
    if long:
        latents = torch.cat(list(stream_latents(actor, signal, style, windowed_audio.LONG)))
    else:
        features = actor.encode(signal[None].to(style.device))
        latents = actor.generate(features, style[None], progress=True)[0]
    values = actor.coefficients(latents)
    if not bool(torch.isfinite(values).all()):
        raise NotFinite("the predicted coefficients are not finite, so the actor has diverged; use another one")
    return actor.controls.clamped(values).cpu().numpy()


def rig_of(actor: Actor, template: Tensor) -> LinearBasis:
    """What an actor's coefficients do to a face at rest [V*3]: names, shapes and bounds, on the CPU.

    Raises UserError where the actor animates vertices, or coefficients without a face.
    """
    controls = actor.controls if isinstance(actor, FaceFormer) else None
    if not isinstance(actor, FaceFormer) or controls is None or not controls.has_mesh:
        raise UserError("this actor animates no face by coefficients; train it on a corpus that has them")
    assert actor.decoder.basis is not None and actor.decoder.metres_per_coefficient is not None
    shapes = (actor.decoder.basis * actor.decoder.metres_per_coefficient).detach().float().cpu()
    return LinearBasis(template.cpu().reshape(-1, 3), shapes.unflatten(1, (-1, 3)), controls.names, controls.bounds)


def save_coefficients(path: Path, actor: Actor, values: np.ndarray, form: str | None = None) -> None:
    """Write coefficients [T, K], atomically: ``.npy``, or ``.csv`` of a column ``time_s`` and one for each coefficient.

    Args:
        form: "livelink": the ``.csv`` is Live Link Face's.

    Raises:
        UserError: Live Link has no such shape.
    """
    controls = actor.controls if isinstance(actor, FaceFormer) else None
    assert controls is not None
    if path.suffix == ".npy":
        atomic_save_npy(path, values)
    elif form == "livelink":
        write_live_link(path, controls.names, values, actor.fps)
    else:
        write_csv(path, controls.names, values, actor.fps)
