"""Agreement with the reference values in tests/golden (its pairs, its paths, its matches)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from s2f_rl import metrics
from s2f_rl.metrics.misalignment import matched_extrema
from s2f_rl.metrics.warping import dynamic_time_warping

GOLDEN = Path(__file__).parents[1] / "golden"
PAIRS = ("pair0", "pair1", "pair2")


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "metrics.npz", allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


@pytest.fixture(scope="module")
def lips(golden) -> dict[str, int]:
    return {"upper_lip": int(golden["upper_lip_idx"]), "lower_lip": int(golden["lower_lip_idx"])}


@pytest.mark.parametrize("form", ["array", "flat array", "tensor", "flat tensor"])
@pytest.mark.parametrize("pair", PAIRS)
def test_errors_dynamics_and_intensity(golden, pair, form):
    prediction, truth, template = (golden[f"{pair}/{key}"] for key in ("pred", "gt", "template"))
    if "flat" in form:
        prediction, truth, template = (x.reshape(*x.shape[:-2], -1) for x in (prediction, truth, template))
    if "tensor" in form:
        prediction, truth, template = (torch.tensor(x) for x in (prediction, truth, template))
    close = {"rtol": 1e-12, "atol": 0}  # computed in float64 on both sides
    lve = metrics.lip_vertex_error_per_frame(prediction, truth, golden["lip_idx"])
    np.testing.assert_allclose(lve, golden[f"{pair}/lve_per_frame"], **close)
    mve = metrics.max_vertex_error_per_frame(prediction, truth)
    np.testing.assert_allclose(mve, golden[f"{pair}/mve_per_frame"], **close)
    for value, key in (
        (metrics.lip_vertex_error(prediction, truth, golden["lip_idx"]), "lve"),
        (metrics.max_vertex_error(prediction, truth), "mve"),
        (metrics.upper_face_dynamics_deviation(prediction, truth, template, golden["upper_idx"]), "fdd"),
    ):
        np.testing.assert_allclose(float(value), golden[f"{pair}/{key}"], **close)
    for vertices, key in ((truth, "gt"), (prediction, "pred")):
        value = float(metrics.lip_intensity(vertices, golden["intensity_idx"]))
        assert value == pytest.approx(float(golden[f"{pair}/lip_intensity_{key}"]), rel=1e-6)  # stored from float32


@pytest.mark.parametrize("pair", PAIRS)
def test_misalignment_and_its_matches(golden, lips, pair):
    prediction, truth = golden[f"{pair}/pred"], golden[f"{pair}/gt"]
    stored = {"rtol": 1e-6, "atol": 0}  # the golden data are float32
    curves = [metrics.lip_distance(each, **lips).numpy() for each in (truth, prediction)]
    for curve, key in zip(curves, ("gt", "pred"), strict=True):
        np.testing.assert_allclose(curve, golden[f"{pair}/lip_distance_{key}"], **stored)
    pairs = matched_extrema(*curves, sigma=float(golden["sigma"]))
    np.testing.assert_array_equal(pairs, golden[f"{pair}/mtm_pairs"])
    np.testing.assert_array_equal(np.abs(pairs[:, 0] - pairs[:, 1]), golden[f"{pair}/mtm_delta"])
    slopes = [np.diff(golden[f"{pair}/lip_smooth_{key}"].astype(np.float64), prepend=0.0) for key in ("gt", "pred")]
    for slope in slopes:
        slope[0] = 0.0
    path, cost = dynamic_time_warping(*slopes)
    np.testing.assert_array_equal(path, golden[f"{pair}/mtm_path"])
    assert cost == pytest.approx(float(golden[f"{pair}/mtm_cost"]), rel=1e-5)
    assert float(metrics.mean_temporal_misalignment(prediction, truth, **lips)) == float(golden[f"{pair}/mtm"])


def test_without_extrema_the_misalignment_is_nan(golden, lips):
    prediction, truth = golden["noextrema/pred"], golden["noextrema/gt"]
    assert math.isnan(metrics.mean_temporal_misalignment(prediction, truth, **lips))


def test_averages_over_the_sequences(golden, lips):
    per_frame = torch.cat(
        [metrics.lip_vertex_error_per_frame(golden[f"{p}/pred"], golden[f"{p}/gt"], golden["lip_idx"]) for p in PAIRS]
    )
    assert float(per_frame.mean()) == pytest.approx(float(golden["all/lve_pooled_frames"]), rel=1e-12)
    values = [float(metrics.mean_temporal_misalignment(golden[f"{p}/pred"], golden[f"{p}/gt"], **lips)) for p in PAIRS]
    assert np.mean(values) == pytest.approx(float(golden["all/mtm"]), rel=1e-12)
