"""``check``: each fault is found, all at once, and a sound corpus has none."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from s2f_rl.data import FaceCorpus, check_corpus, format_faults
from s2f_rl.data.faults import Fault, Faults
from tests.tiny import make_tiny_corpus

NAME = "S1_sentence02"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_tiny_corpus(tmp_path / "corpus", audio_only=["S2_sentence02"])


def _describe(root: Path, **changes: Any) -> None:
    content = json.loads((root / "corpus.json").read_text())
    (root / "corpus.json").write_text(json.dumps({**content, **changes}))


def _vertices(root: Path, change: Any, name: str = NAME) -> None:
    path = root / "vertices_npy" / f"{name}.npy"
    np.save(path, change(np.load(path)))


def _templates(root: Path, change: Any) -> None:
    with open(root / "templates.pkl", "rb") as file:
        templates = pickle.load(file)
    (root / "templates.pkl").write_bytes(pickle.dumps(change(templates) or templates, protocol=2))


def _only(root: Path, severity: str, file: str, message: str) -> Fault:
    """The corpus has exactly this one fault."""
    faults = check_corpus(root)
    assert len(faults) == 1, format_faults(faults)
    fault = faults[0]
    assert (fault.severity, fault.file) == (severity, file), str(fault)
    assert message in fault.message and fault.remedy
    return fault


class TestSoundCorpora:
    @pytest.mark.parametrize("topology", ["vocaset", "biwi"])
    def test_they_have_no_faults(self, tmp_path: Path, topology: str) -> None:
        root = make_tiny_corpus(tmp_path, topology=topology, audio_only=["S2_sentence02"])
        FaceCorpus(root)[0].mel_clips  # noqa: B018
        faults = check_corpus(root)
        assert list(faults) == [] and not faults.has_errors, format_faults(faults)
        counts = faults.counts
        stored = [np.load(path).shape[0] for path in (root / "vertices_npy").iterdir()]
        seconds = [soundfile.info(path).duration for path in (root / "wav").iterdir()]
        assert (counts.utterances, counts.recorded, counts.subjects, counts.vertices) == (6, 5, 3, 40)
        assert counts.frames == sum(stored) and counts.seconds == pytest.approx(sum(seconds))
        assert counts.splits == {"train": 4, "validation": 2, "test": 2}
        report = format_faults(faults)
        assert "6 utterances of 3 subjects" in report and report.endswith("no faults found")

    def test_nothing_is_written(self, root: Path) -> None:
        before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
        check_corpus(root)
        assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


class TestFilesAndNames:
    def test_vertices_without_sound(self, root: Path) -> None:
        (root / "wav" / f"{NAME}.wav").unlink()
        _only(root, "error", f"vertices_npy/{NAME}.npy", "has no sound")

    def test_strays(self, root: Path) -> None:
        (root / "wav" / "notes.mp3").write_text("x")
        _only(root, "warning", "wav/notes.mp3", "is no .wav file")
        (root / "wav" / "notes.mp3").unlink()
        (root / "vertices_npy" / f".{NAME}.0a.tmp.npy").write_text("x")
        _only(root, "warning", f"vertices_npy/.{NAME}.0a.tmp.npy", "interrupted write")
        (root / "vertices_npy" / f".{NAME}.0a.tmp.npy").unlink()
        (root / "phones").mkdir()
        (root / "phones" / "X_sentence01.json").write_text("[]")
        _only(root, "warning", "phones/X_sentence01.json", "belongs to no utterance")

    def test_names_that_differ_in_case(self, root: Path) -> None:
        shutil.copy(root / "wav" / f"{NAME}.wav", root / "wav" / "s1_sentence02.wav")
        faults = check_corpus(root)
        assert sum("differs from another only in case" in fault.message for fault in faults) == 2

    def test_unknown_subjects_and_names(self, root: Path) -> None:
        shutil.copy(root / "wav" / f"{NAME}.wav", root / "wav" / "S9_sentence01.wav")
        messages = [(fault.severity, fault.message) for fault in check_corpus(root)]
        assert ("error", "no template of S9, who has 1 utterances") in messages
        assert ("warning", "S9 is in no split (1 utterances)") in messages
        (root / "wav" / "S9_sentence01.wav").rename(root / "wav" / "speech.wav")
        _only(root, "warning", "wav/speech.wav", "is not SUBJECT_sentenceNN")

    def test_empty_splits_and_absent_subjects(self, root: Path) -> None:
        for folder in ("wav", "vertices_npy"):
            for path in (root / folder).glob("S1_*"):
                path.unlink()
        _only(root, "warning", "wav", "no utterance of the training subjects S1")
        _describe(
            root, splits={"train": {"subjects": ["S0", "S2"]}, "test": {"subjects": ["S8"]}}, training_subjects=["S0"]
        )
        _only(root, "warning", "wav", "no utterance belongs to the split test")

    def test_broken_description_is_told_and_the_rest_still_checked(self, root: Path) -> None:
        (root / "corpus.json").write_text("{")
        (root / "wav" / f"{NAME}.wav").write_text("x")
        faults = check_corpus(root)
        assert any(fault.file == "corpus.json" and "not readable as JSON" in fault.message for fault in faults)
        assert any(fault.file == f"wav/{NAME}.wav" for fault in faults)

    def test_topologies(self, root: Path) -> None:
        faults = check_corpus(root, topology="biwi")
        assert "says 'vocaset'" in str(faults[0])
        (root / "corpus.json").unlink()
        faults = check_corpus(root)
        assert any("faces of 40 vertices, vocaset has 5023" in fault.message for fault in faults)
        _templates(root, lambda t: {s: np.resize(v, (23370, 3)) for s, v in t.items()})
        faults = check_corpus(root)
        assert any(f.severity == "error" and "open it with topology biwi" in f.remedy for f in faults)
        _templates(root, lambda t: {s: v[:6918] for s, v in t.items()})
        faults = check_corpus(root, topology="biwi")
        assert any(f.severity == "error" and "BIWI Kinect head pose" in f.remedy for f in faults)


class TestSound:
    def _write(self, root: Path, samples: np.ndarray, rate: int = 22050) -> None:
        soundfile.write(root / "wav" / f"{NAME}.wav", samples, rate, subtype="FLOAT")

    def _samples(self, root: Path) -> np.ndarray:
        return soundfile.read(root / "wav" / f"{NAME}.wav", dtype="float32")[0]

    def test_silence(self, root: Path) -> None:
        self._write(root, 0 * self._samples(root))
        _only(root, "error", f"wav/{NAME}.wav", "is silent")

    def test_clipping(self, root: Path) -> None:
        self._write(root, np.clip(20 * self._samples(root), -1, 1))
        _only(root, "warning", f"wav/{NAME}.wav", "is clipped")

    def test_nan_and_unreadable_and_folders(self, root: Path) -> None:
        samples = self._samples(root)
        samples[7] = np.nan
        self._write(root, samples)
        _only(root, "error", f"wav/{NAME}.wav", "not finite")
        (root / "wav" / f"{NAME}.wav").write_bytes(b"RIFF")
        _only(root, "error", f"wav/{NAME}.wav", "cannot be read as sound")
        (root / "wav" / f"{NAME}.wav").unlink()
        (root / "wav" / f"{NAME}.wav").mkdir()
        _only(root, "error", f"wav/{NAME}.wav", "is a folder")

    def test_shortness(self, root: Path) -> None:
        (root / "vertices_npy" / f"{NAME}.npy").unlink()
        self._write(root, self._samples(root)[:2000])
        _only(root, "error", f"wav/{NAME}.wav", "less than 5 frames")

    def test_low_rate(self, root: Path) -> None:
        (root / "vertices_npy" / f"{NAME}.npy").unlink()
        self._write(root, self._samples(root)[::2], 8000)
        _only(root, "warning", f"wav/{NAME}.wav", "sampled at 8000 Hz")


class TestVertices:
    FILE = f"vertices_npy/{NAME}.npy"

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_values_that_are_not_finite(self, root: Path, value: float) -> None:
        def change(vertices: np.ndarray) -> np.ndarray:
            vertices[[4, 9], 5] = value
            return vertices

        _vertices(root, change)
        fault = _only(root, "error", self.FILE, "NaN or infinity in 2 of")
        assert "first in frame 4" in fault.message

    @pytest.mark.parametrize("point", [(0, 0, 0), (0.1, 1.7, -0.3)])
    def test_frames_in_the_middle_that_are_no_face(
        self, root: Path, point: tuple[float, float, float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def change(vertices: np.ndarray) -> np.ndarray:
            vertices[[4, 5, 17]] = np.tile(np.float32(point), 40)
            return vertices

        _vertices(root, change)
        fault = _only(root, "error", self.FILE, "is a single point in 3 of")
        assert "first in frame 4" in fault.message
        monkeypatch.setattr("s2f_rl.data.check_utterance._CHUNK_BYTES", 120 * 8 * 3)
        assert _only(root, "error", self.FILE, "is a single point in 3 of").message == fault.message

    @pytest.mark.parametrize("frames_per_piece", [1, 3, 100])
    def test_a_face_that_jumps(self, root: Path, frames_per_piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("s2f_rl.data.check_utterance._CHUNK_BYTES", 120 * 8 * frames_per_piece)
        size = max(np.ptp(np.load(root / self.FILE)[0].reshape(-1, 3), axis=0))

        def moved(by: float) -> np.ndarray:
            vertices = np.load(root / self.FILE).reshape(-1, 40, 3)
            vertices[6:9, :, 1] += by
            return vertices.reshape(-1, 120)

        whole = np.load(root / self.FILE)
        np.save(root / self.FILE, moved(0.3 * size))
        assert not any("jumps" in fault.message for fault in check_corpus(root))
        np.save(root / self.FILE, whole)
        np.save(root / self.FILE, moved(3 * size))
        fault = _only(root, "error", self.FILE, "from frame 5 to frame 6, and 1 more times")
        assert float(fault.message.split()[2]) == pytest.approx(300 * size, rel=0.05)

    def test_shapes(self, root: Path) -> None:
        _vertices(root, lambda v: v[:, :-3])
        _only(root, "error", self.FILE, "117] where [frames, 120] is expected")
        np.save(root / self.FILE, np.zeros((0, 120), np.float32))
        _only(root, "error", self.FILE, "holds no frames")
        np.save(root / self.FILE, np.float32(1))
        _only(root, "error", self.FILE, "has the shape []")

    def test_hostile_files(self, root: Path) -> None:
        whole = (root / self.FILE).read_bytes()
        (root / self.FILE).write_bytes(whole[:-1])
        _only(root, "error", self.FILE, "truncated")
        (root / self.FILE).write_bytes(b"")
        _only(root, "error", self.FILE, "not a readable npy")
        np.save(root / self.FILE, np.array([{}], dtype=object), allow_pickle=True)
        _only(root, "error", self.FILE, "Python objects")
        (root / self.FILE).unlink()
        (root / self.FILE).mkdir()
        _only(root, "error", self.FILE, "is a folder")

    @pytest.mark.parametrize(("keep", "expected"), [(2, "like 30 fps where 60"), (6, "like 10 fps where 60")])
    def test_wrong_rates(self, root: Path, keep: int, expected: str) -> None:
        _vertices(root, lambda v: v[::keep])
        _only(root, "error", self.FILE, expected)

    def test_thirty_frames_per_second_can_be_declared(self, root: Path) -> None:
        for path in (root / "vertices_npy").iterdir():
            _vertices(root, lambda v: v[::2], path.stem)
        assert sum("30 fps" in fault.message for fault in check_corpus(root)) == 5
        _describe(root, stored_fps=30, frame_step=1)
        assert list(check_corpus(root)) == []

    def test_lengths(self, tmp_path: Path) -> None:
        root = make_tiny_corpus(tmp_path, seconds=(3, 3.2))
        _vertices(root, lambda v: v[:-6])
        assert list(check_corpus(root)) == []
        _vertices(root, lambda v: v[:-6])
        fault = _only(root, "warning", self.FILE, "the longer sound is cut")
        u = FaceCorpus(root)[NAME]
        assert f"{u.n_frames} frames at 30 fps, but the sound makes" in fault.message
        _vertices(root, lambda v: np.concatenate([v, v[:24]]))
        _only(root, "warning", self.FILE, "the longer motion is cut")

    def test_other_units_than_the_template(self, root: Path) -> None:
        _vertices(root, lambda v: v * 1000)
        _only(root, "error", self.FILE, "e+03 times the size of the template")

    def test_head_motion(self, root: Path) -> None:
        _vertices(root, lambda v: v + 0.05)
        _only(root, "warning", self.FILE, "8.6 cm from the template")

    def test_whole_numbers(self, root: Path) -> None:
        _vertices(root, lambda v: np.round(v * 1000).astype(np.int16))
        assert any("holds int16" in fault.message for fault in check_corpus(root))

    def test_faces_are_read_in_pieces(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def change(vertices: np.ndarray) -> np.ndarray:
            vertices[[4, 30], 5] = np.nan
            return vertices

        monkeypatch.setattr("s2f_rl.data.check_utterance._CHUNK_BYTES", 120 * 8 * 3)
        assert list(check_corpus(root)) == []
        _vertices(root, change)
        _only(root, "error", self.FILE, "NaN or infinity in 2 of")


class TestTemplatesAndRegions:
    def test_templates(self, root: Path) -> None:
        def change(templates: dict[str, np.ndarray]) -> None:
            del templates["S1"]

        _templates(root, change)
        _only(root, "error", "templates.pkl", "no template of S1, who has 2 utterances")
        (root / "templates.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
        faults = check_corpus(root)
        assert any("asks for os.system" in fault.message and fault.file == "templates.pkl" for fault in faults)
        (root / "templates.pkl").unlink()
        (root / "templates.pkl").mkdir()
        assert any("is a folder" in fault.message for fault in check_corpus(root))

    def test_every_fault_of_the_regions(self, root: Path) -> None:
        masks = {"lips": np.array([1, 40]), "nose": np.array([-1]), "forehead": np.array([3])}
        (root / "FLAME_masks.pkl").write_bytes(pickle.dumps(masks))
        (root / "landmarks.json").write_text('{"upper_lip": [99]}')
        np.save(root / "faces.npy", np.array([[0, 1, 77]]))
        messages = [f"{fault.file}: {fault.message}" for fault in check_corpus(root) if fault.severity == "error"]
        assert messages == [
            "FLAME_masks.pkl: lips: names vertex 40, but the mesh has 40",
            "FLAME_masks.pkl: nose: names vertex -1, but the mesh has 40",
            "landmarks.json: upper_lip: names vertex 99, but the mesh has 40",
            "faces.npy: its triangles name the vertices 0 to 77, but the mesh has 40",
        ]

    def test_missing_masks_and_faces_are_warnings(self, root: Path) -> None:
        (root / "FLAME_masks.pkl").unlink()
        (root / "faces.npy").unlink()
        faults = check_corpus(root)
        assert [fault.severity for fault in faults] == ["warning"] * 3


class TestDerivedFiles:
    def test_mel_clips(self, root: Path) -> None:
        clips = FaceCorpus(root)[NAME].mel_clips.numpy()
        path = root / "wav_npy" / f"{NAME}.npy"
        file = f"wav_npy/{NAME}.npy"
        np.save(path, clips[:-1])
        _only(root, "warning", file, "mel clips of the shape")
        np.save(path, clips + 1)
        _only(root, "warning", file, "not those of the sound")
        path.write_bytes(b"x")
        _only(root, "warning", file, "not a readable npy")

    def test_phones(self, root: Path) -> None:
        (root / "phones").mkdir()
        path = root / "phones" / f"{NAME}.json"
        path.write_text('[["m", 0, 99]]')
        _only(root, "warning", f"phones/{NAME}.json", "its phones end at 99.00 s")
        path.write_text("[1]")
        _only(root, "warning", f"phones/{NAME}.json", "not a list of [phone, start, end]")


class TestReport:
    def test_everything_at_once(self, root: Path) -> None:
        _vertices(root, lambda v: v[:, :-3])
        (root / "wav" / "S0_sentence01.wav").write_text("x")
        (root / "templates.pkl").write_bytes(b"x")
        (root / "landmarks.json").write_text("{")
        (root / "transcripts.json").write_text("[]")
        faults = check_corpus(root)
        report = format_faults(faults).splitlines()
        assert {fault.file for fault in faults} == {
            f"vertices_npy/{NAME}.npy", "wav/S0_sentence01.wav", "templates.pkl", "landmarks.json", "transcripts.json"
        }  # fmt: skip
        assert len(report) == len(faults) + 2
        severities = [line.split(":")[0] for line in report[1:-1]]
        assert severities == sorted(severities) and report[-1].endswith("warnings")

    def test_no_folder(self, tmp_path: Path) -> None:
        for path in (tmp_path / "nowhere", Path("nowhere")):
            faults = check_corpus(path)
            assert faults.has_errors and "no such corpus folder" in faults[0].message
        (tmp_path / "empty").mkdir()
        assert check_corpus(tmp_path / "empty").has_errors

    def test_nothing_makes_it_raise(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: Any, **__: Any) -> None:
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr("s2f_rl.data.check.check_vertices", broken)
        faults = check_corpus(root)
        assert len(faults) == 5 and all("cannot be checked (ZeroDivisionError: a bug)" in f.message for f in faults)

    def test_folders_and_files_swapped(self, root: Path) -> None:
        for name in ("corpus.json", "FLAME_masks.pkl", "landmarks.json", "faces.npy"):
            (root / name).unlink()
            (root / name).mkdir()
        shutil.rmtree(root / "vertices_npy")
        (root / "vertices_npy").write_text("x")
        files = {fault.file for fault in check_corpus(root)}
        assert files >= {"corpus.json", "FLAME_masks.pkl", "landmarks.json", "faces.npy", "vertices_npy"}

    @pytest.mark.skipif(os.name == "nt", reason="file names are text there")
    def test_names_that_are_no_text(self, root: Path) -> None:
        (root / "wav" / os.fsdecode(b"S0_\xff_sentence01.wav")).write_text("x")
        format_faults(check_corpus(root)).encode("utf-8")

    def test_messages_are_single_lines(self) -> None:
        faults = Faults(Path("x"))
        faults.add("error", "x/a", "two\nlines", "do\nthis")
        assert str(faults[0]) == "error: a: two lines; do this"
        assert format_faults([faults[0]]) == "error: a: two lines; do this\n1 errors, 0 warnings"
