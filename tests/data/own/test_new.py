"""Mesh, recordings and motion to a corpus: what is read is what was meant, whole or not at all."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from s2f_rl import cli
from s2f_rl.data import FaceCorpus, check_corpus
from s2f_rl.data.mesh_files import Mesh
from s2f_rl.data.own.marks import find_marks
from s2f_rl.data.own.naming import split_by_subject, utterance_names
from s2f_rl.data.own.new import new_corpus
from s2f_rl.errors import UserError
from tests.data.own.faces import corners, obj, parts, person

NAMES = ("anna_sentence01", "anna_sentence02", "bert_sentence01", "carl_sentence01")
FPS, SECONDS = 50, 0.6


def theirs(points: np.ndarray) -> np.ndarray:
    """Millimetres, z up, the face to -y."""
    return 1000 * np.stack([points[..., 0], -points[..., 2], points[..., 1]], -1)


def motion(number: int) -> np.ndarray:
    """[T, V, 3], metres: the lips open and close."""
    points, _ = person(0)
    frames = np.tile(points, (round(FPS * SECONDS), 1, 1))
    opening = 0.004 * np.sin(np.arange(len(frames)) / 3 + number)
    frames[:, parts()["lips"][20:], 1] -= opening[:, None]
    return frames


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """``face.obj``, ``takes/`` and ``motion/`` as somebody might have them."""
    points, faces = person(0)
    (tmp_path / "face.obj").write_text(obj(theirs(points), faces))
    (tmp_path / "takes").mkdir()
    (tmp_path / "motion").mkdir()
    rng = np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        soundfile.write(tmp_path / "takes" / f"{name}.wav", 0.1 * rng.normal(size=int(16000 * SECONDS)), 16000)
        np.save(tmp_path / "motion" / f"{name}.npy", theirs(motion(number)))
    return tmp_path


def make(raw: Path, **changes: object) -> object:
    mouth = ",".join(map(str, corners(person(0)[0])))
    options = {"motion": raw / "motion", "fps": FPS, "frame_step": 2, "mouth": mouth, "progress": False} | changes
    return new_corpus(raw / "corpus", raw / "face.obj", raw / "takes", **options)  # type: ignore[arg-type]


class TestWhole:
    def test_comes_out_in_metres_upright(self, raw: Path) -> None:
        report = make(raw)
        assert "unit millimetres (guessed), up +z, looks to -y" in str(report)
        assert [str(fault) for fault in check_corpus(raw / "corpus")] == []
        corpus = FaceCorpus(raw / "corpus", split="all")
        assert corpus.fps == 25 and corpus.names == list(NAMES)
        for number, utterance in enumerate(corpus):
            truth = torch.from_numpy(motion(number)[::2].reshape(-1, 3 * 600)).float()
            torch.testing.assert_close(utterance.vertices, truth[: utterance.n_frames], rtol=0, atol=1e-7)
        assert corpus.faces is not None and np.array_equal(corpus.faces, person(0)[1])
        assert np.isin(parts()["lips"], corpus.regions["lips"].numpy()).all()
        face = corpus.regions["face"].numpy()  # what films are framed by
        assert np.isin(parts()["lips"], face).all() and np.isin(parts()["eye_region"], face).mean() > 0.9
        assert not np.isin(face, np.concatenate([parts()["left_ear"], parts()["right_ear"]])).any()
        splits = {split: FaceCorpus(raw / "corpus", split=split).names for split in ("train", "validation", "test")}
        assert splits == {"train": list(NAMES[:2]), "validation": [NAMES[2]], "test": [NAMES[3]]}

    def test_a_mesh_a_frame_is_the_same(self, raw: Path) -> None:
        make(raw)
        first = np.load(raw / "corpus" / "vertices_npy" / f"{NAMES[0]}.npy")
        (raw / "corpus").rename(raw / "first")
        frames = np.load(raw / "motion" / f"{NAMES[0]}.npy")
        (raw / "motion" / f"{NAMES[0]}.npy").unlink()
        (raw / "motion" / NAMES[0]).mkdir()
        for k, frame in enumerate(frames):  # frame10 comes after frame9
            (raw / "motion" / NAMES[0] / f"frame{k}.obj").write_text(obj(frame, person(0)[1]))
        make(raw)
        assert np.array_equal(np.load(raw / "corpus" / "vertices_npy" / f"{NAMES[0]}.npy"), first)

    def test_speech_alone(self, raw: Path) -> None:
        report = make(raw, motion=None, fps=None, frame_step=1)
        assert "4, 0 of them with motion" in str(report)
        assert FaceCorpus(raw / "corpus", split="train").fps == 30
        assert not check_corpus(raw / "corpus").has_errors

    def test_what_does_not_pair_is_told(self, raw: Path) -> None:
        (raw / "takes" / f"{NAMES[1]}.wav").unlink()
        (raw / "motion" / f"{NAMES[2]}.npy").unlink()
        told = str(make(raw))
        assert f"1 motions left out, no recording bears their name ({NAMES[1]})" in told
        assert f"1 recordings without motion: speech alone ({NAMES[2]})" in told
        assert FaceCorpus(raw / "corpus", split="all").names == [NAMES[0], *NAMES[2:]]

    def test_faces_of_their_own(self, raw: Path) -> None:
        (raw / "rest").mkdir()
        own = theirs(person(1)[0])
        (raw / "rest" / "bert.obj").write_text(obj(own, person(0)[1]))
        make(raw, templates=raw / "rest", motion=None, fps=25, frame_step=1)
        corpus = FaceCorpus(raw / "corpus", split="all")
        assert np.allclose(corpus.template("bert").reshape(-1, 3), person(1)[0], rtol=0, atol=1e-6)
        assert np.allclose(corpus.template("anna").reshape(-1, 3), person(0)[0], rtol=0, atol=1e-6)


class TestNothingHalf:
    @pytest.mark.parametrize(
        ("spoil", "options", "match"),
        [
            (lambda raw: np.save(raw / "motion" / f"{NAMES[3]}.npy", np.full((9, 600, 3), np.nan)), {}, "not finite"),
            (lambda raw: np.save(raw / "motion" / f"{NAMES[3]}.npy", np.zeros((9, 52))), {}, r"shape \(9, 52\)"),
            (lambda raw: (raw / "motion" / NAMES[3]).mkdir(), {}, f"{NAMES[3]} is; remove one"),
            (lambda raw: None, {"fps": None}, "--fps"),
            (lambda raw: None, {"fps": 5}, "2.5 frames per second"),
            (lambda raw: None, {"mouth": None}, "where is the mouth"),
            (lambda raw: None, {"mouth": "1"}, "--mouth 1: two vertex numbers"),
            (lambda raw: None, {"mouth": "1,99999"}, "--mouth: names vertex 99999"),
            (lambda raw: None, {"up": "north"}, "up north: unknown"),
            (lambda raw: None, {"validation": ("dora",)}, "dora: has no utterance"),
            (lambda raw: (raw / "corpus").mkdir(), {}, "corpus: exists"),
            (lambda raw: [path.unlink() for path in (raw / "takes").iterdir()], {}, "holds no recordings"),
        ],
    )
    def test_a_mistake_leaves_nothing(self, raw: Path, spoil: object, options: dict[str, object], match: str) -> None:
        spoil(raw)  # type: ignore[operator]
        before = sorted(raw.iterdir())
        with pytest.raises(UserError, match=match):
            make(raw, **options)
        assert sorted(raw.iterdir()) == before

    def test_names_that_never_pair(self, raw: Path) -> None:
        for path in (raw / "motion").iterdir():
            path.rename(path.with_name(f"m_{path.name}"))
        with pytest.raises(UserError, match="no motion has the name of a recording, such as m_anna"):
            make(raw)


class TestNames:
    def test_of_one_speaker(self) -> None:
        assert utterance_names(["b take", "c"], subject="zoe") == {"b take": "zoe_sentence01", "c": "zoe_sentence02"}

    def test_a_table(self, tmp_path: Path) -> None:
        (tmp_path / "n.csv").write_text("take 1.wav,anna_sentence05\nb,bert_sentence01\n")
        (tmp_path / "n.json").write_text(json.dumps({"take 1": "anna_sentence05", "b": "bert_sentence01"}))
        for name in ("n.csv", "n.json"):
            found = utterance_names(["b", "other", "take 1"], tmp_path / name)
            assert found == {"b": "bert_sentence01", "take 1": "anna_sentence05"}

    @pytest.mark.parametrize(
        ("stems", "table", "match"),
        [
            (["001"], None, "'001' is not SUBJECT_sentenceNN"),
            (["a_01", "a_1"], None, "is sentence 1 of a, as a_01 is"),
            (["a"], "b,a_01", "names b, of which there is no recording"),
            (["a"], "a,../../x_01", "is not SUBJECT_sentenceNN"),
            (["a"], "a,b,c", "not a table"),
            (["a"], "a,x_01\na,x_02", "names a recording twice"),
        ],
    )
    def test_mistakes(self, stems: list[str], table: str | None, match: str, tmp_path: Path) -> None:
        if table is not None:
            (tmp_path / "n.csv").write_text(table)
        with pytest.raises(UserError, match=match):
            utterance_names(stems, None if table is None else tmp_path / "n.csv")

    def test_splits(self) -> None:
        def members(*options: object) -> list[list[str]]:
            parts, training = split_by_subject(*options)  # type: ignore[arg-type]
            assert parts["train"]["subjects"] == training
            return [parts[name]["subjects"] for name in ("train", "validation", "test")]  # type: ignore[misc]

        names = ["a_1", "b_1", "c_1", "d_7"]
        assert members(names) == [["a", "b"], ["c"], ["d"]]
        assert members(names[:2]) == [["a"], ["b"], ["b"]]
        assert members(names, ["a"]) == [["b", "c"], ["a"], ["d"]]
        assert members(names, (), ["a", "b"]) == [["c"], ["d"], ["a", "b"]]
        assert members(names, ["a"], ["d"]) == [["b", "c"], ["a"], ["d"]]
        for wrong in ((["a"], ["a"]), (["a", "b"], ["c", "d"])):
            with pytest.raises(UserError):
                split_by_subject(names, *wrong)

    def test_one_speaker_is_split_by_sentence(self) -> None:
        parts, _ = split_by_subject([f"a_{number}" for number in range(1, 21)])
        assert [parts[name]["sentences"] for name in parts] == [[1, 16], [17, 18], [19, 20]]
        parts, _ = split_by_subject(["a_4"])
        assert [parts[name]["sentences"] for name in parts] == [[4, 4]] * 3


class TestMarks:
    """Whatever says where the mouth is."""

    def mesh(self, **more: object) -> Mesh:
        return Mesh(*person(0), **more)  # type: ignore[arg-type]

    def test_groups(self) -> None:
        groups = {"Upper Face": np.array([5, 6, 7]), "Mouth": parts()["lips"], "nose": np.array([1])}
        marks = find_marks(self.mesh(groups=groups), "a.obj")
        assert marks.lips is not None and marks.upper_face is not None
        assert np.array_equal(marks.lips, np.sort(parts()["lips"])) and marks.upper_face.tolist() == [5, 6, 7]
        assert set(marks.corners) == set(corners(person(0)[0]))

    def test_colours(self) -> None:
        colours = np.full((600, 3), 190, np.uint8)
        colours[parts()["lips"]] = (255, 10, 0)
        colours[[9, 11]] = (20, 0, 240)
        marks = find_marks(self.mesh(colours=colours), "a.ply")
        assert marks.lips is not None and np.array_equal(marks.lips, np.sort(parts()["lips"]))
        assert marks.upper_face is not None and marks.upper_face.tolist() == [9, 11]
        with pytest.raises(UserError, match="where is the mouth"):
            find_marks(self.mesh(colours=np.full((600, 3), 190, np.uint8)), "a.ply")

    def test_files(self, tmp_path: Path) -> None:
        lips = parts()["lips"].tolist()
        (tmp_path / "a.json").write_text(json.dumps({"lips": lips, "forehead": [3], "eye_region": [2], "neck": [1]}))
        (tmp_path / "a.pkl").write_bytes(pickle.dumps({"lips": np.array(lips), "upper_face": np.array([2, 3])}, 2))
        (tmp_path / "a.txt").write_text(", ".join(map(str, lips)))
        for name in ("a.json", "a.pkl", "a.txt"):
            marks = find_marks(self.mesh(), "mesh", regions=tmp_path / name)
            assert marks.lips is not None and marks.lips.tolist() == sorted(lips)
            assert (marks.upper_face is None) == (name == "a.txt")
            assert marks.upper_face is None or marks.upper_face.tolist() == [2, 3]
        for text, match in (('{"nose": [1]}', "no region lips"), ('{"lips": [600]}', "vertex 600"), ("[1]", "not of")):
            (tmp_path / "a.json").write_text(text)
            with pytest.raises(UserError, match=match):
                find_marks(self.mesh(), "mesh", regions=tmp_path / "a.json")

    def test_landmarks(self, tmp_path: Path) -> None:
        numbers = np.random.default_rng(0).permutation(600)[:68]
        points = person(0)[0][numbers] + 1e-5
        (tmp_path / "n.json").write_text(json.dumps(numbers.tolist()))
        np.save(tmp_path / "p.npy", points)
        np.savetxt(tmp_path / "p.txt", points)
        for name in ("n.json", "p.npy", "p.txt"):
            marks = find_marks(self.mesh(), "mesh", landmarks=tmp_path / name)
            assert marks.landmarks is not None and marks.landmarks.tolist() == numbers.tolist()
            assert marks.corners == (numbers[48], numbers[54])
        for wrong, match in ((points * 1000, "of the face away"), (points[:5], "holds 15 numbers")):
            np.save(tmp_path / "p.npy", wrong)
            with pytest.raises(UserError, match=match):
                find_marks(self.mesh(), "mesh", landmarks=tmp_path / "p.npy")

    def test_points_and_answers(self) -> None:
        a, b = corners(person(0)[0])
        points = ",".join(str(x + 1e-5) for x in person(0)[0][[a, b]].reshape(-1))
        assert find_marks(self.mesh(), "mesh", mouth=points).corners == (a, b)
        asked: list[str] = []
        marks = find_marks(self.mesh(), "face.obj", ask=lambda question: asked.append(question) or f"{a} {b}")
        assert marks.corners == (a, b) and asked[0].startswith("face.obj: the corners of the mouth")


def test_the_command(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = corners(person(0)[0])
    where = ["--recordings", str(raw / "takes"), "--motion", str(raw / "motion")]
    command = ["corpus", "new", str(raw / "corpus"), "--mesh", str(raw / "face.obj"), *where, "--fps", str(FPS)]
    assert cli.main([*command, "--mouth", f"{a},{b}", "--up=z", "--every", "2", "--test", "anna"]) == 0
    said = capsys.readouterr().out
    assert "no faults found" in said and said.splitlines()[-1].startswith("next: s2f-rl recipe supervised corpus.root=")
    assert (raw / "corpus" / "regions.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((raw / "corpus" / "corpus.json").read_text())["splits"]["test"]["subjects"] == ["anna"]
    assert cli.main([*command, "--mouth", f"{a},{b}"]) == 2
    assert "exists" in capsys.readouterr().err
