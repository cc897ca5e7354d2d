"""Films: several sequences side by side, with captions and sound."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from s2f_rl.data.files import require_target
from s2f_rl.errors import UserError
from s2f_rl.render.camera import Camera
from s2f_rl.render.curves import CurveStrip
from s2f_rl.render.extras import import_extra
from s2f_rl.render.frames import Painter, check_size, load_sequences, make_painter
from s2f_rl.render.layout import join_panels
from s2f_rl.render.meshes import Sequence3D
from s2f_rl.render.mp4 import write_mp4
from s2f_rl.render.shading import Lighting
from s2f_rl.render.sound import Audio, fit_sound, load_sound
from s2f_rl.signs import watched

logger = logging.getLogger(__name__)
_TOLERATED_FRAMES = 3
_STRIP = 0.3  # height of the curves, in sides of a picture


def render_film(
    sequences: Sequence[Sequence3D],
    captions: Sequence[str] | None,
    faces: np.ndarray | None,
    audio: Audio | None,
    fps: float | Fraction,
    out: str | os.PathLike[str],
    size: int = 512,
    *,
    columns: int = 4,
    camera: Camera | None = None,
    colours: np.ndarray | None = None,
    samples: int = 2,
    lighting: Lighting | None = None,
    names: Sequence[str] | None = None,
    strip: CurveStrip | None = None,
) -> Path:
    """Write an mp4 film of sequences side by side, all seen by the same camera.

    The film is as long as the longest sequence; shorter ones hold their last frame, and the sound is cut or padded
    with silence, with a warning where more than three frames of it are. It is written to a temporary name and then
    renamed.

    Args:
        sequences: each [T, V*3] or [T, V, 3] in metres (array, tensor, or path of an npy file), of one V.
        captions: one line over each sequence; None for none.
        faces: integer triangles [F, 3]; None draws dots, with a warning.
        audio: sound file, or (waveform [N], rate in Hz); None for a silent film.
        fps: frames per second of the sequences.
        out: the film, a name that ends in .mp4; its folder is made.
        size: side of one picture, pixels.
        columns: sequences in a row.
        camera: None frames all sequences from the front.
        colours: uint8 [V, 3], sRGB, of the vertices (see :mod:`s2f_rl.render.colours`); None for skin throughout.
        samples: n x n samples per pixel.
        lighting: lights and background.
        names: what to call the sequences in messages.
        strip: curves under the faces, over the whole width.

    Returns:
        The path of the film.

    Raises:
        UserError: shapes, numbers, files or options that cannot be used, or the extra is missing.
    """
    out = Path(out)
    if out.suffix.lower() != ".mp4":
        raise UserError(f"{out}: films are written as mp4; choose a name that ends in .mp4")
    require_target(out)
    try:
        rate = Fraction(fps).limit_denominator(1001)
    except (TypeError, ValueError, OverflowError):
        rate = Fraction(0)
    if not 1 <= rate <= 1000:
        raise UserError(f"fps is {fps}; pass 1 to 1000 frames per second")
    if captions is not None and len(captions) != len(sequences):
        raise UserError(f"{len(captions)} captions for {len(sequences)} sequences; pass one for each")
    if columns < 1:
        raise UserError(f"columns is {columns}; pass at least 1")
    check_size(size)
    import_extra("av")  # a missing extra is told before the work, not after it
    loaded = load_sequences(sequences, names)
    sound = None
    n_frames = max(map(len, loaded))
    if audio is not None:
        waveform, sound_rate = load_sound(audio)
        spoken = int(len(waveform) / sound_rate * rate)
        if abs(n_frames - spoken) > _TOLERATED_FRAMES:
            logger.warning(
                "%s: %d frames of motion, the sound lasts %d at %g fps: it is %s; check that they belong together",
                out,
                n_frames,
                spoken,
                rate,
                "cut" if spoken > n_frames else "followed by silence",
            )
        sound = fit_sound(waveform, sound_rate, n_frames, rate)
    painter = make_painter(loaded, faces, size, camera, colours, samples, lighting)
    write_mp4(out, _pictures(loaded, painter, captions, columns, n_frames, strip), rate, sound)
    return out


def _pictures(
    sequences: Sequence[np.ndarray],
    painter: Painter,
    captions: Sequence[str] | None,
    columns: int,
    n_frames: int,
    strip: CurveStrip | None,
) -> Iterator[np.ndarray]:
    held: list[np.ndarray] = [np.empty(0)] * len(sequences)
    for t in watched(range(n_frames), "film", unit="frame", leave=False):
        for i, sequence in enumerate(sequences):
            if t < len(sequence):
                held[i] = painter.frame(sequence[t])
        picture = join_panels(held, captions, columns)
        if strip is not None:
            size = held[0].shape[1]
            picture = np.concatenate([picture, strip.frame(t, picture.shape[1], round(_STRIP * size))])
        yield picture
