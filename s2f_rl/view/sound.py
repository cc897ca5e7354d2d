"""Sound inside a page: Opus where PyAV is there, else 16-bit WAV."""

from __future__ import annotations

import base64
import io
import logging
from fractions import Fraction

import numpy as np
import soundfile

from s2f_rl.data.audio import resample

_log = logging.getLogger(__name__)
_OPUS_HZ = 48000
_BITS_PER_S = 48000
_FRAME = 960  # samples: 20 ms


def sound_url(waveform: np.ndarray, rate: int) -> str:
    """A waveform (float32 [N], -1..1, mono) as ``data:`` address: Opus in WebM at 48 kbit/s, or 16-bit WAV.

    Both start with the waveform's first sample: WebM says how much the encoder put before it, and browsers skip that.
    """
    try:
        content, kind = _opus(resample(waveform, rate, _OPUS_HZ)), "audio/webm"
    except ImportError:
        _log.warning('the sound is stored as WAV, which is large; for Opus run: pip install "s2f_rl[render]"')
        buffer = io.BytesIO()
        soundfile.write(buffer, waveform, rate, format="WAV", subtype="PCM_16")
        content, kind = buffer.getvalue(), "audio/wav"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _opus(waveform: np.ndarray) -> bytes:
    import av

    # the encoder takes whole frames; what is added after the end is silence
    padded = np.pad(waveform, (0, -len(waveform) % _FRAME)).astype(np.float32, copy=False)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="webm") as file:
        track = file.add_stream("libopus", rate=_OPUS_HZ, layout="mono")
        track.bit_rate = _BITS_PER_S
        for start in range(0, len(padded), _FRAME):
            part = np.ascontiguousarray(padded[None, start : start + _FRAME])
            frame = av.AudioFrame.from_ndarray(part, "flt", "mono")
            frame.sample_rate, frame.pts, frame.time_base = _OPUS_HZ, start, Fraction(1, _OPUS_HZ)
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
    return buffer.getvalue()
