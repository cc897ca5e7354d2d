"""The voices of the built-in speakers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Voice:
    """An espeak-ng voice: language and variant, pitch (0 to 99) and words per minute. sex is "F" or "M"."""

    sex: str
    espeak: str
    pitch: int
    rate: int


# Only variants without "breath" in their definition: espeak-ng seeds that noise with the time of day, so the same text
# would sound different every second.
VOICES: tuple[Voice, ...] = (
    Voice("F", "en-us+f4", 52, 146),
    Voice("M", "en-us+m3", 46, 142),
    Voice("F", "en-us+steph", 46, 138),
    Voice("M", "en-us+m7", 62, 152),
    Voice("F", "en+shelby", 40, 146),
    Voice("M", "en-us+m1", 34, 136),
    Voice("F", "en-us+Annie", 58, 154),
    Voice("M", "en+m4", 66, 150),
    Voice("F", "en-us+f1", 36, 140),
    Voice("M", "en-us+adam", 44, 138),
    Voice("F", "en-us+belinda", 64, 148),
    Voice("M", "en-gb-scotland+m2", 52, 146),
    Voice("F", "en+linda", 50, 142),
    Voice("M", "en-us+pablo", 60, 154),
    Voice("F", "en-gb-scotland+aunty", 56, 136),
    Voice("M", "en-us+m8", 40, 146),
    Voice("F", "en-us+Andrea", 44, 140),
    Voice("M", "en-us+klatt2", 52, 148),
    Voice("F", "en-gb-x-rp+grandma", 48, 138),
    Voice("M", "en-us+john", 50, 146),
    Voice("F", "en-us+anika", 42, 150),
    Voice("M", "en-gb-x-rp+robert", 48, 140),
    Voice("F", "en+steph3", 62, 152),
    Voice("M", "en-us+paul", 56, 144),
    Voice("F", "en-029+f4", 36, 146),
    Voice("M", "en-us+Diogo", 46, 150),
    Voice("F", "en-us+klatt3", 96, 142),
    Voice("M", "en+Hugo", 58, 138),
    Voice("F", "en-gb-x-rp+linda", 36, 148),
    Voice("M", "en-us+david", 60, 152),
    Voice("F", "en-us-nyc+Annie", 40, 136),
    Voice("M", "en-gb-scotland+quincy", 52, 142),
    Voice("F", "en-029+steph", 58, 140),
    Voice("M", "en-us+Nguyen", 40, 146),
    Voice("F", "en-gb-x-rp+belinda", 30, 152),
    Voice("M", "en-us+travis", 54, 138),
    Voice("F", "en+Andrea", 62, 144),
    Voice("M", "en-us+edward", 46, 142),
    Voice("F", "en-us+shelby", 66, 138),
    Voice("M", "en-gb-x-rp+ian", 60, 150),
    Voice("F", "en-gb-scotland+f1", 58, 140),
    Voice("M", "en-us+michel", 42, 148),
    Voice("F", "en-us+zac", 10, 142),
    Voice("M", "en-029+m5", 50, 146),
    Voice("F", "en-us-nyc+linda", 64, 150),
    Voice("M", "en-us+benjamin", 50, 140),
    Voice("F", "en-gb-x-rp+aunty", 38, 144),
    Voice("M", "en+miguel", 64, 152),
)


def voice_of(index: int) -> Voice:
    """Voice of the speaker with a 0-based index; beyond the list, its voices return at another pitch and rate."""
    base, turn = VOICES[index % len(VOICES)], index // len(VOICES)
    if turn == 0:
        return base
    pitch = (base.pitch + 17 * turn) % 60 + 20
    return Voice(base.sex, base.espeak, pitch, base.rate - 6 + (5 * turn) % 13)
