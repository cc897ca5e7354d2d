"""A corpus on disk, opened for the price of its index."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from s2f_rl.data.annotations import read_phones, read_transcripts
from s2f_rl.data.audio import SPEECH_RATE_HZ, read_wav, resample, resampled_length, wav_header
from s2f_rl.data.check_mesh import frame_difference, refuse_mixed_meshes
from s2f_rl.data.clock import Clock
from s2f_rl.data.coefficients.rig import FOLDER, Rig, description_of, load_rig, resting_faces
from s2f_rl.data.description import FILE, N_VERTICES, CorpusDescription
from s2f_rl.data.listing import list_sounds
from s2f_rl.data.lru import ByteCache
from s2f_rl.data.mel import mel_clips
from s2f_rl.data.mel_cache import cached_mel_clips
from s2f_rl.data.mesh_files import find_faces
from s2f_rl.data.mesh_identity import MeshIdentity
from s2f_rl.data.motion_source import MotionFiles
from s2f_rl.data.rates import refuse_other_rate
from s2f_rl.data.regions import Regions, load_regions
from s2f_rl.data.splits import parse_name, select
from s2f_rl.data.templates import load_templates
from s2f_rl.data.units import published_unit
from s2f_rl.data.utterance import Utterance
from s2f_rl.errors import UserError

_RATED = 5
_TOY_VERTICES = 1000
"""Below this a mesh is somebody's experiment: no published face set is so coarse."""


class FaceCorpus:
    """Speech and moving faces in the VOCASET layout, read lazily.

    The folder holds ``wav/NAME.wav`` (or ``.WAV``), ``vertices_npy/NAME.npy`` [frames, V*3] (absent for audio-only
    utterances), ``templates.pkl`` (motion that is coefficients of a rig: ``coefficients_npy/NAME.npy`` [frames, K],
    ``coefficients.json``, ``basis.npz``, see :mod:`s2f_rl.data.coefficients.rig`), and optionally ``FLAME_masks.pkl``,
    ``corpus.json`` (see :mod:`s2f_rl.data.description`), ``faces.npy``, ``landmarks.json``, ``phones/NAME.json``,
    ``transcripts.json``, ``wav_npy/NAME.npy``. Opening reads the names, the templates, one header and a frame of each
    subject, and refuses faces that are not one mesh (:func:`~s2f_rl.data.check_mesh.refuse_mixed_meshes`); vertices are
    memory-mapped when an utterance is read.

    What comes out is in metres at ``corpus.fps``, whatever unit and rate the files have: they are converted here and
    nowhere else.

    ``corpus[i]`` and ``corpus["NAME"]`` give an :class:`~s2f_rl.data.utterance.Utterance`; they are sorted by name. The
    object can be pickled into worker processes and used from several threads.

    Args:
        root: the corpus folder.
        split: "train", "validation", "test", "test_seen" (BIWI), "all", or a name from ``corpus.json``.
        topology: the published corpus whose layout and defaults an undescribed folder has, "vocaset" or "biwi"; None
            takes what ``corpus.json`` says, else "vocaset".
        cache_mb: how much speech and mel clips are kept in memory; vertices are left to the system's page cache.
        keep_mel_clips: whether computed mel clips are written to ``wav_npy`` if the folder can be written.

    Attributes:
        names: the utterances of the split, sorted.
        subjects: the training subjects in the order of the style columns, whatever the split.
        topology: "vocaset" or "biwi", the defaults that were used.
        clock: rate and audio features per frame. fps: its frames per second.
        audio_features_per_frame: A (VOCASET 1, BIWI 2).
        n_vertices: V.
        rig: of motion that is coefficients; None where it is vertices. Then a face is its template plus the basis times
            the coefficients; without ``templates.pkl`` everybody has the basis's own face.
        metadata: ``corpus.json`` or its defaults; at least dataset, topology, and units and metres_per_unit of the
            files.

    Raises:
        UserError: anything missing or wrong, naming the file and the remedy.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        topology: str | None = None,
        *,
        cache_mb: float = 64,
        keep_mel_clips: bool = True,
    ) -> None:
        self.root = Path(root)
        self.split = split
        self.keep_mel_clips = keep_mel_clips
        if not self.root.is_dir():
            raise UserError(f"{self.root}: no such corpus folder; check the path, or make one with s2f-rl synthesize")
        self.rig: Rig | None = load_rig(self.root)
        self.description: CorpusDescription = description_of(self.root, self.rig, topology or self._undescribed())
        self.topology = self.description.topology
        self.clock: Clock = self.description.clock
        self.fps = self.description.fps
        self.audio_features_per_frame = self.clock.features_per_frame
        self.subjects = list(self.description.training_subjects)

        self._wavs = list_sounds(self.root / "wav")
        spoken = set(self._wavs)
        if not spoken:
            what = "holds no .wav files" if (self.root / "wav").is_dir() else "no such folder"
            raise UserError(f"{self.root / 'wav'}: {what}; a corpus needs wav/NAME.wav (s2f-rl prepare makes them)")
        self.names = select(spoken, split, self.description.splits, self.topology, str(self.root))
        if not self.names:
            raise UserError(self._empty_split(spoken))
        self._index = {name: i for i, name in enumerate(self.names)}

        everyone = dict.fromkeys([*self.subjects, *(parse_name(name)[0] for name in self._wavs)])
        templates, in_metres = resting_faces(self.root, self.rig, everyone)
        for subject in dict.fromkeys(parse_name(name)[0] for name in self.names):
            if subject not in templates:
                raise UserError(
                    f"{self.root / 'templates.pkl'}: has no template of {subject or 'a nameless subject'}; add its "
                    f"neutral face or remove its utterances (wav/{subject}_*)"
                )
        self.n_vertices = next(iter(templates.values())).size // 3
        width, step = 3 * self.n_vertices, self.description.frame_step
        self._motion = MotionFiles(self.root / "vertices_npy", width, step, True)
        if self.rig is not None:
            self._motion = MotionFiles(self.root / FOLDER, len(self.rig.names), step, False)
            self._shapes = self.rig.basis.matrix
        self._refuse_other_sets()
        size = 1.0 if in_metres else self.description.metres_per_unit
        self.metres_per_unit: float = published_unit(templates) if size is None else size
        self._templates = {
            subject: self._in_metres(torch.from_numpy(flat).clone()) for subject, flat in templates.items()
        }
        self._frames: dict[int, int] = {}
        self._seen: set[int] = set()  # recordings whose first face has been compared with its template
        self._cache: ByteCache[torch.Tensor] = ByteCache(int(cache_mb * 2**20))
        first = next((name for name in self.names if name in self._motion.names), None)
        if first is not None:
            self._motion.n_frames(first)
        refuse_mixed_meshes(self._templates, self._first_faces(), self.root)

    # what the corpus as a whole knows

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, key: int | str) -> Utterance:
        return Utterance(self, self.index(key) if isinstance(key, str) else self._position(key))

    def __iter__(self) -> Iterator[Utterance]:
        return (Utterance(self, i) for i in range(len(self)))

    def __contains__(self, name: object) -> bool:
        return name in self._index

    def __repr__(self) -> str:
        return (
            f"FaceCorpus({str(self.root)!r}, split={self.split!r}, topology={self.topology!r}): "
            f"{len(self)} utterances, {self.n_vertices} vertices, {self.fps} fps"
        )

    def index(self, name: str) -> int:
        """Position of an utterance. Raises UserError when the split has none of that name."""
        try:
            return self._index[name]
        except KeyError:
            raise UserError(
                f"{name}: no such utterance in the split {self.split!r} of {self.root}; names look like {self.names[0]}"
            ) from None

    @cached_property
    def metadata(self) -> dict[str, Any]:
        return {
            **self.description.metadata,
            "dataset": self.description.dataset,
            "topology": self.topology,
            "units": self.description.units,
            "metres_per_unit": self.metres_per_unit,
        }

    @cached_property
    def regions(self) -> Regions:
        """Vertex indices by region: "lips", "upper_face", "upper_lip", "lower_lip" and more, as the files allow."""
        if self.rig is not None and not self.rig.has_mesh:
            return Regions(self.root, self.rig.regions())
        template = next(iter(self._templates.values())).numpy()
        return load_regions(self.root, self.n_vertices, template.reshape(-1, 3))

    @cached_property
    def faces(self) -> torch.Tensor | None:
        """Triangles int32 [F, 3]; None where the corpus has none (see :func:`~s2f_rl.data.mesh_files.find_faces`)."""
        faces = find_faces(self.root, self.n_vertices)
        return None if faces is None else torch.from_numpy(faces)

    @cached_property
    def mesh_identity(self) -> MeshIdentity:
        """Which mesh the faces are: vertices, triangles, and where there are none the shape of the templates."""
        return MeshIdentity.of(self._templates, self.faces)

    @property
    def templates(self) -> list[str]:
        """Subjects with a neutral face, in the file's order."""
        return list(self._templates)

    def template(self, subject: str) -> torch.Tensor:
        """A subject's neutral face [V*3]. Raises UserError when there is none."""
        try:
            return self._templates[subject].clone()
        except KeyError:
            raise UserError(
                f"{self.root / 'templates.pkl'}: has no template of {subject}; known are {', '.join(self._templates)}"
            ) from None

    def style(self, subject: str) -> torch.Tensor | None:
        """One-hot style [S] of a training subject; None for any other."""
        if subject not in self.subjects:
            return None
        return torch.nn.functional.one_hot(torch.tensor(self.subjects.index(subject)), len(self.subjects)).float()

    # what is known of one utterance without reading it

    def has_vertices(self, i: int) -> bool:
        """Whether the face of utterance i was recorded."""
        return self.names[i] in self._motion.names

    def wav(self, i: int) -> Path:
        """The sound file of utterance i."""
        return self._wavs[self.names[i]]

    def n_frames(self, i: int) -> int:
        """T of utterance i from its headers: the speech's natural frame count, cut to the frames recorded.

        Raises UserError when a file is damaged or the utterance is too short for a single frame.
        """
        i = self._position(i)
        if i not in self._frames:
            frames = self.clock.natural_frames(resampled_length(*wav_header(self.wav(i)), SPEECH_RATE_HZ))
            if self.has_vertices(i):
                frames = min(frames, self._motion.n_frames(self.names[i]))
            if frames == 0:
                raise UserError(f"{self.wav(i)}: too short for a single frame at {self.fps} fps; remove it")
            self._frames[i] = frames
        return self._frames[i]

    # reading, for Utterance (its UtteranceSource)

    def read_waveform(self, i: int) -> torch.Tensor:
        """Speech [N] at 16 kHz, -1..1."""
        kept = self._cache.get(("waveform", i), lambda: torch.from_numpy(self.read_speech(i, SPEECH_RATE_HZ)))
        return kept.clone()  # whoever changes it in place changes nothing here

    def read_mel_clips(self, i: int) -> torch.Tensor:
        """Log-mel clips [n, 20, 128]."""
        rate = self.clock.mel_rate_hz

        def make() -> torch.Tensor:
            if not self.keep_mel_clips:
                return mel_clips(self.read_speech(i, rate))
            n_samples = resampled_length(*wav_header(self.wav(i)), rate)
            folder = self.root / "wav_npy"
            return cached_mel_clips(
                folder, self.names[i], self.wav(i), rate, n_samples, lambda: self.read_speech(i, rate)
            )

        return self._cache.get(("mel", i), make).clone()

    def read_vertices(self, i: int) -> torch.Tensor | None:
        """The recorded face [T, V*3], metres; None for audio-only utterances."""
        if not self.has_vertices(i):
            return None
        coefficients = self.read_coefficients(i)
        if coefficients is not None:
            return self._templates[parse_name(self.names[i])[0]] + coefficients @ self._shapes
        vertices = self._in_metres(self._motion.read(self.names[i], self.n_frames(i)))
        if i not in self._seen:
            self._seen.add(i)
            subject = parse_name(self.names[i])[0]
            told = frame_difference(vertices[0].numpy(), self._templates[subject], subject, with_neighbours=False)
            if told is not None:
                raise UserError(f"{self.motion_file(i)}: {told}")
        return vertices

    def read_coefficients(self, i: int) -> torch.Tensor | None:
        """The recorded coefficients [T, K]; None where the motion is vertices, and for audio-only utterances."""
        if self.rig is None or not self.has_vertices(i):
            return None
        return self._motion.read(self.names[i], self.n_frames(i))

    def _in_metres(self, vertices: torch.Tensor) -> torch.Tensor:
        """The door of units: vertices as they are in the files, which may be overwritten, to metres."""
        return vertices if self.metres_per_unit == 1.0 else vertices.mul_(self.metres_per_unit)

    def read_phones(self, name: str) -> list[tuple[str, float, float]] | None:
        """[(phone, start s, end s)], or None."""
        return read_phones(self.root / "phones" / f"{name}.json")

    def read_transcript(self, name: str) -> str | None:
        """The spoken words, or None."""
        return self._transcripts.get(name)

    @cached_property
    def _transcripts(self) -> dict[str, str]:
        return read_transcripts(self.root / "transcripts.json")

    def read_speech(self, i: int, rate: int, speed: float = 1.0) -> np.ndarray:
        """Speech [N] at ``rate`` Hz, played ``speed`` times as fast."""
        # All rates are made from the file's own: resampling twice would dull the mel clips.
        waveform, own_rate = read_wav(self.wav(i))
        return resample(waveform, round(own_rate * speed), rate)

    def motion_file(self, i: int) -> Path:
        """Where the motion of utterance i is recorded, or would be."""
        return self._motion.file(self.names[i])

    def _undescribed(self) -> str | None:
        """The published corpus that a folder without corpus.json holds, told by its vertices; None: not told."""
        if (self.root / FILE).exists():
            return None
        try:
            n_vertices = next(iter(load_templates(self.root).values())).size // 3
        except UserError:  # told when it is needed
            return None
        return next((name for name, count in N_VERTICES.items() if count == n_vertices), None)

    def refuse_other_rate(self) -> None:
        """Raise UserError where the first few recordings all run at one rate that is not the stated one (headers)."""
        rates = []
        for i in [i for i in range(len(self.names)) if self.has_vertices(i)][:_RATED]:
            try:
                n_samples, rate = wav_header(self.wav(i))
                rates.append(self._motion.n_stored(self.names[i]) * rate / max(n_samples, 1))
            except (UserError, IndexError):  # told when the utterance is read
                continue
        refuse_other_rate(rates, self.description.stored_fps, self.root)

    def _first_faces(self) -> dict[str, np.ndarray]:
        """{NAME: [V*3]}, the first frame of one utterance of each subject; files that cannot be read are left out."""
        found: dict[str, np.ndarray] = {}
        seen: set[str] = set()
        for i, name in enumerate(self.names):
            subject = parse_name(name)[0]
            if subject in seen or not self.has_vertices(i):
                continue
            seen.add(subject)
            face = self._motion.first(name) if self.rig is None else None  # a basis's faces are its own mesh
            if face is not None:
                found[name] = face * self.metres_per_unit
        return found

    def _position(self, i: int) -> int:
        length = len(self.names)
        try:
            i = int(i.__index__())
        except AttributeError:
            raise TypeError(f"an utterance is chosen by number or name, not by {type(i).__name__}") from None
        if not -length <= i < length:
            raise IndexError(f"utterance {i} of {length}")
        return i % length

    def _empty_split(self, spoken: set[str]) -> str:
        found = sorted({parse_name(name)[0] for name in spoken})
        wanted = self.description.splits[self.split].subjects if self.split in self.description.splits else ()
        missing = [subject for subject in wanted if subject not in found]
        why = f"it expects subjects such as {missing[0]}" if missing else "no sentence number falls into it"
        return (
            f"{self.root}: no utterance belongs to the split {self.split!r} ({why}; wav/ holds {', '.join(found[:4])}"
            f"{', ...' if len(found) > 4 else ''}); check the topology or name your own splits in {FILE}"
        )

    def _refuse_other_sets(self) -> None:
        stated = self.description.metadata.get("n_vertices", self.n_vertices)
        if stated != self.n_vertices:
            raise UserError(
                f"{self.root / FILE}: n_vertices is {str(stated)[:40]}, but templates.pkl has faces of "
                f"{self.n_vertices}; mend the one that is wrong"
            )
        declared = (self.root / FILE).exists()
        expected = N_VERTICES[self.topology]
        if self.topology == "biwi" and not declared and _TOY_VERTICES <= self.n_vertices != expected:
            raise UserError(
                f"{self.root / 'templates.pkl'}: faces of {self.n_vertices} vertices, but BIWI's audiovisual corpus "
                f"B3D(AC)2 has {expected}; this may be the BIWI Kinect head pose set, which has no speech: get "
                f"B3D(AC)2, or describe your own corpus in {FILE}"
            )
