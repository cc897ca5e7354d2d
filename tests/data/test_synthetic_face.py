"""The procedural face: exact vertex counts, a sound mesh, faces that differ."""

from __future__ import annotations

import numpy as np
import pytest

from s2f_rl.data.synthetic.face import build_face, face_colours, regions
from s2f_rl.data.synthetic.features import REST_GAP_MM
from s2f_rl.data.synthetic.head import RAY_ORIGIN, Identity, front_surface, head_distance, radial_surface
from s2f_rl.data.synthetic.rig import build_rig
from s2f_rl.data.synthetic.speakers import make_speaker
from s2f_rl.data.synthetic.topology import Topology, build_topology, from_plane, to_plane
from s2f_rl.errors import UserError

COUNTS = (300, 311, 450, 600, 1201)


def _edges(faces: np.ndarray) -> dict[tuple[int, int], int]:
    """How often each directed edge is used, the slow way."""
    count: dict[tuple[int, int], int] = {}
    for a, b, c in faces.tolist():
        for edge in ((a, b), (b, c), (c, a)):
            count[edge] = count.get(edge, 0) + 1
    return count


def _expected_boundary(top: Topology) -> int:
    """Border edges that are meant to be open: eyeballs, inner lids, brows, ears, teeth. The skin has none."""
    lay = top.layout
    ears = 2 * lay.ear_around if lay.ear_rings else 0
    brows, teeth = 2 * (2 * (lay.brow_columns - 1) + 4), 2 * (2 * (lay.teeth_columns - 1) + 2)
    return 2 * lay.eye_around + 8 * lay.lid_quarter + brows + ears + teeth


class TestTopology:
    @pytest.mark.parametrize("n", COUNTS)
    def test_exact_count_and_all_used(self, n: int) -> None:
        top = build_topology(n)
        assert top.n_vertices == n
        assert np.array_equal(np.unique(top.faces), np.arange(n))
        assert top.faces.dtype == np.int32

    def test_full_size(self) -> None:
        face = build_face(Identity(), 5023)
        assert face.template.shape == (5023, 3) and face.template.dtype == np.float32
        assert len(np.unique(face.topology.faces)) == 5023

    @pytest.mark.parametrize("n", COUNTS)
    def test_oriented_and_watertight_where_it_should_be(self, n: int) -> None:
        top = build_topology(n)
        edges = _edges(top.faces)
        assert max(edges.values()) == 1, "two triangles run along an edge in the same direction"
        open_edges = sum((b, a) not in edges for a, b in edges)
        assert open_edges == _expected_boundary(top)

    @pytest.mark.parametrize("n", COUNTS)
    def test_mirror_maps_triangles_to_triangles(self, n: int) -> None:
        top = build_topology(n)
        assert np.array_equal(top.mirror[top.mirror], np.arange(n))
        skin = top.faces[np.isin(top.faces, top.skin).all(1)]
        known = {tuple(sorted(f)) for f in skin.tolist()}
        mirrored = {tuple(sorted(f)) for f in top.mirror[skin].tolist()}
        assert known == mirrored

    def test_too_few(self) -> None:
        with pytest.raises(UserError, match="vertices=299.*300"):
            build_topology(299)

    def test_plane_round_trip(self) -> None:
        rng = np.random.default_rng(0)
        plane = rng.uniform(-120, 120, (50, 2))
        assert to_plane(RAY_ORIGIN + 77.0 * from_plane(plane)) == pytest.approx(plane, abs=1e-9)


class TestHead:
    def test_rays_end_on_the_surface(self) -> None:
        rng = np.random.default_rng(1)
        direction = rng.normal(size=(300, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        points = radial_surface(direction, Identity())
        assert np.abs(head_distance(points, Identity())).max() < 1e-3
        beyond = radial_surface(direction, Identity()) + 0.5 * direction
        assert (head_distance(beyond, Identity()) > 0).all()

    def test_front_is_the_foremost_crossing(self) -> None:
        xy = np.array([[0.0, 2.0], [20.0, -20.0], [0.0, -62.0]])
        z = front_surface(xy, Identity())[:, 2]
        for (x, y), found in zip(xy, z, strict=True):
            scan = np.arange(140.0, 40.0, -0.01)
            inside = head_distance(np.stack([0 * scan + x, 0 * scan + y, scan], -1), Identity()) < 0
            assert found == pytest.approx(scan[inside][0], abs=0.02)


class TestFace:
    @pytest.mark.parametrize("n", [300, 600])
    @pytest.mark.parametrize("index", range(16))
    def test_every_speaker_has_a_sound_mesh(self, n: int, index: int) -> None:
        face = make_speaker(index, 0, n).face
        v, faces = face.template_mm, face.topology.faces
        assert np.isfinite(v).all()
        a, b, c = v[faces[:, 0]], v[faces[:, 1]], v[faces[:, 2]]
        normal = np.cross(b - a, c - a)
        assert np.linalg.norm(normal, axis=1).min() / 2 > 0.05, "a degenerate triangle (mm^2)"
        skin = np.isin(faces, face.topology.skin).all(1)
        outward = ((a + b + c)[skin] / 3 - RAY_ORIGIN) * normal[skin]
        assert (outward.sum(1) > 0).all(), "a triangle of the skin is folded over"

    def test_parts_face_forwards(self) -> None:
        face = build_face(Identity(), 600)
        top, v, faces = face.topology, face.template_mm, face.topology.faces
        normal = np.cross(v[faces[:, 1]] - v[faces[:, 0]], v[faces[:, 2]] - v[faces[:, 0]])
        for part in (top.lips, top.eye_rings, top.brows, top.teeth):
            assert normal[np.isin(faces, part).all(1), 2].mean() > 0
        left_ear = np.isin(faces, np.append(top.ears[0], top.ear_pole[0])).all(1)
        assert normal[left_ear, 0].mean() > 0

    def test_size_of_a_head_in_metres(self) -> None:
        for index in range(4):
            t = make_speaker(index, 0, 600).template
            width, height, depth = np.ptp(t, axis=0)
            assert 0.14 < width < 0.20 and 0.24 < height < 0.31 and 0.18 < depth < 0.26

    def test_rest_lips_are_just_apart(self) -> None:
        for index in range(4):
            rig = make_speaker(index, 0, 600).rig
            assert rig.rest_gap[len(rig.rest_gap) // 2] == pytest.approx(REST_GAP_MM, abs=1e-6)
            assert (rig.rest_gap > 0).all() and rig.rest_gap.max() <= REST_GAP_MM + 1e-6

    def test_symmetric_at_rest(self) -> None:
        face = build_face(Identity(), 600)
        mirrored = face.template_mm[face.topology.mirror] * (-1, 1, 1)
        assert mirrored == pytest.approx(face.template_mm, abs=1e-6)

    def test_speakers_differ(self) -> None:
        templates = np.stack([make_speaker(i, 0, 300).face.template_mm for i in range(6)])
        for i in range(6):
            for j in range(i):
                assert np.linalg.norm(templates[i] - templates[j], axis=-1).mean() > 0.8

    def test_regions(self) -> None:
        found = regions(600)
        rig = build_rig(build_face(Identity(), 600))
        assert {rig.upper_lip, rig.lower_lip} <= set(found["lips"])
        for name, index in found.items():
            assert index.dtype == np.int64 and len(index) > 0, name
            assert np.array_equal(index, np.unique(index)) and index.max() < 600, name
        assert not set(found["lips"]) & set(found["upper_face"])
        t = build_face(Identity(), 600).template_mm
        assert t[found["forehead"], 1].min() > t[found["eye_region"], 1].mean() > t[found["nose"], 1].mean()
        assert t[found["nose"], 1].mean() > t[found["lips"], 1].max()
        assert (t[found["left_eye_region"], 0] > 0).all() and (t[found["right_eyeball"], 0] < 0).all()

    @pytest.mark.parametrize("n", [300, 5023])
    def test_regions_that_everybody_needs(self, n: int) -> None:
        found = regions(n)
        assert {"lips", "upper_face", "eye_region", "face", "neck", "scalp", "mouth_interior"} <= set(found)
        assert ("left_ear" in found) == (n > 300)
        assert all(len(index) for index in found.values())

    def test_colours(self) -> None:
        face = build_face(Identity(), 600)
        c = face_colours(face, (200, 150, 130), (180, 90, 90), (30, 20, 10), (60, 80, 100))
        assert c.shape == (600, 3) and c.dtype == np.uint8
        assert tuple(c[regions(600)["lips"][0]]) == (180, 90, 90)
        assert tuple(c[face.topology.eye_rings[0, 1, 0]]) == (54, 72, 90)
