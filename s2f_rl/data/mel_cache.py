"""Mel clips kept beside a corpus, so that they are computed once.

``wav_npy/NAME.npy`` holds the clips; ``wav_npy/NAME.key`` says of which sound and settings, so that the clips of a
replaced recording are never used. A file without a key (another program's) is used only if it agrees with the sound.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from s2f_rl.data.files import atomic_save_npy, atomic_write_text, load_npy, open_file, read_text
from s2f_rl.data.mel import CLIP_SAMPLES, CLIP_SHAPE, SAMPLES_PER_FRAME, mel_clips, n_mel_clips
from s2f_rl.errors import UserError

logger = logging.getLogger(__name__)
_LARGEST_KEY = 1000  # bytes
_SETTINGS = "mel 2"  # raise when the clips change
_TOLERANCE = 1e-2
"""Largest difference at which a foreign file still agrees: other front ends and resamplers of the same definition stay
below it, another sound or another definition does not."""


def cached_mel_clips(
    folder: Path, name: str, wav: Path, rate: int, n_samples: int, read: Callable[[], np.ndarray]
) -> torch.Tensor:
    """The mel clips of one utterance: read from ``folder`` if they are right, else computed and, if possible, kept.

    Args:
        folder: ``wav_npy`` of the corpus; made when missing. Where it cannot be written nothing is kept.
        name: the utterance's name.
        wav: its sound file.
        rate: 640*fps, in Hz.
        n_samples: length of the waveform at ``rate``.
        read: gives the waveform at ``rate``.

    Returns:
        float32 [n, 20, 128].
    """
    path, key_path = folder / f"{name}.npy", folder / f"{name}.key"
    key = _key(wav, rate)
    try:
        written_key = read_text(key_path, largest=_LARGEST_KEY) if key_path.is_file() else None
    except UserError:
        written_key = ""
    shape = (n_mel_clips(n_samples), *CLIP_SHAPE)
    exists = path.exists()
    if exists and written_key in (key, None):
        clips = _load(path, shape)
        if clips is not None and (written_key == key or _agrees(clips, read())):
            return clips
    clips = mel_clips(read())
    if exists and written_key is None:  # somebody else's: leave it
        logger.warning("%s: does not agree with %s and is not used; delete it to have it written again", path, wav)
        return clips
    try:
        # The clips go first and come last: whenever this is killed, clips beside a key are of that key, and clips
        # without one somebody else's.
        path.unlink(missing_ok=True)
        atomic_write_text(key_path, key)
        atomic_save_npy(path, clips.numpy())
    except (UserError, OSError):
        logger.debug("%s: mel clips are not kept, the folder cannot be written", folder)
    return clips


def clips_agree(path: Path, waveform: np.ndarray) -> bool:
    """Whether the clips in ``path`` are those of ``waveform`` (at 640*fps Hz)."""
    clips = _load(path, (n_mel_clips(len(waveform)), *CLIP_SHAPE))
    return clips is not None and _agrees(clips, waveform)


def _key(wav: Path, rate: int) -> str:
    digest = hashlib.sha256()
    with open_file(wav) as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return f"{_SETTINGS} {rate} {digest.hexdigest()}\n"


def _load(path: Path, shape: tuple[int, ...]) -> torch.Tensor | None:
    try:
        array = load_npy(path, mmap=False)
    except UserError:
        return None
    if array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
        return None
    return torch.from_numpy(np.array(array, dtype=np.float32))


def _agrees(clips: torch.Tensor, waveform: np.ndarray) -> bool:
    for i in sorted({0, len(clips) // 2, len(clips) - 1}) if len(clips) else ():
        start = i * SAMPLES_PER_FRAME
        expected = mel_clips(waveform[start : start + CLIP_SAMPLES])
        if not torch.allclose(clips[i], expected[0], rtol=0, atol=_TOLERANCE):
            return False
    return True
