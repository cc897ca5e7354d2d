"""The built-in speakers: a voice, a face and a way of moving it each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s2f_rl.data.files import load_json
from s2f_rl.data.synthetic.face import Face, build_face
from s2f_rl.data.synthetic.head import Identity
from s2f_rl.data.synthetic.rig import Rig, build_rig
from s2f_rl.data.synthetic.voices import Voice, voice_of
from s2f_rl.errors import UserError

SPEAKERS_FILE = "speakers.json"
FORMAT = 1


@dataclass(frozen=True)
class Style:
    """How a person moves: factors unless said otherwise."""

    jaw: float = 1.0
    lips: float = 1.0
    """On spreading and on raising and lowering the lips."""
    rounding: float = 1.0
    speed: float = 1.0
    anticipation: float = 1.0
    """How early gestures begin."""
    smoothing_s: float = 0.018
    closure_time: float = 0.055
    """Seconds from open to closed lips."""
    habit_spread: float = 0.0
    """Added to spread while speaking: a smile."""
    habit_round: float = 0.0
    asymmetry: float = 0.0
    blink_hz: float = 0.3
    brow_hz: float = 0.4
    brow_height: float = 0.5

    def gain(self, articulator: str) -> float:
        """Factor of this person on a speech articulator."""
        if articulator == "jaw":
            return self.jaw
        if articulator in ("round", "protrude"):
            return self.rounding
        return self.lips if articulator in ("spread", "upper_raise", "lower_depress") else 1.0


@dataclass(frozen=True)
class Complexion:
    """Colours, sRGB 0 to 255."""

    skin: tuple[int, int, int] = (214, 170, 146)
    lips: tuple[int, int, int] = (190, 112, 106)
    hair: tuple[int, int, int] = (66, 46, 36)
    iris: tuple[int, int, int] = (72, 92, 104)


@dataclass(frozen=True)
class Speaker:
    """All that is fixed about a speaker. Face and rig are built on first use."""

    name: str
    voice: Voice
    identity: Identity
    style: Style
    complexion: Complexion
    n_vertices: int

    @cached_property
    def rig(self) -> Rig:
        """The face with its articulators."""
        return build_rig(build_face(self.identity, self.n_vertices), self.style.asymmetry)

    @property
    def face(self) -> Face:
        return self.rig.face

    @property
    def template(self) -> NDArray[np.float32]:
        """The resting face [V, 3] in metres, float32."""
        return self.face.template

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Speaker:
        """Inverse of `to_json`. Raises `KeyError` or `TypeError` for other content."""
        complexion = {k: (int(v[0]), int(v[1]), int(v[2])) for k, v in content["complexion"].items()}
        identity = {f.name: float(content["identity"][f.name]) for f in fields(Identity)}
        return cls(
            name=str(content["name"]),
            voice=Voice(**content["voice"]),
            identity=Identity(**identity),
            style=Style(**{f.name: float(content["style"][f.name]) for f in fields(Style)}),
            complexion=Complexion(**complexion),
            n_vertices=int(content["n_vertices"]),
        )


def make_speaker(index: int, seed: int, n_vertices: int) -> Speaker:
    """Speaker number `index` (0-based) of the cast of a seed. The voice depends on the index alone."""
    voice = voice_of(index)
    rng = np.random.default_rng(np.random.SeedSequence([seed, index, 1]))
    return Speaker(
        name=f"S{index + 1:02d}_{voice.sex}",
        voice=voice,
        identity=_draw_identity(rng, voice.sex == "F"),
        style=_draw_style(rng),
        complexion=_draw_complexion(rng),
        n_vertices=n_vertices,
    )


def load_speakers(root: str | Path) -> dict[str, Speaker]:
    """The speakers of a built-in corpus by name, ready to `generate`. Raises `UserError` for anything else."""
    path = Path(root) / SPEAKERS_FILE
    content = load_json(path)
    try:
        if content["format"] != FORMAT:
            raise UserError(f"{path}: format {content['format']!r} is not {FORMAT}; it was written by another version")
        return {entry["name"]: Speaker.from_json(entry) for entry in content["speakers"]}
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(f"{path}: not the speakers of a built-in corpus ({error}); write the corpus again") from error


# mean and spread of the measures that differ between faces; men, then the shift of women
_MEASURES: dict[str, tuple[float, float, float]] = {
    "head_width": (1.0, 0.025, -0.01),
    "face_length": (1.5, 3.5, -3.0),
    "jaw_width": (2.5, 3.0, -4.5),
    "cheek_width": (0.0, 2.0, 0.5),
    "cheek_fullness": (0.0, 2.0, 0.8),
    "chin_forward": (0.5, 2.0, -1.0),
    "chin_width": (2.0, 2.5, -4.0),
    "nose_length": (1.0, 2.4, -2.0),
    "nose_width": (0.8, 1.3, -1.2),
    "nose_forward": (0.5, 2.0, -1.5),
    "nose_bridge": (0.8, 1.6, -1.2),
    "brow_ridge": (1.2, 1.2, -2.0),
    "brow_height": (-0.8, 1.1, 1.8),
    "brow_thickness": (1.15, 0.15, -0.4),
    "eye_distance": (0.0, 1.1, 0.0),
    "eye_size": (0.96, 0.08, 0.12),
    "eye_tilt": (0.3, 1.1, 0.5),
    "mouth_width": (0.8, 1.8, -1.2),
    "mouth_height": (0.0, 0.8, 0.3),
    "upper_lip": (0.92, 0.13, 0.16),
    "lower_lip": (0.95, 0.12, 0.14),
    "lip_forward": (0.0, 0.7, 0.4),
    "forehead": (0.0, 2.0, 0.0),
    "neck_width": (2.0, 2.0, -8.0),
    "ear_size": (1.03, 0.06, -0.1),
    "hairline": (4.0, 4.0, -3.0),
}


def _draw_identity(rng: np.random.Generator, woman: bool) -> Identity:
    measures = {}
    for name, (mean, spread, shift) in _MEASURES.items():
        deviation = float(np.clip(rng.normal(), -1.8, 1.8))
        measures[name] = round(mean + shift * woman + spread * deviation, 4)
    measures["hair_length"] = round(float(rng.choice([0.0, 0.6, 1.0]) if woman else 0.0), 4)
    measures["hair_thickness"] = round(float(rng.uniform(8, 14) if woman else rng.choice([2.5, 5.0, 7.0, 9.0])), 4)
    return Identity(**measures)


def _draw_style(rng: np.random.Generator) -> Style:
    def factor(spread: float) -> float:
        return round(float(np.exp(np.clip(rng.normal(), -1.8, 1.8) * spread)), 4)

    def near(mean: float, spread: float) -> float:
        return round(float(mean + spread * np.clip(rng.normal(), -1.8, 1.8)), 4)

    return Style(
        jaw=factor(0.16),
        lips=factor(0.18),
        rounding=factor(0.13),
        speed=factor(0.12),
        anticipation=factor(0.2),
        smoothing_s=near(0.019, 0.003),
        closure_time=near(0.056, 0.007),
        habit_spread=near(0.06, 0.09),
        habit_round=max(near(0.0, 0.08), 0.0),
        asymmetry=near(0.0, 0.11),
        blink_hz=near(0.32, 0.09),
        brow_hz=near(0.45, 0.15),
        brow_height=near(0.5, 0.22),
    )


_SKINS = ((236, 196, 174), (224, 178, 150), (206, 158, 128), (178, 128, 98), (142, 96, 70), (106, 70, 52))
_HAIRS = ((46, 34, 28), (28, 24, 24), (86, 58, 38), (128, 92, 56), (120, 66, 40), (96, 92, 90))
_IRISES = ((70, 96, 116), (84, 98, 70), (78, 56, 38), (58, 42, 30), (96, 110, 118))


def _draw_complexion(rng: np.random.Generator) -> Complexion:
    tone = int(rng.integers(len(_SKINS)))
    jitter = rng.integers(-6, 7)
    r, g, b = (int(np.clip(c + jitter, 0, 255)) for c in _SKINS[tone])
    dark = tone >= 3
    hair = _HAIRS[int(rng.integers(2 if dark else len(_HAIRS)))]
    iris = _IRISES[int(rng.integers(2, 4) if dark else rng.integers(len(_IRISES)))]
    # lips are skin with more blood: red stays, green and blue go
    return Complexion((r, g, b), (int(r * 0.88), int(g * 0.64), int(b * 0.70)), hair, iris)
