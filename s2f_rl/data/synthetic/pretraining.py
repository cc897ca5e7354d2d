"""Speech that a phone recogniser is taught on: many espeak-ng voices, none of them a speaker of the built-in corpus."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from s2f_rl.data.synthetic.sentences import N_SHARED_POOL, SENTENCES
from s2f_rl.data.synthetic.speech import Speech, require_espeak, speak_in_turn
from s2f_rl.data.synthetic.voices import VOICES, Voice

BASES = (
    "en", "en-029", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-gb-x-rp", "en-us", "en-us-nyc",
)  # fmt: skip
"""The accents of English."""
HELD_OUT_VARIANTS = frozenset(voice.espeak.partition("+")[2] for voice in VOICES)
"""Voice variants of the built-in speakers: never heard here, in no accent."""
RATES, PITCHES = (110, 190), (10, 95)
"""Words per minute, and espeak-ng's pitch: lowest and highest."""
_LISTS = 0.65  # share of utterances that are word lists
_WORDS = (5, 9)  # in a list
_INVENTED = 0.6  # share of its words that nobody says
_PAUSE = 0.15  # share of its words with a comma behind
_POOL = SENTENCES[:N_SHARED_POOL]
_KNOWN = tuple(sorted({word.strip(".,?!'").lower() for text in _POOL for word in text.split()}))
_ONSETS = (
    "b bl br c ch cl cr d dr dw f fl fr g gl gr h j k kn l m m m n p p pl pr qu r s sc sh sk sl sm sn sp spl spr st "
    "str sw t th tr tw v v w w wh wr y z"
).split() + ["", ""]
_NUCLEI = "a a ai air ar ay e e ea ee er ew i i igh ir o o oa oi oo or ou ow oy u u ur aw".split()
_CODAS = (
    "b ck d f ft g ge l ld lf lm lp lt lve m m mb mp n nch nd ng nk nt p p pt rm s sh sk sp ss st t th tch v ve x z"
).split() + [""] * 12


class Voices(NamedTuple):
    """espeak-ng voices by name, and the folder that defines them."""

    data: str
    names: list[str]


@contextmanager
def pretraining_voices(n_invented: int, rng: np.random.Generator) -> Iterator[Voices]:
    """The voices heard here: espeak-ng's variants that are not held out in half of the accents, and invented ones.

    A variant with "breath" in its definition is left out as well, since its noise is another one every second.

    Raises `UserError` when espeak-ng is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "espeak-ng-data"
        # espeak-ng knows 350 voices at most: English and its variants leave the most room
        shutil.copytree(require_espeak()[1], data, ignore=_other_languages)
        variants = data / "voices" / "!v"
        known = sorted(
            path.name
            for path in variants.iterdir()
            if path.name not in HELD_OUT_VARIANTS and "breath" not in path.read_text(errors="replace")
        )
        names = [f"{base}+{variant}" for k, variant in enumerate(known) for base in BASES[k % 2 :: 2]]
        for k in range(n_invented):
            (variants / f"new{k}").write_text(_invented_voice(f"new{k}", rng))
            names.append(f"{BASES[k % len(BASES)]}+new{k}")
        yield Voices(str(data), names)


def _other_languages(folder: str, names: list[str]) -> list[str]:
    kept = {"lang": "gmw", "gmw": "en", "voices": "!v"}.get(Path(folder).name, "")
    return [name for name in names if not name.startswith(kept) or (name.endswith("_dict") and name != "en_dict")]


def _invented_voice(name: str, rng: np.random.Generator) -> str:
    """A definition: a throat of some length, formants that deviate from it, a pitch."""
    throat, pitch = rng.uniform(0.85, 1.4), rng.uniform(70, 240)
    lines = ["language variant", f"name {name}", f"pitch {pitch:.0f} {pitch * rng.uniform(1.1, 1.7):.0f}"]
    lines.append(f"flutter {rng.integers(0, 13)}")
    for formant in range(9):
        frequency = 100 * throat * np.exp(rng.uniform(-0.12, 0.12))
        height, width = rng.uniform(55, 130), rng.uniform(80, 180)
        shift = rng.uniform(-1, 0) * {1: 30, 2: 250}.get(formant, 0) * (rng.random() < 0.4)  # Hz
        lines.append(f"formant {formant} {frequency:.0f} {height:.0f} {width:.0f} {shift:.0f}")
    return "\n".join(lines) + "\n"


def say(voices: Voices, name: str, n_utterances: int, rng: np.random.Generator) -> list[Speech]:
    """Utterances of one voice, each with a pitch and a rate of its own.

    Raises `UserError` as :func:`~s2f_rl.data.synthetic.speech.speak` does.
    """
    texts = [(text_of(rng), Voice("", name, *_drawn(rng))) for _ in range(n_utterances)]
    return speak_in_turn(texts, voices.data)


def _drawn(rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(*PITCHES)), int(rng.integers(*RATES))


def text_of(rng: np.random.Generator) -> str:
    """A sentence of the corpus's training texts, or a list of their words and of invented ones."""
    if rng.random() > _LISTS:
        return str(rng.choice(_POOL))
    words = [
        (_invented(rng) if rng.random() < _INVENTED else str(rng.choice(_KNOWN))) + "," * (rng.random() < _PAUSE)
        for _ in range(rng.integers(*_WORDS, endpoint=True))
    ]
    return " ".join(words).rstrip(",") + "."


def _invented(rng: np.random.Generator) -> str:
    """One to three syllables."""
    return "".join(
        str(rng.choice(part))
        for _ in range(rng.choice(3, p=(0.4, 0.45, 0.15)) + 1)
        for part in (_ONSETS, _NUCLEI, _CODAS)
    )
