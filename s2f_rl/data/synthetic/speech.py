"""Speech with phone timings from espeak-ng (optional extra `demo`)."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from s2f_rl.data.synthetic.phones import SILENCE, UNVOICED_STOPS, from_espeak
from s2f_rl.data.synthetic.voices import Voice
from s2f_rl.errors import UserError

LEAD_S = 0.25
"""Silence before the first sound: the face starts at rest and may prepare."""
TAIL_S = 0.20
PEAK = 0.7
"""Highest sample of every utterance; voices differ in loudness by a factor of 3 otherwise."""
_TIMEOUT_S = 60
_FRAME_S = 0.005
_QUIET = 0.04
_LONGEST_CLOSURE_S = 0.11


@dataclass(frozen=True, eq=False)
class Speech:
    """samples [N] int16 at rate_hz, and (phone, start s, end s) from 0 to the end without gaps."""

    samples: NDArray[np.int16]
    rate_hz: int
    phones: list[tuple[str, float, float]]

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.rate_hz

    def wav_bytes(self) -> bytes:
        """A mono 16-bit WAV file."""
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(self.rate_hz)
            file.writeframes(self.samples.astype("<i2").tobytes())
        return buffer.getvalue()


def require_espeak() -> tuple[str, str]:
    """Paths of the espeak-ng library and its data. Raises `UserError` when the extra is not installed."""
    try:
        import espeakng_loader

        return str(espeakng_loader.get_library_path()), str(espeakng_loader.get_data_path())
    except ImportError as error:
        raise UserError('the built-in corpus needs espeak-ng; install it with: pip install "s2f_rl[demo]"') from error


def speak(text: str, voice: Voice) -> Speech:
    """Speak a sentence. The same text and voice give the same samples, always: see `espeak_child.py`.

    Phone names are those of `phones.PHONES`. espeak-ng marks an unvoiced stop at its burst; here its interval begins
    with the silent closure before it, as forced aligners have it.

    Raises `UserError` when espeak-ng is not installed or fails.
    """
    return speak_in_turn([(text, voice)])[0]


def speak_in_turn(texts: Sequence[tuple[str, Voice]], data: str | None = None) -> list[Speech]:
    """`speak` of many (text, voice) by one process, several times as fast.

    The same list gives the same samples, but a text's samples depend on what was said before it. `data`: a folder of
    voices in place of espeak-ng's own.

    Raises `UserError` as `speak` does.
    """
    library, own = require_espeak()
    said = [{"voice": v.espeak, "rate": v.rate, "pitch": v.pitch, "text": text} for text, v in texts]
    request = {"library": library, "data": data or own, "utterances": said}
    child = Path(__file__).with_name("espeak_child.py")
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(child)],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=_TIMEOUT_S + len(texts),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"espeak-ng could not be run ({error}); reinstall espeakng-loader") from error
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise UserError(f"espeak-ng failed ({reason[0]}); reinstall espeakng-loader")
    rest, found = done.stdout, []
    for text, _ in texts:
        head, _, rest = rest.partition(b"\n")
        answer = json.loads(head)
        sound = np.frombuffer(rest[: answer["n_bytes"]], dtype="<i2")
        found.append(_speech(text, int(answer["rate_hz"]), answer["phones"], sound))
        rest = rest[answer["n_bytes"] :]
    return found


def _speech(text: str, rate_hz: int, onsets: Sequence[tuple[str, int]], sound: NDArray[np.int16]) -> Speech:
    """What espeak-ng said, at full level and between silences; ``onsets`` of its phones in samples."""
    if len(sound) == 0 or not onsets:
        raise UserError(f"espeak-ng made no sound of {text!r}; reinstall espeakng-loader")
    scale = PEAK * 32767 / max(int(np.abs(sound.astype(np.int32)).max()), 1)
    lead, tail = np.zeros(round(LEAD_S * rate_hz), np.int16), np.zeros(round(TAIL_S * rate_hz), np.int16)
    samples = np.concatenate([lead, np.round(sound * scale).astype(np.int16), tail])
    starts = [(from_espeak(name), len(lead) + start) for name, start in onsets]
    return Speech(samples, rate_hz, _intervals(starts, samples, rate_hz))


def _intervals(
    starts: list[tuple[str, int]], samples: NDArray[np.int16], rate_hz: int
) -> list[tuple[str, float, float]]:
    """Phone onsets (in samples) to gapless intervals in seconds, silences joined, stops given their closures."""
    starts = [(SILENCE, 0), *sorted(starts, key=lambda s: s[1])]
    quiet = _QUIET * float(np.abs(samples.astype(np.float64)).max())
    for k in range(1, len(starts)):
        phone, start = starts[k]
        if phone in UNVOICED_STOPS:
            earliest = max(starts[k - 1][1] + round(0.03 * rate_hz), start - round(_LONGEST_CLOSURE_S * rate_hz))
            starts[k] = (phone, _closure_start(samples, start, earliest, round(_FRAME_S * rate_hz), quiet))
    out: list[tuple[str, float, float]] = []
    for (phone, start), (_, end) in zip(starts, [*starts[1:], (SILENCE, len(samples))], strict=True):
        if end <= start:
            continue
        if out and phone == SILENCE == out[-1][0]:
            out[-1] = (SILENCE, out[-1][1], round(end / rate_hz, 6))
        else:
            out.append((phone, round(start / rate_hz, 6), round(end / rate_hz, 6)))
    return out


def _closure_start(samples: NDArray[np.int16], burst: int, earliest: int, step: int, quiet: float) -> int:
    """Where the silence that ends at `burst` begins, not before `earliest`: in steps whose RMS stays below `quiet`."""
    at = burst
    while at - step >= earliest and np.sqrt(np.mean(samples[at - step : at].astype(np.float64) ** 2)) < quiet:
        at -= step
    return at
