"""Regions from FLAME's masks, from published index lists and from geometry."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.data.regions import lip_centres, load_regions
from s2f_rl.errors import UserError
from tests.tiny import make_tiny_corpus


def _masks(root: Path, **regions: object) -> Path:
    (root / "FLAME_masks.pkl").write_bytes(pickle.dumps(regions, protocol=2))
    return root


class TestFiles:
    def test_flame_masks(self, tmp_path: Path) -> None:
        _masks(tmp_path, lips=np.array([5, 3, 4]), forehead=np.array([9, 1]), eye_region=np.array([1, 2]), nose=[0, 7])
        regions = load_regions(tmp_path, 10)
        assert regions["lips"].tolist() == [5, 3, 4] and regions["lips"].dtype == torch.int64
        assert regions["upper_face"].tolist() == [1, 2, 9]
        assert regions["nose"].tolist() == [0, 7]
        assert "upper_lip" not in regions and regions.get("upper_lip") is None

    def test_published_index_lists(self, tmp_path: Path) -> None:
        (tmp_path / "regions").mkdir()
        (tmp_path / "regions" / "lve.txt").write_text("2, 6, 21")
        (tmp_path / "regions" / "fdd.txt").write_text("1,4,\n 9\n")
        regions = load_regions(tmp_path, 30)
        assert regions["lips"].tolist() == [2, 6, 21] and regions["upper_face"].tolist() == [1, 4, 9]
        _masks(tmp_path, lips=np.array([3]))
        assert load_regions(tmp_path, 30)["lips"].tolist() == [3]
        assert load_regions(tmp_path, 30)["upper_face"].tolist() == [1, 4, 9]

    def test_landmarks_come_first(self, tmp_path: Path) -> None:
        root = make_tiny_corpus(tmp_path)
        stated = json.loads((root / "landmarks.json").read_text())
        regions = FaceCorpus(root).regions
        assert regions["upper_lip"].tolist() == stated["upper_lip"]
        (root / "landmarks.json").write_text('{"upper_lip": [1, 2], "lower_lip": [7]}')
        regions = FaceCorpus(root).regions
        assert regions["upper_lip"].tolist() == [1, 2] and regions["lower_lip"].tolist() == [7]

    def test_a_missing_region_says_how_to_get_it(self, tmp_path: Path) -> None:
        regions = load_regions(tmp_path, 10)
        with pytest.raises(UserError, match=r"no region 'lips'; put FLAME's FLAME_masks\.pkl"):
            regions["lips"]
        with pytest.raises(UserError, match=r"landmarks\.json"):
            regions["upper_lip"]
        with pytest.raises(UserError, match="no region 'ear'; known here are: none"):
            regions["ear"]
        copy = pickle.loads(pickle.dumps(regions))
        with pytest.raises(UserError):
            copy["lips"]

    @pytest.mark.parametrize(
        ("value", "match"),
        [
            (np.array([3, 10]), "names vertex 10, but the mesh has 10"),
            (np.array([-1, 3]), "names vertex -1"),
            (np.array([0.5]), "not a list of vertex numbers"),
            (np.array([]), "not a list of vertex numbers"),
            (np.array(["a"]), "not a list of vertex numbers"),
            ([[1], [2, 3]], "not a list of vertex numbers"),
            (2**70, "not a list of vertex numbers"),
            ([1, 2**63], "names vertex 9223372036854775808|not a list of vertex numbers"),
            ([1.0, 1e300], "not a list of vertex numbers"),
            ([1.0, float("inf")], "not a list of vertex numbers"),
            ([1, float("nan")], "not a list of vertex numbers"),
            ([1, True, None], "not a list of vertex numbers"),
            ([[[1]], [[2]]], "not a list of vertex numbers"),
            ({1: 2}, "not a list of vertex numbers"),
            (None, "not a list of vertex numbers"),
        ],
    )
    def test_broken_masks(self, tmp_path: Path, value: object, match: str) -> None:
        with pytest.raises(UserError, match=match) as caught:
            load_regions(_masks(tmp_path, lips=value), 10)
        assert "FLAME_masks.pkl: lips" in str(caught.value)

    def test_a_list_that_holds_itself_twice(self, tmp_path: Path) -> None:
        """Numpy would look for 2^64 numbers in it."""
        circular: list[object] = []
        circular += [circular, circular]
        with pytest.raises(UserError, match="not a list of vertex numbers"):
            load_regions(_masks(tmp_path, lips=circular), 10)

    def test_other_broken_files(self, tmp_path: Path) -> None:
        (tmp_path / "FLAME_masks.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
        with pytest.raises(UserError, match=r"asks for os\.system"):
            load_regions(tmp_path, 10)
        (tmp_path / "FLAME_masks.pkl").unlink()
        (tmp_path / "landmarks.json").write_text("[1]")
        with pytest.raises(UserError, match=r"landmarks\.json: not of the form"):
            load_regions(tmp_path, 10)
        (tmp_path / "landmarks.json").unlink()
        (tmp_path / "regions").mkdir()
        (tmp_path / "regions" / "lve.txt").write_text("one, two")
        with pytest.raises(UserError, match=r"lve\.txt: not a list of vertex numbers"):
            load_regions(tmp_path, 10)


def _mouth(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A head: two lips as bulging ridges across x, an upper face above. Returns points, lips, upper face."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(-0.03, 0.03, 21), np.linspace(-0.01, 0.01, 11), indexing="ij")
    x, y = x.reshape(-1), y.reshape(-1)
    ridge = np.exp(-(((np.abs(y) - 0.005) / 0.003) ** 2))  # foremost 5 mm above and below the mouth line
    lips = np.column_stack([x, y - 0.05, 0.1 + 0.01 * ridge - 4 * x**2])
    skull = rng.uniform([-0.08, -0.1, -0.1], [0.08, 0.1, 0.08], size=(300, 3))
    points = np.concatenate([skull, lips])
    return points, np.arange(300, len(points)), np.flatnonzero(skull[:, 1] > 0.02)


class TestLipCentres:
    @pytest.mark.parametrize("turned", [False, True])
    def test_the_foremost_vertices_in_the_middle(self, turned: bool) -> None:
        points, lips, upper_face = _mouth()
        centres = lip_centres(points * [1, -1, -1] if turned else points, lips, upper_face)
        assert centres is not None
        upper, lower = points[centres[0]], points[centres[1]]
        np.testing.assert_allclose(upper, [0, -0.045, 0.11], atol=2e-3)
        np.testing.assert_allclose(lower, [0, -0.055, 0.11], atol=2e-3)

    def test_without_an_upper_face_y_points_up(self) -> None:
        points, lips, _ = _mouth()
        upper, lower = lip_centres(points, lips)  # type: ignore[misc]
        assert points[upper, 1] > points[lower, 1]

    def test_a_coarse_mouth_without_a_vertex_in_the_middle(self) -> None:
        points = (
            np.array([[-1, 1, 0], [1, 1, 0], [-1, -1, 0], [1, -1, 0], [-0.6, 1, 1], [-0.6, -1, 1], [0, 0, -9]]) * 0.01
        )
        assert lip_centres(points, np.arange(6)) == (4, 5)

    def test_what_is_no_mouth(self) -> None:
        assert lip_centres(np.zeros((4, 3)), np.arange(4)) is None
        assert lip_centres(np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]), np.arange(3)) is None

    def test_they_are_used_where_nothing_is_stated(self, tmp_path: Path) -> None:
        root = make_tiny_corpus(tmp_path, n_vertices=90)
        (root / "landmarks.json").unlink()
        corpus = FaceCorpus(root)
        template = corpus.template("S0").reshape(-1, 3)
        upper, lower = template[corpus.regions["upper_lip"][0]], template[corpus.regions["lower_lip"][0]]
        assert abs(upper[0]) < 0.005 and abs(lower[0]) < 0.005 and upper[1] - lower[1] > 0.01
