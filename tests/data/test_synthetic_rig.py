"""The articulator rig: what each articulator does, and lips that close without passing through each other."""

from __future__ import annotations

import numpy as np
import pytest

from s2f_rl.data.synthetic.features import REST_GAP_MM
from s2f_rl.data.synthetic.rig import ARTICULATORS, HINGE, JAW_RADIANS, A, Rig
from s2f_rl.data.synthetic.speakers import make_speaker


@pytest.fixture(scope="module")
def rigs() -> list[Rig]:
    return [make_speaker(i, 0, 400).rig for i in range(6)]


def pose(rig: Rig, closure: float = 0.0, **articulators: float) -> np.ndarray:
    """Vertices [V, 3] in mm of one pose."""
    curves = np.zeros((1, len(ARTICULATORS)))
    for name, value in articulators.items():
        curves[0, A[name]] = value
    return rig.face.template_mm + 1000 * rig.displace(curves, np.array([closure])).reshape(-1, 3)


def opening(rig: Rig, v: np.ndarray) -> float:
    return float(np.linalg.norm(v[rig.upper_lip] - v[rig.lower_lip]))


def width(rig: Rig, v: np.ndarray) -> float:
    contact = v[rig.face.topology.lips[-1]]
    return float(np.ptp(contact[:, 0]))


class TestArticulators:
    def test_rest_is_exactly_rest(self, rigs: list[Rig]) -> None:
        for rig in rigs:
            assert np.abs(pose(rig) - rig.face.template_mm).max() < 1e-9

    def test_jaw_opens_the_mouth(self, rigs: list[Rig]) -> None:
        for rig in rigs:
            small, large = opening(rig, pose(rig, jaw=0.4)), opening(rig, pose(rig, jaw=0.9))
            assert small > 4.0 and large > 11.0
            assert pose(rig, jaw=0.9)[rig.face.topology.teeth[0]] == pytest.approx(
                rig.face.template_mm[rig.face.topology.teeth[0]]
            )

    def test_lower_teeth_turn_rigidly_about_the_hinge(self, rigs: list[Rig]) -> None:
        rig, angle = rigs[0], 0.7 * JAW_RADIANS
        teeth = rig.face.topology.teeth[1]
        turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
        expected = (rig.face.template_mm[teeth] - HINGE) @ turn.T + HINGE
        assert pose(rig, jaw=0.7)[teeth] == pytest.approx(expected, abs=1e-9)

    def test_rounding_narrows_and_spreading_widens(self, rigs: list[Rig]) -> None:
        for rig in rigs:
            rest = width(rig, rig.face.template_mm)
            assert width(rig, pose(rig, round=1)) == pytest.approx(0.68 * rest, rel=0.02)
            assert rest + 7.0 < width(rig, pose(rig, spread=1)) < rest + 14.0

    def test_protrusion_moves_the_lips_forward(self, rigs: list[Rig]) -> None:
        for rig in rigs:
            moved = pose(rig, protrude=1) - rig.face.template_mm
            middle = moved[[rig.upper_lip, rig.lower_lip], 2]
            assert middle == pytest.approx([6.5, 6.5], abs=0.3)
            assert np.abs(moved[rig.face.topology.eye_rings]).max() == 0

    def test_tuck_takes_the_lower_lip_behind_the_upper(self, rigs: list[Rig]) -> None:
        for rig in rigs:
            v = pose(rig, tuck=1, upper_raise=0.4, jaw=0.1)
            assert v[rig.upper_lip, 2] - v[rig.lower_lip, 2] > 4.0
            assert v[rig.upper_lip, 1] - v[rig.lower_lip, 1] < 4.0

    def test_blink_closes_the_lids_and_keeps_them_on_the_eyeball(self, rigs: list[Rig]) -> None:
        for rig in rigs:
            top = rig.face.topology
            n = top.layout.lid_quarter
            for side in (0, 1):
                edge = top.lids[side, -2]
                upper, lower = edge[1 : 2 * n], edge[: 2 * n : -1]
                rest, closed = rig.face.template_mm, pose(rig, blink=1)
                assert (rest[upper, 1] - rest[lower, 1]).max() > 6.0
                gap = closed[upper, 1] - closed[lower, 1]
                assert gap.max() < 0.6 and gap.min() >= 0.0
                half = pose(rig, blink=0.5)
                pole = top.eye_pole[side]
                assert half[upper[len(upper) // 2], 2] > rest[pole, 2] - 1.0

    def test_brow_and_head(self, rigs: list[Rig]) -> None:
        rig = rigs[0]
        brows = rig.face.topology.brows
        assert 4.0 < (pose(rig, brow=1) - rig.face.template_mm)[brows, 1].mean() < 6.5
        turned = pose(rig, turn=1)
        spread = np.linalg.norm(turned[:, None] - turned[None], axis=-1)
        before = np.linalg.norm(rig.face.template_mm[:, None] - rig.face.template_mm[None], axis=-1)
        assert np.abs(spread - before).max() < 0.1  # nearly rigid

    def test_asymmetry_favours_one_side(self) -> None:
        speaker = make_speaker(0, 0, 400)
        from s2f_rl.data.synthetic.rig import build_rig

        rig = build_rig(speaker.face, asymmetry=0.2)
        q = rig.face.topology.layout.lip_quarter
        corners = rig.face.topology.lips[-1][[0, 2 * q]]
        moved = (pose(rig, spread=1) - rig.face.template_mm)[corners, 0]
        assert moved[0] / -moved[1] == pytest.approx(1.2 / 0.8, rel=0.02)


class TestContact:
    @pytest.mark.parametrize("jaw", [0.0, 0.1, 0.3, 0.6])
    def test_closure_closes_at_or_just_under_rest(self, rigs: list[Rig], jaw: float) -> None:
        for rig in rigs:
            v = pose(rig, closure=1.0, jaw=jaw, spread=0.2, lower_depress=0.2, press=0.4)
            rest = opening(rig, rig.face.template_mm)
            assert 0.0 < opening(rig, v) <= rest
            gap = v[rig.columns[0], 1] - v[rig.columns[1], 1]
            assert (gap > 0).all() and (gap < rig.rest_gap).all()

    def test_lips_never_pass_through_each_other(self, rigs: list[Rig]) -> None:
        rng = np.random.default_rng(3)
        for rig in rigs:
            curves = rng.normal(0, 0.6, (400, len(ARTICULATORS)))
            curves[:, A["jaw"]] = np.abs(curves[:, A["jaw"]])
            closure = rng.uniform(0, 1, 400)
            d = 1000 * rig.displace(curves, closure).reshape(400, -1, 3)
            v = rig.face.template_mm + d
            gap = v[:, rig.columns[0], 1] - v[:, rig.columns[1], 1]
            assert gap.min() > 0

    def test_without_contact_the_gap_is_what_was_asked(self, rigs: list[Rig]) -> None:
        rig = rigs[0]
        curves = np.zeros((1, len(ARTICULATORS)))
        curves[0, A["jaw"]] = 0.5
        middle = rig.columns.shape[1] // 2
        fields = rig.fields.reshape(len(rig.fields), -1, 3)
        n = len(ARTICULATORS)
        angle = 0.5 * JAW_RADIANS
        by_hand = REST_GAP_MM + sum(
            weight * (fields[k, rig.upper_lip, 1] - fields[k, rig.lower_lip, 1])
            for k, weight in ((A["jaw"], np.sin(angle)), (n, 1 - np.cos(angle)))
        )
        v = rig.face.template_mm + 1000 * rig.displace(curves, np.zeros(1)).reshape(-1, 3)
        gap = v[rig.columns[0][middle], 1] - v[rig.columns[1][middle], 1]
        assert gap == pytest.approx(by_hand, abs=0.02)

    def test_leading_dimensions(self, rigs: list[Rig]) -> None:
        rng = np.random.default_rng(4)
        curves, closure = rng.uniform(0, 0.5, (2, 3, 5, len(ARTICULATORS))), rng.uniform(0, 1, (2, 3, 5))
        together = rigs[0].displace(curves, closure)
        assert together.shape == (2, 3, 5, 1200)
        assert together[1, 2] == pytest.approx(rigs[0].displace(curves[1, 2], closure[1, 2]), abs=1e-12)
