from __future__ import annotations

import numpy as np
import pytest

from s2f_rl.render.camera import Camera, face_camera, frame_camera


def test_projection_by_hand():
    camera = Camera(centre=(1.0, 2.0, 3.0), half_height=0.5, distance=2.0)
    points = np.array([[1, 2, 3], [1.5, 2, 3], [1, 2.5, 3], [1.25, 2, 4], [1, 2, 5.5]])
    np.testing.assert_allclose(
        camera.project(points, 100),
        [
            [50, 50, 1],  # looked at
            [100, 50, 1],  # +x is to the right, at the edge
            [50, 0, 1],  # +y is up
            [100, 50, 2],  # one metre nearer, half as deep: twice as large
            [50, 50, 0],  # behind the eye
        ],
    )


def test_yaw_shows_the_side_at_plus_x_and_pitch_the_top():
    assert Camera((0, 0, 0), 1, 5, yaw_degrees=90).rotation() @ [1, 0, 0] == pytest.approx([0, 0, 1])
    assert Camera((0, 0, 0), 1, 5, pitch_degrees=90).rotation() @ [0, 1, 0] == pytest.approx([0, 0, 1])
    assert np.linalg.det(Camera((0, 0, 0), 1, 5, 30, 20).rotation()) == pytest.approx(1)


@pytest.mark.parametrize("yaw, pitch", [(0, 0), (35, 0), (-60, 15)])
@pytest.mark.parametrize("scale, offset", [(1, 0), (1000, 5000), (1e-3, -7)])
def test_framing_shows_everything_and_wastes_little(motion, yaw, pitch, scale, offset):
    sequences = [motion * scale + offset, motion[:1] * 0.9 * scale + offset]
    camera = frame_camera(sequences, margin=0.06, yaw_degrees=yaw, pitch_degrees=pitch)
    where = np.concatenate([camera.project(s.reshape(-1, 3), 200)[:, :2] for s in sequences])
    assert 0 <= where.min() and where.max() <= 200
    assert np.abs(where - 100).max() == pytest.approx(100 / 1.06, rel=1e-6)


def test_a_single_point_is_framed_without_dividing_by_zero():
    camera = frame_camera([np.zeros((1, 1, 3))])
    assert camera.half_height > 0 and np.isfinite(camera.project(np.zeros((1, 3)), 10)).all()


def test_face_camera_is_close_where_the_face_is_known(motion):
    front = np.flatnonzero(motion[0, :, 1] > 0.05)
    whole, close = face_camera([motion], {}), face_camera([motion], {"face": front})
    assert whole == frame_camera([motion])
    assert close == frame_camera([motion[:, front]], 0.2) and close.half_height < whole.half_height
