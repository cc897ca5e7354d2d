"""More voices and more sentences than the built-in corpus has, for a corpus of adaptation: sound, without meshes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from s2f_rl.data.files import load_json
from s2f_rl.data.synthetic.sentences import N_SHARED_POOL, SENTENCES
from s2f_rl.data.synthetic.speakers import make_speaker
from s2f_rl.data.synthetic.speech import speak_in_turn
from s2f_rl.data.synthetic.voices import VOICES, Voice, voice_of
from s2f_rl.errors import UserError

MOST_SENTENCES = N_SHARED_POOL


def texts_for(said: list[str], index: int, n_sentences: int) -> list[str]:
    """Texts of training speakers that a voice has not said yet, until it has ``n_sentences``; each index its own."""
    if n_sentences > MOST_SENTENCES:
        raise UserError(f"{n_sentences} sentences: training speakers say {MOST_SENTENCES} texts, so at most as many")
    pool = [text for text in SENTENCES[:N_SHARED_POOL] if text not in said]
    return [pool[(9 * index + k) % len(pool)] for k in range(max(0, n_sentences - len(said)))]


def further_voices(n: int, n_speakers: int, spared: set[int]) -> list[int]:
    """Indices of ``n`` voices behind those of ``n_speakers``: the same throats at another pitch and rate.

    Args:
        spared: indices of speakers on whom is tested, whose voices do not return.
    """
    found, index = [], n_speakers
    while len(found) < n:
        if index % len(VOICES) not in spared:
            found.append(index)
        index += 1
    return found


def speak_into(folder: Path, name: str, voice: Voice, texts: list[str], first: int) -> dict[str, str]:
    """Write sound and phones of NAME_sentenceNN, from number ``first`` on. Returns the transcripts by name."""
    speech = speak_in_turn([(text, voice) for text in texts])
    names = [f"{name}_sentence{first + k:02d}" for k in range(len(texts))]
    for one, spoken in zip(names, speech, strict=True):
        (folder / "wav" / f"{one}.wav").write_bytes(spoken.wav_bytes())
        (folder / "phones" / f"{one}.json").write_text(json.dumps(spoken.phones) + "\n")
    return dict(zip(names, texts, strict=True))


def add(
    folder: Path, seed: int, prefix: str, voices: list[str], n_voices: int, n_sentences: int, spared: list[str]
) -> dict[str, NDArray[np.float32]]:
    """Add to a corpus of adaptation that is being written, of whose voices ``prefix + voice`` have sound alone.

    Args:
        folder: with its wav, phones, speakers.json and transcripts.json.
        seed: of the faces of further voices.
        voices: speakers who are there. n_voices, n_sentences: of these and the further ones together, and of each.
        spared: speakers on whom is tested, whose voices are not used again.

    Returns:
        templates [V, 3] of the further subjects by name.
    """
    about = load_json(folder / "speakers.json")["speakers"]
    order = [entry["name"] for entry in about]
    said = load_json(folder / "transcripts.json")
    for voice in voices:
        own = [text for name, text in said.items() if name.startswith(f"{prefix}{voice}_")]
        index = order.index(voice)
        texts = texts_for(own, index, n_sentences)
        said |= speak_into(folder, prefix + voice, Voice(**about[index]["voice"]), texts, len(own) + 1)
    templates = {}
    for index in further_voices(n_voices - len(voices), len(order), {order.index(name) for name in spared}):
        name = f"{prefix}V{index + 1:03d}"
        said |= speak_into(folder, name, voice_of(index), texts_for([], index, n_sentences), 1)
        templates[name] = make_speaker(index, seed, about[0]["n_vertices"]).template
    (folder / "transcripts.json").write_text(json.dumps(said, indent=1) + "\n")
    return templates
