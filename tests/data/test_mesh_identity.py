"""The identity of a mesh: other persons have it, other orders, mirror images, axes and units do not."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import numpy as np
import pytest
import torch

from s2f_rl.data.mesh_identity import FEW_VERTICES, MeshIdentity, difference, triangles_hash
from s2f_rl.data.synthetic.speakers import make_speaker
from s2f_rl.data.synthetic.topology import build_topology
from s2f_rl.errors import UserError
from tests.ellipsoid import V, triangles
from tests.ellipsoid import ellipsoid as face


def told(a: Any, b: Any) -> str | None:
    one, other = (side if isinstance(side, MeshIdentity) else MeshIdentity.of(side) for side in (a, b))
    return difference(one, other, "start=a", "corpus b")


def mixed(points: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """A share of the vertices change places."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(points), int(share * len(points)), replace=False)
    order = np.arange(len(points))
    order[np.sort(chosen)] = chosen
    return points[order]


class TestSameMesh:
    @pytest.mark.parametrize("n_vertices", [300, 600, 1200])
    def test_built_in_persons(self, n_vertices: int) -> None:
        identities = [MeshIdentity.of(make_speaker(i, 0, n_vertices).template) for i in range(12)]
        assert [told(identities[0], other) for other in identities] == [None] * 12

    @pytest.mark.parametrize("noise_m", [0, 0.001, 0.002])
    @pytest.mark.parametrize(("rows", "columns"), [(5, 6), (8, 8), (20, 24), (70, 72)])
    def test_ellipsoids_of_other_proportions(self, rows: int, columns: int, noise_m: float) -> None:
        if rows == 70:
            noise_m /= 4  # its vertices are 3 mm apart
        faces = [face(k, rows, columns, noise_m) for k in range(6)]
        assert [told(faces[0], other) for other in faces] == [None] * 6

    def test_an_open_mouth_a_tilted_head_and_a_shift(self) -> None:
        a, b = face(0), face(1)
        b[:, 1] -= 0.02 * (b[:, 1] < -0.035)
        c, s = np.cos(0.5), np.sin(0.5)
        b = b @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) + 5
        assert told(a, b) is None

    def test_the_median_of_several_persons(self) -> None:
        persons = {f"S{k}": torch.tensor(face(k)).reshape(-1) for k in range(5)}
        persons["odd"] = persons["S0"].reshape(-1, 3).flip(0).reshape(-1)
        assert told(MeshIdentity.of(persons), face(7)) is None

    def test_other_triangles_of_the_same_vertices(self) -> None:
        one = MeshIdentity.of(face(0), triangles())
        for other in (triangles(other_diagonal=True), triangles()[:-40], triangles()[:, ::-1], None):
            assert told(one, MeshIdentity.of(face(1), other)) is None

    def test_what_is_not_known_fits(self) -> None:
        known = MeshIdentity.of(face(), triangles())
        assert told(known, MeshIdentity(V)) is None and told(MeshIdentity(V), known) is None
        assert difference(None, known, "a", "b") is None and difference(known, None, "a", "b") is None


class TestAnotherMesh:
    def test_vertex_count(self) -> None:
        text = "start=a and corpus b are different meshes: 480 vertices and 64; use faces of one mesh"
        assert told(face(), face(0, 8, 8)) == text
        assert told(MeshIdentity(480), MeshIdentity(64)) == text

    @pytest.mark.parametrize("n_vertices", [40, V, 600])
    def test_another_order(self, n_vertices: int) -> None:
        pair = {40: (face(0, 5, 8), face(1, 5, 8)), V: (face(0), face(1))}.get(n_vertices)
        a, b = pair or (make_speaker(i, 0, n_vertices).template for i in range(2))
        for order in (
            np.random.default_rng(5).permutation(n_vertices),
            np.roll(np.arange(n_vertices), n_vertices // 2),
        ):
            message = told(a, b[order])
            assert message is not None
            assert (
                f"start=a and corpus b are different meshes: the same {n_vertices} vertices, but in another" in message
            )

    @pytest.mark.parametrize("share", [0.2, 0.4, 0.8])
    def test_part_of_the_vertices_in_another_order(self, share: float) -> None:
        for seed in range(5):
            message = told(face(0), mixed(face(1), share, seed))
            assert message is not None and "in another order" in message

    def test_the_grid_of_another_export(self) -> None:
        points = face(1)
        column_by_column = points.reshape(20, 24, 3).swapaxes(0, 1).reshape(-1, 3)
        for other in (column_by_column, np.roll(points, 1, axis=0), points[::-1]):
            assert told(face(0), other) is not None

    def test_a_re_export_with_its_own_triangles(self) -> None:
        order = np.random.default_rng(5).permutation(V)
        again = MeshIdentity.of(face()[order], np.argsort(order)[triangles()])
        message = told(MeshIdentity.of(face(), triangles()), again)
        assert message is not None and "in another order (" in message

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_mirror_images(self, axis: int) -> None:
        sign = np.ones(3)
        sign[axis] = -1
        message = told(face(0), face(1) * sign)
        name = "xyz"[axis]
        assert message is not None
        assert f"one face is the mirror image of the other (in corpus b {name} is -{name} of start=a)" in message

    def test_z_up_and_y_down(self) -> None:
        message = told(face(0), face(1)[:, [0, 2, 1]] * (1, -1, 1))
        assert message is not None and "turned by 90 degrees (in corpus b y is -z, z is y of start=a)" in message
        message = told(face(0), face(1) * (-1, -1, 1))
        assert message is not None and "turned by 180 degrees (in corpus b x is -x, y is -y of start=a)" in message
        message = told(MeshIdentity(V), MeshIdentity(V, up="z"))
        assert message is not None and "y points up in one, z in the other" in message

    def test_units(self) -> None:
        for factor, size in ((1000, "1000"), (0.01, "100"), (1 / 0.186, "5.376")):
            message = told(face(), face() * factor)
            assert message is not None and f"one face is {size} times as large" in message

    def test_few_vertices_have_only_triangles(self) -> None:
        toys = np.random.default_rng(0).normal(size=(2, FEW_VERTICES - 1, 3))
        assert told(toys[0], toys[1]) is None
        one, other = (MeshIdentity.of(toys[0], corners) for corners in np.array([[[0, 1, 2]], [[0, 1, 3]]]))
        message = told(one, other)
        assert message is not None and "23 vertices each, but other triangles" in message


class TestTriangles:
    def test_a_set_whatever_the_order_and_first_corner(self) -> None:
        corners = triangles()
        again = np.roll(np.random.default_rng(0).permutation(corners), 1, axis=1).astype(np.int32)
        assert triangles_hash(corners) == triangles_hash(again) == triangles_hash(torch.from_numpy(again))
        assert len({triangles_hash(x) for x in (corners, corners[:, ::-1], corners[1:], np.zeros((0, 3), int))}) == 4

    def test_a_known_value(self) -> None:
        content = np.array([[0, 2, 1], [1, 2, 3]], dtype="<i8").tobytes()
        assert triangles_hash(np.array([[2, 3, 1], [1, 0, 2]])) == hashlib.sha256(content).hexdigest()


class TestPlain:
    @pytest.mark.parametrize("n_vertices", [12, 24, 100, 600])
    def test_there_and_back(self, n_vertices: int) -> None:
        points = np.random.default_rng(0).normal(size=(n_vertices, 3))
        identity = MeshIdentity.of(points, np.array([[0, 1, 2]]))
        plain = identity.to_plain()
        assert MeshIdentity.from_plain(json.loads(json.dumps(plain))) == identity
        file = io.BytesIO()
        torch.save(plain, file)
        file.seek(0)
        assert MeshIdentity.from_plain(torch.load(file, weights_only=True)) == identity
        assert MeshIdentity.from_plain(None) is None
        assert len(json.dumps(plain)) < 20_000

    def test_built_in_faces_of_all_sizes(self) -> None:
        identity = MeshIdentity.of(make_speaker(0, 0, 300).template, build_topology(300).faces)
        assert len(identity.places) == 128 * 3 and len(identity.neighbours) == 128 * 16
        assert identity.size_m == pytest.approx(0.3, abs=0.1) and (identity.unit, identity.up) == ("metres", "y")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"n_vertices": True}, "number of vertices"),
            ({"n_vertices": 10**300}, "number of vertices"),
            ({"n_vertices": -480}, "number of vertices"),
            ({"n_vertices": 479}, "places|neighbours"),
            ({"triangles": "x" * 64}, "SHA-256"),
            ({"triangles": 5}, "SHA-256"),
            ({"size_m": float("nan")}, "length in metres"),
            ({"size_m": 10**400}, "length in metres"),
            ({"size_m": "1"}, "length in metres"),
            ({"size_m": 0.0}, "no list of 0 numbers"),
            ({"unit": "mm"}, "in metres"),
            ({"up": ["y"]}, "in metres"),
            ({"places": [0] * 10**6}, "no list of 384 numbers"),
            ({"places": [0.5] * 384}, "whole numbers"),
            ({"places": [10**30] * 384}, "whole numbers"),
            ({"places": "abc"}, "no list of 384 numbers"),
            ({"neighbours": [480] * 2048}, "whole numbers"),
            ({"neighbours": [-1] * 2048}, "whole numbers"),
            ({"neighbours": [[1]] * 2048}, "whole numbers"),
            ({"neighbours": []}, "no list of 2048 numbers"),
        ],
    )
    def test_hostile_content(self, changes: dict[str, Any], message: str) -> None:
        plain = MeshIdentity.of(face(), triangles()).to_plain()
        with pytest.raises(UserError, match=f"^a.pt: .*({message})"):
            MeshIdentity.from_plain({**plain, **changes}, "a.pt")

    @pytest.mark.parametrize("content", [[], 5, "x", {}, {"n_vertices": 5}, b""])
    def test_other_things(self, content: Any) -> None:
        with pytest.raises(UserError, match="identity of"):
            MeshIdentity.from_plain(content, "a.pt")

    def test_all_in_one_point_is_compared_without_a_crash(self) -> None:
        plain = MeshIdentity.of(face()).to_plain()
        flat = MeshIdentity.from_plain({**plain, "places": [0] * 384})
        assert told(MeshIdentity.of(face()), flat) is None
        assert told(np.zeros((V, 3)), face()) is None
        assert told(np.full((V, 3), np.nan), face()) is None
