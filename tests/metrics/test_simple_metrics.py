"""Error, dynamics, intensity, amplitude, jitter, diversity: each against a loop over frames and vertices."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from s2f_rl import metrics
from s2f_rl.errors import UserError

T, V = 24, 7
REGION = [1, 4, 4, 6]


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    template = random.normal(size=(V, 3))
    truth = template + 0.01 * random.normal(size=(T, V, 3)).cumsum(0)
    return truth + 0.004 * random.normal(size=(T, V, 3)), truth, template


def length(x) -> float:
    return math.sqrt(sum(float(c) ** 2 for c in x))


def test_vertex_errors_against_a_loop(pair):
    prediction, truth, _ = pair
    lip = [max(length(prediction[t, v] - truth[t, v]) ** 2 for v in REGION) for t in range(T)]
    every = [max(length(prediction[t, v] - truth[t, v]) ** 2 for v in range(V)) for t in range(T)]
    assert float(metrics.lip_vertex_error(prediction, truth, REGION)) == pytest.approx(sum(lip) / T, rel=1e-12)
    assert float(metrics.max_vertex_error(prediction, truth)) == pytest.approx(sum(every) / T, rel=1e-12)
    assert float(metrics.max_vertex_error(truth, truth)) == 0


def test_vertex_errors_are_differentiable(pair):
    prediction, truth, _ = pair
    moved = torch.tensor(prediction, requires_grad=True)
    metrics.lip_vertex_error(moved, truth, REGION).backward()
    assert torch.isfinite(moved.grad).all() and moved.grad[:, 0].abs().max() == 0 < moved.grad[:, 1].abs().max()


def test_dynamics_against_a_loop_and_its_sign(pair):
    prediction, truth, template = pair

    def dynamics(x) -> float:
        spread = []
        for v in REGION:
            squares = [length(x[t, v] - template[v]) ** 2 for t in range(T)]
            mean = sum(squares) / T
            spread.append(math.sqrt(sum((s - mean) ** 2 for s in squares) / T))
        return sum(spread) / len(spread)

    value = metrics.upper_face_dynamics_deviation(prediction, truth, template, REGION)
    assert float(value) == pytest.approx(dynamics(truth) - dynamics(prediction), rel=1e-10)
    frozen = np.broadcast_to(template, truth.shape)
    assert float(metrics.upper_face_dynamics_deviation(frozen, truth, template, REGION)) == pytest.approx(
        dynamics(truth), rel=1e-10
    )
    assert float(metrics.upper_face_dynamics_deviation(truth, frozen, template, REGION)) < 0


def test_intensity_against_a_loop(pair):
    truth = pair[1]
    steps = [sum(length(truth[t + 1, v] - truth[t, v]) for v in REGION) / len(REGION) for t in range(T - 1)]
    expected = math.sqrt(sum(s * s for s in steps) / (T - 1))
    assert float(metrics.lip_intensity(truth, REGION)) == pytest.approx(expected, rel=1e-12)
    assert float(metrics.lip_intensity(truth, [1, 4, 6])) != pytest.approx(expected, rel=1e-3)  # repetition counts


def test_amplitude_ratio_against_a_loop_and_on_scaled_motion(pair):
    prediction, truth, template = pair

    def amplitude(x) -> float:
        total = 0.0
        for v in REGION:
            mean = [sum(x[t, v, c] for t in range(T)) / T for c in range(3)]
            total += sum(length(x[t, v] - mean) ** 2 for t in range(T))
        return math.sqrt(total / (T * len(REGION)))

    assert float(metrics.motion_amplitude(truth, REGION)) == pytest.approx(amplitude(truth), rel=1e-12)
    assert float(metrics.amplitude_ratio(prediction, truth, REGION)) == pytest.approx(
        amplitude(prediction) / amplitude(truth), rel=1e-12
    )
    half = template + 0.5 * (truth - template)
    assert float(metrics.amplitude_ratio(half, truth, REGION)) == pytest.approx(0.5, rel=1e-12)
    assert float(metrics.amplitude_ratio(truth + 0.1, truth, REGION)) == pytest.approx(1.0, rel=1e-9)


def test_jitter_ratio_against_a_loop(pair):
    prediction, truth, _ = pair

    def jerk(x, region) -> float:
        third = [
            length(x[t + 3, v] - 3 * x[t + 2, v] + 3 * x[t + 1, v] - x[t, v]) ** 2 for t in range(T - 3) for v in region
        ]
        return math.sqrt(sum(third) / len(third))

    assert float(metrics.rms_jerk(truth)) == pytest.approx(jerk(truth, range(V)), rel=1e-12)
    assert float(metrics.jitter_ratio(prediction, truth, REGION)) == pytest.approx(
        jerk(prediction, REGION) / jerk(truth, REGION), rel=1e-12
    )
    time = np.arange(T)[:, None, None]
    assert float(metrics.jitter_ratio(truth + 0.01 * time**2, truth)) == pytest.approx(1.0, rel=1e-9)  # no jerk added


def test_diversity_against_a_loop(pair):
    prediction, truth, template = pair
    samples = np.stack([prediction, truth, np.broadcast_to(template, truth.shape)])
    distances = [
        length(a[t, v] - b[t, v]) for a, b in itertools.combinations(samples, 2) for t in range(T) for v in range(V)
    ]
    assert float(metrics.diversity(samples)) == pytest.approx(sum(distances) / len(distances), rel=1e-12)
    assert float(metrics.diversity(samples.reshape(3, T, V * 3), REGION)) == pytest.approx(
        np.mean(
            [length(a[t, v] - b[t, v]) for a, b in itertools.combinations(samples, 2) for t in range(T) for v in REGION]
        )
    )
    assert float(metrics.diversity(np.stack([truth, truth]))) == 0
    with pytest.raises(UserError, match="at least two"):
        metrics.diversity(samples[:1])
    with pytest.raises(UserError, match="at least two"):
        metrics.diversity(truth)


FUNCTIONS = {
    "lip_vertex_error": lambda p, t, m: metrics.lip_vertex_error(p, t, REGION),
    "max_vertex_error": lambda p, t, m: metrics.max_vertex_error(p, t),
    "upper_face_dynamics_deviation": lambda p, t, m: metrics.upper_face_dynamics_deviation(p, t, m, REGION),
    "lip_intensity": lambda p, t, m: metrics.lip_intensity(p, REGION),
    "amplitude_ratio": lambda p, t, m: metrics.amplitude_ratio(p, t, REGION),
    "jitter_ratio": lambda p, t, m: metrics.jitter_ratio(p, t),
    "mean_temporal_misalignment": lambda p, t, m: metrics.mean_temporal_misalignment(p, t, upper_lip=1, lower_lip=4),
    "lag_ms": lambda p, t, m: metrics.lag_ms(p, t, upper_lip=1, lower_lip=4, fps=30),
}


@pytest.mark.parametrize("name", FUNCTIONS)
class TestForms:
    def test_flat_and_split_meshes_arrays_and_tensors_agree(self, pair, name):
        call = FUNCTIONS[name]
        expected = float(call(*pair))
        flat = [x.reshape(*x.shape[:-2], -1) for x in pair]
        assert call(*flat).dtype == torch.float64 and call(*flat).shape == ()
        assert float(call(*flat)) == expected
        assert float(call(flat[0], pair[1], flat[2])) == expected
        assert float(call(*[torch.tensor(x) for x in pair])) == expected
        assert float(call(*[torch.tensor(x) for x in flat])) == expected
        read_only = [np.array(x) for x in pair]
        for x in read_only:
            x.flags.writeable = False
        assert float(call(*read_only)) == expected

    def test_float32_is_accumulated_in_float64(self, pair, name):
        narrow = [x.astype(np.float32) for x in pair]
        assert float(FUNCTIONS[name](*narrow)) == float(FUNCTIONS[name](*[x.astype(np.float64) for x in narrow]))

    def test_batch(self, pair, name):
        prediction, truth, template = pair
        call = FUNCTIONS[name]
        values = call(np.stack([prediction, truth]), np.stack([truth, prediction]), np.stack([template, template]))
        assert values.shape == (2,)
        expected = [float(call(prediction, truth, template)), float(call(truth, prediction, template))]
        np.testing.assert_allclose(values, expected, rtol=1e-12, atol=0)

    def test_no_frames_is_nan(self, pair, name):
        assert math.isnan(FUNCTIONS[name](pair[0][:0], pair[1][:0], pair[2]))

    def test_mistakes_name_the_argument(self, pair, name):
        prediction, truth, template = pair
        call = FUNCTIONS[name]
        which = "vertices" if name == "lip_intensity" else "prediction"
        for wrong in (prediction[..., :2], prediction.ravel(), np.zeros((T, 0)), np.zeros((T, 0, 3))):
            with pytest.raises(UserError, match=f"^{which} has shape"):
                call(wrong, truth, template)
        with pytest.raises(UserError, match=f"^{which} has dtype"):
            call(prediction.astype(object), truth, template)
        if name != "lip_intensity":
            with pytest.raises(UserError, match=f"{T} frames and truth {T - 1}; cut both"):
                call(prediction, truth[:-1], template)
            with pytest.raises(UserError, match="7 vertices and truth 6"):
                call(prediction, truth[:, :-1], template)


@pytest.mark.parametrize(
    "call, n_frames",
    [
        (lambda x: metrics.lip_intensity(x, REGION), 1),
        (lambda x: metrics.amplitude_ratio(x, x, REGION), 1),
        (lambda x: metrics.jitter_ratio(x, x), 3),
    ],
)
def test_too_short_is_nan_and_one_frame_more_is_not(pair, call, n_frames):
    assert math.isnan(call(pair[1][:n_frames]))
    assert math.isfinite(call(pair[1][: n_frames + 1]))


def test_a_truth_that_does_not_move_gives_no_ratio(pair):
    still = np.broadcast_to(pair[2], pair[0].shape)
    assert math.isnan(metrics.amplitude_ratio(pair[0], still, REGION))
    assert math.isnan(metrics.jitter_ratio(pair[0], still))


class TestIndices:
    def test_a_boolean_mask_is_its_indices(self, pair):
        mask = np.zeros(V, bool)
        mask[[1, 4, 6]] = True
        by_mask = metrics.lip_vertex_error(pair[0], pair[1], mask)
        assert float(by_mask) == float(metrics.lip_vertex_error(pair[0], pair[1], torch.tensor([1, 4, 6])))
        assert metrics.vertex_mask_hash(mask) == metrics.vertex_mask_hash([6, 4, 1, 1])
        assert metrics.vertex_mask_hash([1, 4]) != metrics.vertex_mask_hash([1, 4, 6])

    @pytest.mark.parametrize(
        "wrong, message",
        [
            ([], "lip is empty"),
            ([7], "lip holds index 7; the meshes have 7"),
            ([-1, 2], "lip holds index -1"),
            ([0.5], "lip holds torch.float"),
            (np.zeros(3, bool), "lip is a mask of shape"),
            (["a"], "lip has dtype"),
        ],
    )
    def test_mistakes(self, pair, wrong, message):
        with pytest.raises(UserError, match=message):
            metrics.lip_vertex_error(pair[0], pair[1], wrong)

    def test_template_of_another_topology(self, pair):
        with pytest.raises(UserError, match="^template has shape"):
            metrics.upper_face_dynamics_deviation(pair[0], pair[1], pair[2][:-1], REGION)


def test_registry_is_complete():
    for name, metric in metrics.METRICS.items():
        assert getattr(metrics, name) is metric.function and metric.name == name
        assert metric.version >= 1 and metric.unit and metric.source
        assert metric.best in {"lower", "higher", "zero", "one", "truth"}
        assert metric.function.__doc__


@pytest.mark.parametrize("measure", ["lag_ms", "mean_temporal_misalignment", "speech_lip_correlation_within"])
def test_rounding_is_no_motion(measure):
    """A frozen face in float32 trembles by some nanometres, which would correlate with something."""
    rng = np.random.default_rng(0)
    still = np.tile(np.array([[0.0, 0.1, 0.05], [0.0, 0.09, 0.05]], np.float32), (60, 1, 1))
    still = np.nextafter(still, rng.choice([-1, 1], still.shape).astype(np.float32))
    moving = still.copy()
    moving[:, 1, 1] -= 0.004 * (1 + np.sin(np.arange(60) / 3).astype(np.float32))
    lips = {"upper_lip": 0, "lower_lip": 1}

    def value(prediction):
        if measure == "speech_lip_correlation_within":
            return metrics.speech_lip_correlation_within(
                prediction, rng.normal(size=32000), [1], fps=30, sample_rate=16000
            )
        more = {"fps": 30} if measure == "lag_ms" else {}
        return getattr(metrics, measure)(prediction, moving, **lips, **more)

    assert math.isnan(value(still)) and math.isfinite(value(moving))
