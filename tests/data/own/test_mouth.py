"""Unit, axes and regions of a face from the corners of its mouth, against faces of which all is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.spatial import ConvexHull, Delaunay

from s2f_rl.data.own.mouth import regions_from_corners, regions_from_landmarks
from s2f_rl.data.own.placement import DIRECTIONS, Placement, find_placement
from s2f_rl.errors import UserError
from tests.data.own.faces import corners, parts, person

AXES = [
    (up, front) for up, front in itertools.product(DIRECTIONS, DIRECTIONS) if up.strip("-") != front.strip("-")
]  # fmt: skip
NO_FACES = np.empty((0, 3), np.int32)


def as_exported(points: np.ndarray, up: str, front: str, unit_m: float) -> np.ndarray:
    """The points in a program whose up and front are these axes."""
    vector = {name: (1 if len(name) == 1 else -1) * np.eye(3)["xyz".index(name[-1])] for name in DIRECTIONS}
    left = np.cross(vector[up], vector[front])
    return (points[:, :1] * left + points[:, 1:2] * vector[up] + points[:, 2:] * vector[front]) / unit_m


class TestPlacement:
    @pytest.mark.parametrize(("up", "front"), AXES)
    def test_any_axes(self, up: str, front: str) -> None:
        for number, (unit_m, name) in enumerate([(0.001, "millimetres"), (0.01, "centimetres"), (0.0254, "inches")]):
            points, faces = person(number)
            theirs = as_exported(points, up, front, unit_m) + [3.0, -20.0, 1.0]
            for triangles in (faces, faces[:, ::-1], NO_FACES):
                found = find_placement(theirs, triangles, corners(points))
                assert (found.up, found.front) == (up, front) and found.unit == f"{name} (guessed)"
                moved = found.apply(theirs)
                assert np.allclose(moved - moved[0], points - points[0], rtol=0, atol=1e-12)

    def test_an_open_mask(self) -> None:
        """The front of a face alone."""
        points, faces = person()
        mask = (points[:, 2] > np.quantile(points[:, 2], 0.55)) & ~np.isin(np.arange(len(points)), parts()["neck"])
        number = np.cumsum(mask) - 1
        own = number[faces[mask[faces].all(axis=1)]]
        a, b = (int(number[corner]) for corner in corners(points))
        found = find_placement(as_exported(points, "z", "-y", 0.001)[mask], own, (a, b), unit="mm")
        assert (found.up, found.front) == ("z", "-y")

    def test_what_is_given_is_kept(self) -> None:
        points, faces = person()
        found = find_placement(points, faces, corners(points), unit="m", up="-y", front="-z")
        assert (found.metres_per_unit, found.unit, found.up, found.front) == (1.0, "m", "-y", "-z")
        assert find_placement(points, faces, corners(points), up="y").front == "z"
        assert find_placement(points, faces, corners(points), front="z").up == "y"

    @pytest.mark.parametrize(
        ("change", "options", "match"),
        [
            (3.0, {}, "no face in any common unit"),
            (1.0, {"unit": "mm"}, "0.0451 mm apart"),
            (1.0, {"unit": "ells"}, "unit 'ells' is not known"),
            (1.0, {"up": "x"}, "up x: is the axis along which the corners"),
            (1.0, {"up": "y", "front": "-y"}, "different axes"),
        ],
    )
    def test_mistakes(self, change: float, options: dict[str, str], match: str) -> None:
        points, faces = person()
        with pytest.raises(UserError, match=match):
            find_placement(points * change, faces, corners(points), **options)

    def test_the_forehead_is_no_mouth(self) -> None:
        points, faces = person()
        eyes = parts()["left_eyeball"][0], parts()["right_eyeball"][0]
        with pytest.raises(UserError, match="mm apart, mouths are"):
            find_placement(points * 1.5, faces, (int(eyes[0]), int(eyes[1])), unit="m")

    def test_rotation_is_proper(self) -> None:
        for up, front in AXES:
            assert np.linalg.det(Placement(1.0, "m", up, front).rotation) == pytest.approx(1.0)


class TestRegions:
    @pytest.mark.parametrize("number", range(4))
    def test_from_corners(self, number: int) -> None:
        points, faces = person(number)
        found = regions_from_corners(points, faces, corners(points))
        lips, upper = found["lips"], found["upper_face"]
        assert np.isin(parts()["lips"], lips).all() and len(lips) < 2.5 * len(parts()["lips"])
        assert np.isin(parts()["upper_face"], upper).mean() > 0.88
        teeth = np.concatenate([parts()["upper_teeth"], parts()["lower_teeth"]])
        assert not np.isin(lips, np.concatenate([teeth, parts()["nose"], parts()["neck"]])).any()
        assert not np.isin(upper, np.concatenate([parts()["lips"], parts()["neck"], parts()["left_ear"]])).any()

    def test_another_size_gives_the_same(self) -> None:
        points, faces = person()
        first, second = (regions_from_corners(scale * points, faces, corners(points)) for scale in (1.0, 30.0))
        assert all(np.array_equal(first[name], second[name]) for name in first)

    def test_teeth_are_another_piece(self) -> None:
        """Without triangles nothing tells them from lips."""
        points, faces = person()
        points = np.concatenate([points, points[parts()["lips"]]])
        with_triangles = regions_from_corners(points, faces, corners(points))["lips"]
        assert with_triangles.max() < len(points) - len(parts()["lips"])
        assert regions_from_corners(points, NO_FACES, corners(points))["lips"].max() == len(points) - 1

    def test_from_landmarks(self) -> None:
        points, faces = person()
        lips = parts()["lips"]
        hull = lips[ConvexHull(points[lips, :2]).vertices]  # anticlockwise
        first, second = corners(points)
        hull = np.roll(hull, -hull.tolist().index(first))
        half = hull.tolist().index(second)
        places = [np.linspace(0, half, 6, endpoint=False), np.linspace(half, len(hull), 6, endpoint=False)]
        outline = hull[np.concatenate(places).astype(int)]
        landmarks = np.full(68, parts()["nose"][0])
        landmarks[48:60] = outline
        landmarks[[62, 66]] = lips[:2]
        lids = parts()["left_eyeball"][:4]
        landmarks[[40, 41, 46, 47]] = lids
        found = regions_from_landmarks(points, faces, landmarks)
        flat = points[outline, :2]
        inside = Delaunay(flat.mean(0) + 1.1 * (flat - flat.mean(0))).find_simplex(points[:, :2]) >= 0
        width = np.linalg.norm(points[outline[0]] - points[outline[6]])
        ahead = points[:, 2] > points[[outline[0], outline[6]], 2].mean() - 0.1 * width
        other = np.concatenate([parts()["upper_teeth"], parts()["lower_teeth"]])  # pieces of their own
        inside[other] = False
        assert set(found["lips"]) == set(np.flatnonzero(inside & ahead)) and len(found["lips"]) > 20
        assert points[found["upper_face"], 1].min() >= points[lids, 1].min()
        assert found["upper_lip"].tolist() == [outline[3], lips[0]]
        assert found["lower_lip"].tolist() == [outline[9], lips[1]]

    def test_no_nose(self) -> None:
        points, faces = person()
        middle = points[list(corners(points))].mean(axis=0)
        keep = points[:, 1] < middle[1] + 0.01
        with pytest.raises(UserError, match="no vertices above the mouth"):
            regions_from_corners(np.where(keep[:, None], points, middle), faces, corners(points))
