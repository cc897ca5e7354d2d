"""H.264 and AAC into an mp4 file with PyAV."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from s2f_rl.data.files import atomic_path
from s2f_rl.errors import UserError
from s2f_rl.render.extras import import_extra

if TYPE_CHECKING:
    from av.container import OutputContainer


def even(picture: np.ndarray) -> np.ndarray:
    """Repeat the last row or column of [H, W, 3] where H or W is odd: the colour format halves both."""
    height, width = picture.shape[:2]
    if height % 2 or width % 2:
        picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(picture)


def write_mp4(
    path: str | os.PathLike[str],
    pictures: Iterable[np.ndarray],
    fps: Fraction,
    sound: tuple[np.ndarray, int] | None = None,
    quality: int = 18,
) -> None:
    """Write pictures (uint8 [H, W, 3]) and sound (float32 mono in -1..1, rate) as one mp4 file, atomically.

    Args:
        path: the film; replaced only when the new one is complete.
        pictures: RGB, all of one size.
        fps: frames per second, exact.
        sound: at a rate that AAC knows; starts with the first picture.
        quality: x264's constant rate factor, 18 is visually lossless.

    Raises:
        UserError: the extra is missing, the encoder is, or the path cannot be written.
    """
    av = import_extra("av")
    with atomic_path(path) as temporary:
        try:
            with av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as film:
                _encode(av, film, pictures, fps, sound, quality)
        except av.error.FFmpegError as error:
            raise UserError(f"{path}: the film cannot be written ({error}); check the disk and PyAV") from error


def _encode(
    av: ModuleType,
    film: OutputContainer,
    pictures: Iterable[np.ndarray],
    fps: Fraction,
    sound: tuple[np.ndarray, int] | None,
    quality: int,
) -> None:
    # No B-frames: the first picture is at time 0 in every player, without an edit list.
    video = film.add_stream("libx264", rate=fps, options={"crf": str(quality), "preset": "veryfast", "bf": "0"})
    video.pix_fmt = "yuv420p"
    track, waveform, rate, written = None, np.zeros(0, np.float32), 0, 0
    if sound is not None:
        waveform, rate = sound
        # Without a layout the encoder takes stereo, and mono sound loses 3 dB.
        track = film.add_stream("aac", rate=rate, layout="mono")
        track.bit_rate = 128000

    def encode_sound(until: int) -> None:
        nonlocal written
        if track is None or until <= written:
            return
        part = av.AudioFrame.from_ndarray(np.ascontiguousarray(waveform[None, written:until]), "fltp", "mono")
        part.sample_rate, part.pts, part.time_base = rate, written, Fraction(1, rate)
        film.mux(track.encode(part))
        written = until

    for index, picture in enumerate(pictures):
        picture = even(picture)
        if index == 0:
            video.height, video.width = picture.shape[:2]
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = index, 1 / fps
        film.mux(video.encode(frame))
        encode_sound(min(len(waveform), round((index + 1) / fps * rate)))  # side by side, so that nothing piles up
    film.mux(video.encode(None))
    if track is not None:
        encode_sound(len(waveform))
        film.mux(track.encode(None))
