from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from s2f_rl.errors import UserError
from s2f_rl.render import contact_sheet, iter_frames, render_frames, render_still
from s2f_rl.render.camera import frame_camera
from s2f_rl.render.colours import check_colours, find_colours, region_colours
from s2f_rl.render.occlusion import sky_share, spread_directions
from s2f_rl.render.shading import Lighting, background_image, shade_vertices, to_linear, to_srgb
from tests.render.shapes import ball

SIZE = 48


class TestRenderFrames:
    def test_all_forms_of_a_sequence_give_the_same_pictures(self, sphere, motion, tmp_path):
        faces = sphere[1]
        expected = render_frames(motion, faces, SIZE)
        assert expected.shape == (5, SIZE, SIZE, 3) and expected.dtype == np.uint8
        np.save(tmp_path / "a.npy", motion.reshape(5, -1))
        for form in (
            motion.reshape(5, -1),
            torch.tensor(motion),
            torch.tensor(motion.reshape(5, -1)),
            tmp_path / "a.npy",
            str(tmp_path / "a.npy"),
            motion.astype(np.float64),
        ):
            np.testing.assert_array_equal(render_frames(form, faces, SIZE), expected)
        np.testing.assert_array_equal(list(iter_frames(motion, torch.tensor(faces), SIZE)), expected)

    def test_the_ball_is_where_it_should_be(self, sphere, motion):
        vertices, faces = sphere
        pictures = render_frames(motion, faces, SIZE).astype(int)
        background = background_image(SIZE, Lighting()).astype(int)
        seen = (np.abs(pictures - background) > 8).any(-1)
        camera = frame_camera([motion])
        for t in (0, 4):
            rows, columns = np.nonzero(seen[t])
            where = camera.project(motion[t], SIZE)
            assert columns.min() == pytest.approx(where[:, 0].min(), abs=1.5)
            assert columns.max() == pytest.approx(where[:, 0].max() - 1, abs=1.5)
            assert rows.min() == pytest.approx(where[:, 1].min(), abs=1.5)
        assert np.nonzero(seen[4])[1].mean() > np.nonzero(seen[0])[1].mean() + 5  # the ball went to the right
        assert not seen[0][:2].any()

    def test_either_winding_gives_the_same_picture(self, sphere):
        vertices, faces = sphere
        flat = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0.0]])
        for mesh, triangles in ((vertices, faces), (flat, np.array([[0, 1, 2], [1, 3, 2]]))):
            there, back = (render_frames(mesh[None], f, SIZE) for f in (triangles, triangles[:, ::-1]))
            assert (there != render_frames(mesh[None] + 5, None, SIZE)).any()
            np.testing.assert_allclose(there.astype(int), back.astype(int), atol=1)

    def test_light_comes_from_the_upper_left(self, sphere):
        picture = render_still(*sphere, size=96).astype(int).sum(-1)
        assert picture[36, 36] > picture[60, 60] + 60

    def test_colours_are_seen(self, sphere):
        vertices, faces = sphere
        colours = np.zeros((len(vertices), 3), np.uint8)
        colours[:, 1] = 200
        middle = render_still(vertices, faces, size=SIZE, colours=colours)[SIZE // 2, SIZE // 2]
        assert middle[1] > 150 and middle[0] < 80 and middle[2] < 80

    def test_without_triangles_dots_cover_the_same_place(self, caplog):
        vertices, faces = ball(40, 48)
        motion = np.stack([vertices, vertices + [0.02, 0, 0]])
        with caplog.at_level(logging.WARNING):
            dots = render_frames(motion, None, SIZE).astype(int)
        assert "dots" in caplog.text
        background = background_image(SIZE, Lighting()).astype(int)
        solid = render_frames(motion, faces, SIZE).astype(int)
        seen, expected = ((np.abs(p - background) > 8).any(-1) for p in (dots, solid))
        assert (seen & expected).sum() / (seen | expected).sum() > 0.85

    def test_a_few_points_are_enough_for_dots(self):
        for n in (1, 2, 3):
            picture = render_frames(np.random.default_rng(n).normal(size=(1, n, 3)), None, SIZE)
            assert (picture[0] != background_image(SIZE, Lighting())).any()

    @pytest.mark.parametrize(
        "wrong, message",
        [
            (np.zeros((5, 7)), "vertices: has shape"),
            (np.zeros(9), "vertices: has shape"),
            (np.zeros((0, 9)), "vertices: has no frames"),
            (np.full((2, 9), np.nan), "frame 0 holds coordinates"),
            (np.array([[0.0] * 9, [1e39] * 9]), "frame 1 holds coordinates"),
            (np.array([["a"] * 9]), "vertices: holds"),
            ("missing.npy", "missing.npy: no such file"),
        ],
    )
    def test_mistakes_in_the_vertices(self, wrong, message):
        with pytest.raises(UserError, match=message):
            render_frames(wrong, np.array([[0, 1, 2]]), SIZE)

    def test_other_mistakes(self, sphere, motion):
        faces = sphere[1]
        for wrong, message in (
            (faces[:, :2], "faces: has shape"),
            (faces + 0.5, "faces: has shape"),
            (faces[:0], "faces: has shape"),
            (faces + 100, "refers to vertex"),
            (faces - 1, "refers to vertex -1"),
        ):
            with pytest.raises(UserError, match=message):
                render_frames(motion, wrong, SIZE)
        with pytest.raises(UserError, match="size is 15"):
            render_frames(motion, faces, 15)
        with pytest.raises(UserError, match="samples is 9"):
            render_frames(motion, faces, SIZE, samples=9)
        with pytest.raises(UserError, match="colours: has shape"):
            render_frames(motion, faces, SIZE, colours=np.zeros((3, 3), np.uint8))


class TestStills:
    def test_sheet_and_file(self, sphere, tmp_path):
        from PIL import Image

        vertices, faces = sphere
        sheet = contact_sheet(
            [vertices, vertices.ravel() * 0.5, vertices],
            faces,
            tmp_path / "new" / "a.png",
            ["one", "two", "three"],
            columns=2,
            size=SIZE,
        )
        strip = 12
        assert sheet.shape == (2 * (SIZE + strip), 2 * SIZE, 3)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "a.png")), sheet)
        assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.png"]
        first, second = sheet[strip : strip + SIZE, :SIZE], sheet[strip : strip + SIZE, SIZE:]
        background = background_image(SIZE, Lighting())
        assert (first != background).sum() > 2.5 * (second != background).sum()  # one camera: half the size is seen
        np.testing.assert_array_equal(sheet[SIZE + 2 * strip :, :SIZE], first)

    def test_mistakes(self, sphere):
        vertices, faces = sphere
        with pytest.raises(UserError, match="2 captions for 1"):
            contact_sheet([vertices], faces, captions=["a", "b"])
        with pytest.raises(UserError, match="mesh 0: has shape"):
            contact_sheet([np.zeros((4, 9))], faces)
        with pytest.raises(UserError, match="columns is 0"):
            contact_sheet([vertices], faces, columns=0)
        with pytest.raises(UserError, match="no sequences"):
            contact_sheet([], faces)


class TestOcclusion:
    def test_directions_are_even(self):
        directions = spread_directions(64)
        np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
        np.testing.assert_allclose(directions.mean(0), 0, atol=0.01)
        np.testing.assert_allclose(directions.T @ directions / 64, np.eye(3) / 3, atol=0.01)

    def test_a_ball_sees_all_its_sky_and_the_inside_of_a_box_little(self, sphere):
        vertices, faces = sphere
        assert sky_share(vertices, faces.astype(np.int32)).min() > 0.9
        # A small ball within a large one: nothing of the sky is left.
        both = np.concatenate([0.3 * vertices, vertices])
        share = sky_share(both, np.concatenate([faces, faces + len(vertices)]).astype(np.int32))
        assert share[: len(vertices)].max() < 0.05 and share[len(vertices) :].min() > 0.9

    def test_a_roof_hides_the_sky_above(self):
        square = np.array([[-1, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1.0]])
        floor, roof = np.array([[0, 0.0, 0]]), square + [0, 0.5, 0]
        small = 0.05 * square
        vertices = np.concatenate([small, roof])
        faces = np.array([[0, 2, 1], [0, 3, 2], [4, 6, 5], [4, 7, 6]], np.int32)
        share = sky_share(vertices + floor, faces)
        # The roof takes the directions within about 63 degrees of the zenith: sin^2 of that, weighted by the cosine.
        assert share[:4].max() < 0.35 and share[4:].min() > 0.95


class TestColours:
    def test_regions_and_file(self, tmp_path):
        regions = {"lips": torch.tensor([1, 2]), "nose": [0]}
        colours = find_colours(tmp_path, 4, regions)
        np.testing.assert_array_equal(colours, region_colours(4, regions))
        assert colours.dtype == np.uint8 and (colours[0] == colours[3]).all() and (colours[1] != colours[0]).any()
        own = np.arange(12, dtype=np.uint8).reshape(4, 3)
        np.save(tmp_path / "colours.npy", own)
        np.testing.assert_array_equal(find_colours(tmp_path, 4, regions), own)
        (tmp_path / "colours").mkdir()
        np.save(tmp_path / "colours" / "S1.npy", own + 1)
        np.testing.assert_array_equal(find_colours(tmp_path, 4, regions, "S1"), own + 1)
        np.testing.assert_array_equal(find_colours(tmp_path, 4, regions, "S2"), own)
        with pytest.raises(UserError, match="colours.npy: has shape"):
            find_colours(tmp_path, 5, {})
        with pytest.raises(UserError, match="region lips: holds index 4"):
            region_colours(4, {"lips": [4]})
        with pytest.raises(UserError, match="colours: has shape"):
            check_colours(own.astype(float), 4)

    def test_shades_stay_in_range_and_facing_the_key_light_is_brighter(self):
        lighting = Lighting()
        normals = spread_directions(200).astype(np.float32)
        albedo = np.full((200, 3), 0.6, np.float32)
        shades = shade_vertices(normals, albedo, lighting)
        assert shades.dtype == np.float32 and shades.min() >= 0 and shades.max() <= 255
        key = np.asarray(lighting.key_direction) / np.linalg.norm(lighting.key_direction)
        towards = shades[(normals @ key).argmax()].sum()
        assert towards > 1.5 * shades[(normals @ key).argmin()].sum()
        assert shade_vertices(normals, np.ones((200, 3), np.float32), lighting).max() <= 255
        values = np.arange(256)
        np.testing.assert_allclose(to_srgb(to_linear(values)), values, atol=1e-3)
