"""What a corpus says about itself: ``corpus.json``, or the defaults of VOCASET and BIWI.

| key                        | meaning, and what it is where it is left out                                            |
|----------------------------|-----------------------------------------------------------------------------------------|
| topology                   | the published corpus whose defaults hold: "vocaset" (also where left out) or "biwi"     |
| stored_fps, frame_step     | frames per second of the vertex files, and every how many-th is used: together 10 to    |
|                            | 120 fps. The preset's (60 and 2, 25 and 1); another stored_fps alone: every frame       |
| units, metres_per_unit     | unit of vertices and templates in the files, as a word (metres, cm, mm, inches) or a    |
|                            | size in metres. Metres; published BIWI tells by its size                                |
| audio_features_per_frame   | features of the speech encoder for each frame. 1; BIWI 2                                |
| training_subjects          | order of the style columns. The subjects of the split "train"                           |
| splits                     | {name: {"subjects": [..], "sentences": [first, last]}}. FaceFormer's                    |
| n_vertices                 | compared with the templates where it stands                                             |
| dataset                    | a name for reports                                                                      |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from s2f_rl.data.clock import HIGHEST_FPS, LOWEST_FPS, PRESETS, Clock
from s2f_rl.data.files import is_there, load_json
from s2f_rl.data.splits import ALL, DEFAULT_SPLITS, Split
from s2f_rl.errors import UserError

FILE = "corpus.json"
TOPOLOGIES = tuple(PRESETS)
"""Names of the published corpora, whose layout an undescribed folder is taken to have."""
FORMAT = 1
STORED = {"vocaset": (60, 2), "biwi": (25, 1)}
"""Stored frames per second and step between the frames used, by published corpus."""
N_VERTICES = {"vocaset": 5023, "biwi": 23370}
_PREFIXES = {1.0: ("", ""), 0.1: ("deci", "d"), 0.01: ("centi", "c"), 0.001: ("milli", "m"), 1e-6: ("micro", "u")}
METRES_PER_UNIT = {
    **{f"{long}met{end}": size for size, (long, _) in _PREFIXES.items() for end in ("res", "re", "ers", "er")},
    **{f"{short}m": size for size, (_, short) in _PREFIXES.items()},
    **dict.fromkeys(("inches", "inch", "in"), 0.0254),
}
PUBLISHED = "as published"
"""The unit of published BIWI, in words."""
BIWI_METRES_PER_UNIT = 0.1856
"""The published preprocessing of BIWI divides each face by the root of its surface area. That root, averaged over the
14 subjects, in metres (EvelynFan/FaceFormer, public measurement of the subjects' scale factors: 174 to 201 mm)."""


@dataclass(frozen=True)
class CorpusDescription:
    """How the files of a corpus are to be read.

    Attributes:
        dataset: a name for reports ("vocaset", "biwi", "synthetic", ...).
        topology: the published corpus whose layout and defaults it has, "vocaset" or "biwi".
        stored_fps: frames per second of the vertex files.
        frame_step: every ``frame_step``-th stored frame is used.
        audio_features_per_frame: A.
        units: unit of the vertices in the files, in words.
        metres_per_unit: its size; None for published BIWI, whose faces tell by their size.
        training_subjects: order of the style columns.
        splits: the utterances of each split.
        metadata: the whole of ``corpus.json``.
    """

    dataset: str
    topology: str
    stored_fps: float
    frame_step: int
    audio_features_per_frame: int
    units: str
    metres_per_unit: float | None
    training_subjects: tuple[str, ...]
    splits: dict[str, Split]
    metadata: dict[str, object] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        """Frames per second of the motion; an int where it is whole."""
        fps = self.stored_fps / self.frame_step
        return int(fps) if float(fps).is_integer() else fps

    @property
    def clock(self) -> Clock:
        """Rate and features per frame."""
        return Clock(self.fps, self.audio_features_per_frame)


def read_description(root: Path, topology: str | None = None) -> CorpusDescription:
    """Read ``corpus.json``, or fall back on FaceFormer's use of VOCASET and BIWI where there is none.

    Args:
        root: the corpus folder.
        topology: "vocaset" or "biwi"; None takes what ``corpus.json`` says, else "vocaset".

    Raises:
        UserError: unknown topology, a contradiction with ``corpus.json``, or something wrong in it.
    """
    if topology is not None and topology not in TOPOLOGIES:
        raise UserError(f"topology={topology!r}: unknown; known are {', '.join(TOPOLOGIES)}")
    path = root / FILE
    if is_there(path):
        return parse_description(load_json(path), path, topology)
    return default_description(topology or "vocaset")


def default_description(topology: str) -> CorpusDescription:
    """FaceFormer's use of a published corpus: its splits, frame rates and units."""
    stored_fps, frame_step = STORED[topology]
    splits = DEFAULT_SPLITS[topology]
    units, size = ("metres", 1.0) if topology == "vocaset" else (PUBLISHED, None)
    return CorpusDescription(
        dataset=topology,
        topology=topology,
        stored_fps=stored_fps,
        frame_step=frame_step,
        audio_features_per_frame=PRESETS[topology].features_per_frame,
        units=units,
        metres_per_unit=size,
        training_subjects=splits["train"].subjects,
        splits=dict(splits),
        metadata={"dataset": topology, "topology": topology, "units": units},
    )


def parse_description(content: object, path: Path, topology: str | None = None) -> CorpusDescription:
    """Check the content of a ``corpus.json``. Raises UserError naming the file and the key."""
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds {type(content).__name__} where an object is expected; mend or delete it")
    if content.get("format", FORMAT) != FORMAT:
        raise UserError(f"{path}: format {content['format']!r} is not {FORMAT}; it was written by another version")
    own = content.get("topology", topology or "vocaset")
    if own not in TOPOLOGIES:
        raise UserError(f"{path}: topology {own!r} is unknown; known are {', '.join(TOPOLOGIES)}")
    if topology is not None and topology != own:
        raise UserError(f"topology={topology!r}: {path} says {own!r}; leave the argument out or mend the file")
    stored_fps, step = _rates(content, own, path)
    features = _number(content, "audio_features_per_frame", PRESETS[own].features_per_frame, path, low=1, high=8)
    if features != int(features):
        raise UserError(f"{path}: audio_features_per_frame is {features}; it must be a whole number")
    units, size = _unit(content, own, path)
    splits = _splits(content.get("splits"), own, path)
    training = _strings(content.get("training_subjects"), "training_subjects", path)
    if training is None:
        training = splits["train"].subjects if "train" in splits else ()
    return CorpusDescription(
        dataset=str(content.get("dataset", own)),
        topology=own,
        stored_fps=stored_fps,
        frame_step=step,
        audio_features_per_frame=int(features),
        units=units,
        metres_per_unit=size,
        training_subjects=training,
        splits=splits,
        metadata=dict(content),
    )


def _rates(content: Mapping[str, object], topology: str, path: Path) -> tuple[float, int]:
    """``stored_fps`` and ``frame_step``; a file that states another stored rate than the preset uses every frame."""
    preset_fps, preset_step = STORED[topology]
    wanted = content.get("fps")  # not one of our keys, but what a person writes first
    if wanted is not None and "stored_fps" not in content:
        step = _number(content, "frame_step", 1, path, low=1, high=100)
        stored_fps = _number(content, "fps", None, path, low=1, high=1000) * step
    else:
        stored_fps = _number(content, "stored_fps", preset_fps, path, low=1, high=1000)
        usual_step = preset_step if stored_fps == preset_fps else 1
        step = _number(content, "frame_step", usual_step, path, low=1, high=100)
    if step != int(step):
        raise UserError(f"{path}: frame_step is {step}; it must be a whole number")
    fps = stored_fps / step
    if wanted is not None and not (isinstance(wanted, (int, float)) and math.isclose(wanted, fps, rel_tol=1e-3)):
        raise UserError(f"{path}: fps is {str(wanted)[:40]}, but stored_fps/frame_step is {fps:g}; leave fps out")
    if not LOWEST_FPS <= fps <= HIGHEST_FPS:
        raise UserError(
            f"{path}: stored_fps/frame_step is {fps:g}, a face is animated at {LOWEST_FPS:g} to {HIGHEST_FPS:g} frames "
            "per second; use every n-th frame (frame_step) or resample the motion"
        )
    return stored_fps, int(step)


def _unit(content: Mapping[str, object], topology: str, path: Path) -> tuple[str, float | None]:
    """Unit of the files in words and its size in metres; None for published BIWI."""
    units = content.get("units", "metres" if topology == "vocaset" else PUBLISHED)
    if not isinstance(units, str):
        raise UserError(f"{path}: units must be a word such as metres")
    known = METRES_PER_UNIT.get(units.strip().lower())
    if content.get("metres_per_unit") is None:
        if known is None and not (units == PUBLISHED and topology == "biwi"):
            raise UserError(f"{path}: units is {units[:40]!r}, whose size is not known; give it as metres_per_unit")
        return units, known
    size = _number(content, "metres_per_unit", None, path, low=1e-9, high=1e6)
    if "units" not in content:
        return "units of their own", size
    if known is not None and not math.isclose(size, known, rel_tol=1e-3):
        raise UserError(f"{path}: units is {units!r}, but metres_per_unit is {size:g}; leave one of them out")
    return units, size


def _number(
    content: Mapping[str, object], key: str, default: float | None, path: Path, low: float, high: float
) -> float:
    value = content.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise UserError(f"{path}: {key} is {str(value)[:40]}; it must be a number from {low:g} to {high:g}")
    return value


def _strings(value: object, key: str, path: Path) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UserError(f"{path}: {key} must be a list of subject names")
    if len(set(value)) != len(value):
        raise UserError(f"{path}: {key} names a subject twice")
    wrong = next((name for name in value if not _is_file_name(name)), None)
    if wrong is not None:
        raise UserError(
            f"{path}: {key} names {ascii(wrong)[:60]}, which cannot be part of a file name; use letters and digits"
        )
    return tuple(value)


def _is_file_name(name: str) -> bool:
    """Subjects become parts of file names: no way out of a folder, nothing hidden, nothing that cannot be written."""
    if not name or name.startswith(".") or any(sign in name for sign in "/\\\0"):
        return False
    return not any(0xD800 <= ord(letter) <= 0xDFFF for letter in name)


def _splits(value: object, topology: str, path: Path) -> dict[str, Split]:
    if value is None:
        return dict(DEFAULT_SPLITS[topology])
    if not isinstance(value, Mapping):
        raise UserError(f"{path}: splits must be an object of split names")
    splits = {}
    for name, content in value.items():
        key = f"splits.{name}"
        if name == ALL:
            raise UserError(f"{path}: {key} cannot be defined; {ALL!r} is every utterance")
        if not isinstance(content, Mapping):
            raise UserError(f"{path}: {key} must be an object with subjects and sentences")
        subjects = _strings(content.get("subjects"), f"{key}.subjects", path)
        sentences = content.get("sentences", [0, 10**9])
        whole = isinstance(sentences, list) and len(sentences) == 2 and all(type(item) is int for item in sentences)
        if subjects is None or not whole:
            raise UserError(f"{path}: {key} needs subjects (a list of names) and sentences (first and last number)")
        splits[name] = Split(subjects, sentences[0], sentences[1])
    return splits
