from __future__ import annotations

import math

import numpy as np
import pytest

from s2f_rl.errors import UserError
from s2f_rl.metrics import (
    bilabial_frames,
    closure_rate,
    closure_threshold,
    false_closure_rate,
    is_bilabial,
    lip_distance,
    rest_lip_distance,
)

LIPS = {"upper_lip": [0], "lower_lip": [1]}


def mouth(opening_mm) -> np.ndarray:
    vertices = np.zeros((len(opening_mm), 2, 3))
    vertices[:, 1, 1] = -np.asarray(opening_mm) / 1000
    return vertices


def test_which_phones_are_bilabial():
    assert all(map(is_bilabial, ["p", "b", "m", "P", "M", "B", "p_h", "mː", "'m", "ˈb"]))
    assert not any(map(is_bilabial, ["f", "v", "w", "n", "a", "u", "", "SIL", "_:"]))


def test_frames_of_a_phone_begin_with_its_start_and_exclude_its_end():
    # 25 frames a second: frame t is at 0.04 t s.
    assert bilabial_frames(
        [("m", 0.08, 0.16), ("a", 0.16, 0.28), ("p", 0.281, 0.33)], 10, 25
    ).nonzero().ravel().tolist() == [2, 3, 8]
    assert bilabial_frames([("b", 0.033333, 0.1)], 5, 30).nonzero().ravel().tolist() == [1, 2]
    with pytest.raises(UserError, match="phones holds"):
        bilabial_frames([("m", "early", 1)], 5, 30)
    with pytest.raises(UserError, match="phones holds"):
        bilabial_frames([("m", 1)], 5, 30)
    with pytest.raises(UserError, match="fps is 0"):
        bilabial_frames([], 5, 0)


def test_lip_distance_takes_the_mean_point_of_several():
    vertices = np.zeros((1, 4, 3))
    vertices[0, :, 0] = [1, -1, 3, -3]
    vertices[0, :, 1] = [2, 2, -1, -1]
    assert float(lip_distance(vertices, [0, 1], [2, 3])[0]) == 3.0
    assert float(lip_distance(vertices, 0, 2)[0]) == pytest.approx(math.hypot(2, 3))
    assert float(rest_lip_distance(vertices[0], [0, 1], [2, 3])) == 3.0
    assert float(rest_lip_distance(vertices[0].ravel(), [0, 1], [2, 3])) == 3.0


def test_rates_by_hand():
    threshold = closure_threshold(mouth([2.0])[0], ratio=1.0, margin_m=0.0005, **LIPS)
    assert threshold == pytest.approx(0.0025)
    phones = [("a", 0.0, 0.3), ("m", 0.3, 0.7), ("a", 0.7, 1.0)]  # at 10 fps: /m/ is frames 3 to 6
    truth = mouth([9, 8, 2.6, 2.4, 2.0, 2.3, 3.0, 8, 2.0, 9])  # of these, 3 4 5 are closed
    prediction = mouth([2, 8, 2.0, 2.6, 2.4, 2.0, 2.0, 2, 2.0, 9])  # closed at 0 2 4 5 6 7 8
    arguments = {"fps": 10, "threshold_m": threshold, **LIPS}
    assert float(closure_rate(prediction, truth, phones, **arguments)) == pytest.approx(2 / 3)
    # Open in the truth outside /m/: frames 0 1 2 7 9; of these the prediction closes 0 2 7.
    assert float(false_closure_rate(prediction, truth, phones, **arguments)) == pytest.approx(3 / 5)
    assert float(closure_rate(truth, truth, phones, **arguments)) == 1
    assert float(false_closure_rate(truth, truth, phones, **arguments)) == 0
    never_opens = mouth([2.0] * 10)
    assert float(closure_rate(never_opens, truth, phones, **arguments)) == 1
    assert float(false_closure_rate(never_opens, truth, phones, **arguments)) == 1
    batch = closure_rate(np.stack([prediction, truth]), np.stack([truth, truth]), phones, **arguments)
    np.testing.assert_allclose(batch, [2 / 3, 1])


def test_nothing_to_measure_is_nan():
    opened, arguments = mouth([9.0] * 6), {"fps": 10, "threshold_m": 0.002, **LIPS}
    assert math.isnan(closure_rate(opened, opened, [("m", 0, 1)], **arguments))
    assert math.isnan(closure_rate(mouth([1.0] * 6), mouth([1.0] * 6), [("a", 0, 1)], **arguments))
    assert math.isnan(false_closure_rate(opened, mouth([1.0] * 6), [], **arguments))
    with pytest.raises(UserError, match="threshold_m is nan"):
        closure_rate(opened, opened, [], fps=10, threshold_m=math.nan, **LIPS)


class TestAFaceThatNeverMoves:
    """It is measured by its lip distance: closed throughout or open throughout, whatever the template's lips do."""

    PHONES = (("a", 0.0, 0.3), ("m", 0.3, 0.6), ("a", 0.6, 1.0))
    TRUTH = (9, 8, 6, 0.9, 0.6, 0.8, 6, 8, 9, 9)

    def rates(self, frozen_mm, rest_mm):
        truth = mouth(self.TRUTH)
        threshold = closure_threshold(mouth([rest_mm])[0], truth=truth, **LIPS)
        arguments = (mouth([frozen_mm] * 10), truth, self.PHONES)
        kwargs = {"fps": 10, "threshold_m": threshold, **LIPS}
        return float(closure_rate(*arguments, **kwargs)), float(false_closure_rate(*arguments, **kwargs))

    @pytest.mark.parametrize(
        ("frozen_mm", "rest_mm", "rates"),
        [
            (0.6, 0.6, (1.0, 1.0)),  # lips together, as at rest
            (1.05, 0.6, (1.0, 1.0)),
            (1.15, 0.6, (0.0, 0.0)),
            (5.0, 0.6, (0.0, 0.0)),
            (5.0, 5.0, (0.0, 0.0)),  # parted at rest: at rest it does not close
            (0.6, 5.0, (1.0, 1.0)),
        ],
    )
    def test_rates(self, frozen_mm, rest_mm, rates):
        assert self.rates(frozen_mm, rest_mm) == rates

    def test_lips_that_press_are_no_parted_template(self):
        for rest_mm, nearest_mm, expected_mm in ((2.5, 0.6, 3.0), (4.0, 1.9, 4.5), (4.0, 0.9, 1.4), (2.0, 0.0, 2.5)):
            truth = mouth([9.0, nearest_mm, 9.0])
            found = closure_threshold(mouth([rest_mm])[0], truth=truth, **LIPS)
            assert found == pytest.approx(expected_mm / 1000)


def test_vertices_that_are_not_finite_are_not_open():
    truth, broken = mouth([0.5] * 6), mouth([0.5] * 6)
    broken[2, 1, 1] = math.nan
    arguments = {"fps": 10, "threshold_m": 0.001, **LIPS}
    for first, second in ((broken, truth), (truth, broken)):
        assert math.isnan(closure_rate(first, second, [("m", 0, 1)], **arguments))
        assert math.isnan(false_closure_rate(first, second, [], **arguments))
