"""Faces that are no mesh of this corpus, or do not stand upright: found by ``check``, refused at the start."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from s2f_rl.data import FaceCorpus, check_corpus
from s2f_rl.data.check_mesh import long_edges, odd_templates, region_doubts, region_fault
from s2f_rl.data.files import load_npy
from s2f_rl.data.regions import load_regions
from s2f_rl.data.synthetic.face import regions as built_in_regions
from s2f_rl.data.synthetic.speakers import make_speaker
from s2f_rl.data.synthetic.topology import build_topology
from s2f_rl.errors import UserError
from tests.ellipsoid import REGIONS, SUBJECTS, V, ellipsoid, make_ellipsoid_corpus, triangles
from tests.tiny import make_tiny_corpus

ORDER = np.random.default_rng(5).permutation(V)
Change = Callable[[np.ndarray], np.ndarray]
"""Of faces [.., V, 3]."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_ellipsoid_corpus(tmp_path / "corpus")


def change_templates(root: Path, change: Change, *subjects: str) -> None:
    path = root / "templates.pkl"
    templates = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps({s: change(v) if s in subjects else v for s, v in templates.items()}))


def change_vertices(root: Path, change: Change, pattern: str) -> None:
    for path in (root / "vertices_npy").glob(pattern):
        stored = np.load(path)
        np.save(path, change(stored.reshape(len(stored), -1, 3)).reshape(len(stored), -1))


def change_all(root: Path, change: Change, *subjects: str) -> None:
    for subject in subjects:
        change_templates(root, change, subject)
        change_vertices(root, change, f"{subject}_*")


def change_regions(root: Path, **changes: np.ndarray) -> None:
    (root / "FLAME_masks.pkl").write_bytes(pickle.dumps({**REGIONS, **changes}))


def permuted(faces: np.ndarray) -> np.ndarray:
    return faces[..., ORDER, :]


def mirrored(faces: np.ndarray) -> np.ndarray:
    return faces * np.float32([-1, 1, 1])


def z_up(faces: np.ndarray) -> np.ndarray:
    return faces[..., [0, 2, 1]] * np.float32([1, -1, 1])


def y_down(faces: np.ndarray) -> np.ndarray:
    return faces * np.float32([-1, -1, 1])


def in_mm(faces: np.ndarray) -> np.ndarray:
    return 1000 * faces


def faults_of(root: Path) -> list[tuple[str, str, str]]:
    return [(fault.severity, fault.file, fault.message) for fault in check_corpus(root)]


def refusal(root: Path, split: str = "all") -> str | None:
    try:
        FaceCorpus(root, split)
    except UserError as error:
        return str(error)
    return None


class TestSoundCorpora:
    def test_ellipsoids(self, root: Path) -> None:
        assert faults_of(root) == [] and refusal(root) is None

    @pytest.mark.parametrize("corners", [triangles(other_diagonal=True), triangles()[:300], triangles()[:, ::-1]])
    def test_other_triangles_of_the_same_vertices(self, root: Path, corners: np.ndarray) -> None:
        np.save(root / "faces.npy", corners)
        assert faults_of(root) == [] and refusal(root) is None

    @pytest.mark.parametrize("n_vertices", [300, 600, 1200])
    def test_built_in_faces(self, n_vertices: int) -> None:
        regions = {name: torch.from_numpy(index) for name, index in built_in_regions(n_vertices).items()}
        templates = {str(k): make_speaker(k, 1, n_vertices).template for k in range(8)}
        assert odd_templates({s: face.reshape(-1) for s, face in templates.items()})[0] == {}
        for points in templates.values():
            assert region_fault(points, regions) is None and region_doubts(points, regions) == []
            assert long_edges(points, build_topology(n_vertices).faces) < 0.2

    @pytest.mark.parametrize("n_vertices", [15, 23, 100])
    def test_random_toys_can_be_opened(self, tmp_path: Path, n_vertices: int) -> None:
        root = make_tiny_corpus(tmp_path, n_subjects=4)
        (root / "FLAME_masks.pkl").unlink()
        (root / "faces.npy").unlink()
        (root / "landmarks.json").unlink()
        toys = np.random.default_rng(0).normal(size=(4, n_vertices, 3)).astype(np.float32)
        (root / "templates.pkl").write_bytes(pickle.dumps({f"S{k}": toy for k, toy in enumerate(toys)}))
        for path in (root / "vertices_npy").iterdir():
            toy = toys[int(path.stem[1])].reshape(1, -1)
            np.save(path, np.repeat(toy, len(np.load(path)), axis=0))
        assert refusal(root) is None

    def test_a_tilted_head_with_an_open_mouth(self, root: Path) -> None:
        def change(faces: np.ndarray) -> np.ndarray:
            c, s = np.cos(0.4), np.sin(0.4)
            return faces @ np.array([[1, 0, 0], [0, c, s], [0, -s, c]], np.float32)

        change_vertices(root, change, "S1_*")
        assert {severity for severity, _, _ in faults_of(root)} <= {"warning"} and refusal(root) is None

    def test_files_that_cannot_be_read_are_left_to_their_reader(self, root: Path) -> None:
        change_vertices(root, lambda faces: faces * np.nan, "S1_*")
        (root / "vertices_npy" / "S2_sentence01.npy").write_bytes(b"x")
        assert refusal(root) is None

    def test_opening_reads_one_file_of_each_subject(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        read: list[str] = []

        def load(path: Path, **options: Any) -> np.ndarray:
            read.append(path.stem)
            return load_npy(path, **options)

        monkeypatch.setattr("s2f_rl.data.motion_source.load_npy", load)
        FaceCorpus(root, "all")
        assert read == [f"{subject}_sentence01" for subject in SUBJECTS]


class TestAnotherOrder:
    def test_meshes_against_their_template(self, root: Path) -> None:
        change_vertices(root, permuted, "S1_*")
        found = faults_of(root)
        assert [(severity, file) for severity, file, _ in found] == [
            ("error", "vertices_npy/S1_sentence01.npy"),
            ("error", "vertices_npy/S1_sentence02.npy"),
        ]
        expected = "the template of S1 are different meshes: the same 480 vertices, but in another order"
        assert all(expected in message for _, _, message in found)
        message = refusal(root)
        assert message is not None and expected in message and "/vertices_npy/S1_sentence01.npy: its face" in message

    @pytest.mark.parametrize("subject", ["S0", "S2"])
    @pytest.mark.parametrize("change", [change_templates, change_all])
    def test_one_subject(self, root: Path, subject: str, change: Callable[..., None]) -> None:
        change(root, permuted, subject)
        found = [item for item in faults_of(root) if item[1] == "templates.pkl"]
        assert len(found) == 1 and found[0][0] == "error"
        usual = "S1" if subject == "S0" else "S0"
        expected = f"the template of {subject} and that of {usual} are different meshes: the same 480 vertices, but in"
        assert expected in found[0][2]
        message = refusal(root)
        assert message is not None and f"/templates.pkl: {expected}" in message

    def test_two_subjects_of_whom_nobody_knows_which_is_right(self, root: Path) -> None:
        templates = {s: ellipsoid(k).astype(np.float32) for k, s in enumerate(SUBJECTS)}
        (root / "templates.pkl").write_bytes(pickle.dumps({"S0": templates["S0"], "S1": permuted(templates["S1"])}))
        for folder in ("wav", "vertices_npy"):
            for path in (root / folder).glob("S[23]_*"):
                path.unlink()
        message = refusal(root)
        assert message is not None and "the template of S1 and that of S0" in message

    def test_one_utterance_is_found_by_check(self, root: Path) -> None:
        change_vertices(root, permuted, "S1_sentence02.npy")
        ((severity, file, message),) = faults_of(root)
        assert (severity, file) == ("error", "vertices_npy/S1_sentence02.npy") and "in another order" in message
        assert refusal(root) is None

    def test_triangles(self, root: Path) -> None:
        np.save(root / "faces.npy", ORDER[triangles()])
        ((severity, file, message),) = faults_of(root)
        assert (severity, file) == ("error", "faces.npy")
        assert "% of its edges reach across the face: its triangles are those of another order" in message
        assert refusal(root) is None

    def test_regions(self, root: Path) -> None:
        change_regions(root, lips=ORDER[REGIONS["lips"]])
        ((severity, file, message),) = faults_of(root)
        assert (severity, file, message) == ("error", "FLAME_masks.pkl", "the lips lie all over the face")
        told = refusal(root)
        assert told is not None and "/FLAME_masks.pkl: the lips lie all over the face; use the regions of this" in told


class TestAxes:
    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            (mirrored, "one face is the mirror image of the other (in that of S0 x is -x of the template of S1)"),
            (z_up, "one face is turned by 90 degrees (in that of S0 y is z, z is -y of the template of S1)"),
            (y_down, "one face is turned by 180 degrees (in that of S0 x is -x, y is -y of the template of S1)"),
        ],
    )
    def test_one_subject(self, root: Path, change: Change, expected: str) -> None:
        change_all(root, change, "S1")
        ((severity, file, message),) = faults_of(root)
        assert (severity, file) == ("error", "templates.pkl") and expected in message
        told = refusal(root)
        assert told is not None and expected in told and told.endswith("; export both with the same axes")

    @pytest.mark.parametrize("change", [mirrored, z_up, y_down])
    def test_meshes_against_their_template(self, root: Path, change: Change) -> None:
        change_vertices(root, change, "S2_*")
        found = faults_of(root)
        assert [(severity, file[:15]) for severity, file, _ in found] == [("error", "vertices_npy/S2")] * 2
        told = refusal(root)
        assert told is not None and "its face and the template of S2 are different meshes: one face is " in told

    @pytest.mark.parametrize(("change", "side"), [(z_up, "+z"), (y_down, "-y")])
    def test_everyone(self, root: Path, change: Change, side: str) -> None:
        change_all(root, change, *SUBJECTS)
        errors = [item for item in faults_of(root) if item[0] == "error"]
        message = f"the upper face lies on the {side} side of the lips, not above them"
        assert errors == [("error", "FLAME_masks.pkl", message)]
        told = refusal(root)
        assert told is not None and message in told

    def test_everyone_mirrored_is_told_by_the_names_of_the_regions(self, root: Path) -> None:
        x, y, _ = ellipsoid(0).T
        sides = {
            f"{side}_ear": np.flatnonzero((k * x > 0.06) & (abs(y) < 0.03)) for side, k in (("left", 1), ("right", -1))
        }
        change_regions(root, **sides)
        assert faults_of(root) == []
        change_all(root, mirrored, *SUBJECTS)
        ((severity, file, message),) = faults_of(root)
        assert (severity, file) == ("warning", "FLAME_masks.pkl")
        assert message == "left_ear lies on the right of the face, its left is at +x: it is mirrored"

    def test_everyone_from_behind_is_a_warning(self, root: Path) -> None:
        change_all(root, lambda faces: faces * np.float32([-1, 1, -1]), *SUBJECTS)
        assert faults_of(root) == [("warning", "FLAME_masks.pkl", "the lips lie at the back of the face")]
        assert refusal(root) is None

    @pytest.mark.parametrize("side", [1, -1])
    def test_everyone_from_the_side_is_a_warning(self, root: Path, side: int) -> None:
        change_all(root, lambda faces: faces[..., [2, 1, 0]] * np.float32([side, 1, -side]), *SUBJECTS)
        where = "+x" if side > 0 else "-x"
        assert faults_of(root) == [("warning", "FLAME_masks.pkl", f"the lips lie on the {where} side of the face")]


class TestRegions:
    def test_lips_and_upper_face_exchanged(self, root: Path) -> None:
        change_regions(root, lips=REGIONS["upper_face"], upper_face=REGIONS["lips"])
        assert ("error", "FLAME_masks.pkl", "the upper face lies on the -y side of the lips, not above them") in (
            faults_of(root)
        )
        assert refusal(root) is not None

    def test_lips_above_the_nose(self, root: Path) -> None:
        change_regions(root, lips=REGIONS["nose"], nose=REGIONS["lips"])
        message = next(message for _, _, message in faults_of(root) if "nose" in message)
        assert message.startswith("the lips lie ") and message.endswith(" cm above the nose")
        told = refusal(root)
        assert told is not None and " cm above the nose; use the regions of this mesh" in told

    def test_upper_face_all_over(self, root: Path) -> None:
        change_regions(root, upper_face=ORDER[REGIONS["upper_face"]])
        ((severity, file, message),) = faults_of(root)
        assert (severity, file) == ("error", "FLAME_masks.pkl") and message.endswith(
            "% of the upper face lie below the lips"
        )
        assert refusal(root) is not None

    def test_lips_on_the_forehead_without_other_regions(self, root: Path) -> None:
        (root / "FLAME_masks.pkl").write_bytes(pickle.dumps({"lips": REGIONS["lips"] + 24 * 9}))
        found = faults_of(root)
        assert ("warning", "FLAME_masks.pkl", "the lips lie in the upper half of the face") in found

    def test_text_lists_are_named(self, root: Path) -> None:
        (root / "FLAME_masks.pkl").unlink()
        (root / "regions").mkdir()
        for file, region in (("lve", "upper_face"), ("fdd", "lips")):
            (root / "regions" / f"{file}.txt").write_text(", ".join(map(str, REGIONS[region])))
        told = refusal(root)
        assert told is not None and "/regions/lve.txt: the upper face lies on the -y side of the lips" in told

    def test_lip_centres_exchanged(self, root: Path) -> None:
        regions = load_regions(root, V, ellipsoid(0))
        upper, lower = (regions[lip].tolist() for lip in ("upper_lip", "lower_lip"))
        (root / "landmarks.json").write_text(json.dumps({"upper_lip": upper, "lower_lip": lower}))
        assert faults_of(root) == []
        (root / "landmarks.json").write_text(json.dumps({"upper_lip": lower, "lower_lip": upper}))
        assert faults_of(root) == [("warning", "FLAME_masks.pkl", "upper_lip lies below lower_lip")]
        assert refusal(root) is None

    def test_regions_that_cannot_be_read_are_left_to_their_reader(self, root: Path) -> None:
        (root / "FLAME_masks.pkl").write_bytes(b"x")
        assert refusal(root) is None


class TestUnits:
    def test_one_template(self, root: Path) -> None:
        change_templates(root, in_mm, "S1")
        assert any("looks like millimetres" in message for _, _, message in faults_of(root))
        told = refusal(root)
        assert told is not None and "the template of S1 and that of S0 are different meshes: one face is " in told

    @pytest.mark.parametrize("pattern", ["S1_*", "*"])
    def test_meshes_against_their_template(self, root: Path, pattern: str) -> None:
        change_vertices(root, in_mm, pattern)
        assert {severity for severity, _, _ in faults_of(root)} == {"error"}
        told = refusal(root)
        assert told is not None and "one face is 1000 times as large; bring both to metres" in told

    def test_everyone(self, root: Path) -> None:
        change_all(root, in_mm, *SUBJECTS)
        told = refusal(root)
        assert told is not None and " m long, a head is 0.1 to 0.6 m; name the unit of the files in corpus.json" in told
        content = json.loads((root / "corpus.json").read_text())
        (root / "corpus.json").write_text(json.dumps({**content, "units": "mm"}))
        assert faults_of(root) == [] and refusal(root) is None
