"""The numba kernels against loops that test every sample of the picture."""

from __future__ import annotations

import numpy as np
import pytest

from s2f_rl.render import rasteriser
from s2f_rl.render.camera import Camera
from s2f_rl.render.rasteriser import Rasteriser, average_samples, fill_triangles, vertex_normals

BACK = np.array([7, 8, 9], np.float32)


def brute_force(screen, faces, colours, size):
    """Every face on every sample, by barycentric coordinates."""
    image, nearness = np.full((size, size, 3), 255, np.uint8), np.zeros((size, size))
    for i, j, k in faces:
        (x0, y0, z0), (x1, y1, z1), (x2, y2, z2) = screen[i], screen[j], screen[k]
        if min(z0, z1, z2) <= 0:
            continue
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        for row in range(size):
            for column in range(size):
                x, y = column + 0.5, row + 0.5
                b0 = ((x1 - x) * (y2 - y) - (x2 - x) * (y1 - y)) / area
                b1 = ((x2 - x) * (y0 - y) - (x0 - x) * (y2 - y)) / area
                b2 = 1 - b0 - b1
                near = b0 * z0 + b1 * z1 + b2 * z2
                if min(b0, b1, b2) < 0 or near <= nearness[row, column]:
                    continue
                nearness[row, column] = near
                image[row, column] = BACK if area > 0 else b0 * colours[i] + b1 * colours[j] + b2 * colours[k]
    return image, nearness


def draw(screen, faces, colours, size):
    image, nearness = np.full((size, size, 3), 255, np.uint8), np.zeros((size, size), np.float32)
    fill_triangles(
        np.asarray(screen, np.float64),
        np.asarray(faces, np.int32),
        np.asarray(colours, np.float32),
        BACK,
        nearness,
        image,
    )
    return image, nearness


@pytest.mark.parametrize("seed", range(6))
def test_overlapping_triangles_against_brute_force(seed):
    random = np.random.default_rng(seed)
    size = 23
    # Some corners lie outside the picture, some behind the eye.
    screen = np.column_stack([random.uniform(-8, 31, (24, 2)), random.uniform(-0.1, 2, 24)])
    faces, colours = random.permutation(24).reshape(8, 3), random.uniform(0, 255, (24, 3))
    image, nearness = draw(screen, faces, colours, size)
    expected, depth = brute_force(screen, faces, colours, size)
    assert (depth > 0).mean() > 0.2
    np.testing.assert_allclose(nearness, depth, atol=1e-5)
    np.testing.assert_allclose(image.astype(int), expected.astype(int), atol=1)  # truncated from float32
    assert (image[depth == 0] == 255).all()


def test_coverage_of_one_triangle_by_hand():
    screen = [[0, 0, 1], [0, 4, 1], [4, 0, 1]]  # anticlockwise when y points up; samples on the slope belong to it
    _, nearness = draw(screen, [[0, 1, 2]], np.zeros((3, 3)), 5)
    assert (nearness > 0).astype(int).tolist() == [
        [1, 1, 1, 1, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]


def test_the_nearer_face_wins_in_either_order():
    screen = np.array([[1, 1, 1.0], [1, 9, 1], [9, 1, 1], [1, 1, 2], [1, 9, 2], [9, 1, 2]])
    colours = np.array([[10, 10, 10]] * 3 + [[200, 200, 200]] * 3)
    for faces in ([[0, 1, 2], [3, 4, 5]], [[3, 4, 5], [0, 1, 2]]):
        image, nearness = draw(screen, faces, colours, 10)
        assert np.unique(image[nearness > 0]).tolist() == [200]


def test_a_back_is_seen_in_its_own_colour():
    image, nearness = draw([[1, 1, 1], [9, 1, 1], [1, 9, 1]], [[0, 1, 2]], np.full((3, 3), 100), 10)
    assert (image[nearness > 0] == BACK).all() and (nearness > 0).any()


def test_neighbours_leave_no_crack():
    random = np.random.default_rng(1)
    inner = np.column_stack([random.uniform(5, 55, (60, 2)), np.ones(60)])
    corners = np.array([[-1, -1, 1], [61, -1, 1], [61, 61, 1], [-1, 61, 1.0]])
    screen = np.concatenate([inner, corners])
    from scipy.spatial import Delaunay

    _, nearness = draw(screen, Delaunay(screen[:, :2]).simplices, np.zeros((64, 3)), 60)
    assert (nearness > 0).all()


def test_hostile_numbers_draw_nothing_and_do_no_harm():
    for bad in (np.nan, np.inf, -np.inf, 1e300, -1e300):
        screen = np.array([[bad, 1, 1.0], [1, 9, 1], [9, bad, 1]])
        image, nearness = draw(screen, [[0, 1, 2]], np.zeros((3, 3)), 10)
        assert (nearness == 0).all() and (image == 255).all()
    assert (draw([[1, 1, 1], [5, 5, 1], [9, 9, 1]], [[0, 1, 2]], np.zeros((3, 3)), 10)[1] == 0).all()  # no area


@pytest.mark.parametrize("n", [1, 2, 3])
def test_average_of_samples(n):
    image = np.random.default_rng(0).integers(0, 256, (5 * n, 5 * n, 3), dtype=np.uint8)
    out = np.empty((5, 5, 3), np.uint8)
    average_samples(image, out)
    mean = image.reshape(5, n, 5, n, 3).mean((1, 3))
    np.testing.assert_array_equal(out, np.floor(mean + 0.5))


def test_vertex_normals_against_a_loop(sphere):
    vertices, faces = sphere
    vertices = np.concatenate([vertices, [[1, 1, 1]]])  # the last belongs to no face
    expected = np.zeros_like(vertices)
    for face in faces:
        a, b, c = vertices[face]
        for corner in face:
            expected[corner] += np.cross(b - a, c - a)
    length = np.linalg.norm(expected, axis=1, keepdims=True)
    expected = np.divide(expected, length, out=np.zeros_like(expected), where=length > 0)
    normals = np.empty(vertices.shape, np.float32)
    vertex_normals(vertices.astype(np.float32), faces.astype(np.int32), normals)
    np.testing.assert_allclose(normals, expected, atol=1e-4)
    assert (normals[-1] == 0).all()


def test_anti_aliasing_is_the_mean_of_a_larger_picture(sphere):
    vertices, faces = sphere
    camera, albedo = Camera((0.0, 0.0, 0.0), 0.13, 0.6), np.full((len(vertices), 3), 0.5)
    large = Rasteriser(faces, camera, 64, albedo, samples=1).frame(vertices)
    small = Rasteriser(faces, camera, 32, albedo, samples=2).frame(vertices)
    np.testing.assert_array_equal(small, np.floor(large.reshape(32, 2, 32, 2, 3).mean((1, 3)) + 0.5))


def test_a_frame_does_not_depend_on_the_one_before(sphere, motion):
    vertices, faces = sphere
    painter = Rasteriser(faces, Camera((0.0, 0.0, 0.0), 0.15, 0.6), 32, np.full((len(vertices), 3), 0.5))
    first = painter.frame(motion[0])
    assert (painter.frame(motion[4]) != first).any()
    np.testing.assert_array_equal(painter.frame(motion[0]), first)


def test_without_a_place_for_its_cache_numba_compiles_all_the_same(monkeypatch):
    real = rasteriser._numba.njit

    def njit(**options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function 'double': no locator available for file 'x.py'")
        return real(**options)

    monkeypatch.setattr(rasteriser._numba, "njit", njit)
    assert rasteriser.compiled(_double)(21) == 42


def _double(x):
    return 2 * x
