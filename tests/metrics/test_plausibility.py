"""True distance: nil for what the generator can make, and larger the worse a motion is, wherever the search starts."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from s2f_rl.data.synthetic import Hidden, generate
from s2f_rl.data.synthetic.coarticulation import gesture_table, speech_basis, speech_curves
from s2f_rl.data.synthetic.derivatives import Articulation
from s2f_rl.data.synthetic.face import regions
from s2f_rl.data.synthetic.speakers import make_speaker
from s2f_rl.errors import UserError
from s2f_rl.metrics import TakeMeter, true_distance
from s2f_rl.metrics._nearest import TakeSearch, _bounded_step
from s2f_rl.metrics._takes import HiddenSpace

NAMES = "sil b aa t uw m iy f ah p eh w sil".split()
LENGTHS = np.resize([0.12, 0.08, 0.15, 0.07, 0.16], len(NAMES))
ENDS = np.cumsum(LENGTHS)
PHONES = [(p, float(e - n), float(e)) for p, n, e in zip(NAMES, LENGTHS, ENDS, strict=True)]
N_FRAMES = int(ENDS[-1] * 60)
V = 320
LIPS = np.asarray(regions(V)["lips"])


@pytest.fixture(scope="module")
def speaker():
    return make_speaker(0, 0, V)


def _draw(seed, speaker, scale=1.0):
    style = speaker.style
    rng = np.random.default_rng(seed)
    return Hidden.sample(rng, len(PHONES), ENDS[-1], style.blink_hz, style.brow_hz, style.brow_height, scale)


def _motion(speaker, hidden):
    """30 fps vertices [T, V, 3]."""
    displacement = generate(PHONES, N_FRAMES, speaker, hidden)[::2]
    return speaker.template.astype(np.float64) + displacement.reshape(len(displacement), V, 3)


TWO_GESTURES = [("ay" if p == "aa" else p, start, end) for p, start, end in PHONES]


class TestDerivatives:
    def test_the_basis_adds_up_to_the_curves(self, speaker):
        grid, lags = np.arange(100) / 120, np.linspace(-0.02, 0.02, 8)
        share = np.random.default_rng(0).uniform(0.4, 1.5, len(PHONES))
        phone_of = [0, 1, 2, 2, *range(3, 13)]
        table = gesture_table(TWO_GESTURES, np.ones(len(PHONES)))
        curves = speech_basis(grid, table, speaker.style, lags) @ share[phone_of]
        np.testing.assert_allclose(curves, speech_curves(grid, TWO_GESTURES, speaker.style, share, lags), atol=1e-12)

    def test_curves_are_the_exact_ones_whatever_was_asked_before(self, speaker):
        articulation = Articulation(TWO_GESTURES, N_FRAMES, speaker, step=2)
        drawn = [replace(_draw(k, speaker), blinks=np.zeros((0, 3)), brows=np.zeros((0, 3))) for k in range(3)]
        moved = replace(drawn[2], lag_s=drawn[2].lag_s + [0.0, 1e-9])
        for hidden in (*drawn, drawn[0], drawn[2], moved):
            np.testing.assert_allclose(articulation.curves(hidden), articulation.exact(hidden), atol=1e-12)

    def test_against_finite_differences(self, speaker):
        articulation = Articulation(TWO_GESTURES, N_FRAMES, speaker, step=2)
        hidden = replace(_draw(3, speaker), blinks=np.zeros((0, 3)), brows=np.zeros((0, 3)))
        curves, found = articulation.with_derivatives(hidden)
        np.testing.assert_allclose(curves, articulation.exact(hidden), atol=1e-12)
        for field in fields(found):
            value = np.asarray(getattr(hidden, field.name), float)
            for k in range(value.size):
                ends = []
                for step in (-1e-5, 1e-5):
                    moved = value.reshape(-1).copy()
                    moved[k] += step
                    new = moved.reshape(value.shape) if value.shape else float(moved[0])
                    ends.append(articulation.exact(replace(hidden, **{field.name: new})))
                slope = (ends[1] - ends[0]) / 2e-5
                # by lag it is a finite difference, and the dominance has kinks
                atol = 0.6 if field.name == "lag_s" else 1e-7
                np.testing.assert_allclose(getattr(found, field.name)[..., k], slope, atol=atol)


def _slow_step(hessian, gradient, damping, low, high):
    """One coordinate after another: in general form, by numpy's solver."""
    largest = np.diag(hessian).max()
    damped = hessian + np.diag([damping * hessian[k, k] + 1e-7 * largest + 1e-12 for k in range(len(gradient))])
    held = {}
    while True:
        free = [k for k in range(len(gradient)) if k not in held]
        right = [-gradient[k] - sum(damped[k, j] * held[j] for j in held) for k in free]
        found = np.linalg.solve([[damped[k, j] for j in free] for k in free], right)
        outside = {k: min(max(v, low[k]), high[k]) for k, v in zip(free, found, strict=True)
                   if not low[k] <= v <= high[k]}  # fmt: skip
        if not outside:
            return np.array([held[k] if k in held else found[free.index(k)] for k in range(len(gradient))])
        held |= outside


@pytest.mark.parametrize("seed", range(4))
def test_bounded_step_against_a_slow_one(seed):
    rng = np.random.default_rng(seed)
    jacobian = rng.normal(size=(20, 9))
    hessian, gradient, high = jacobian.T @ jacobian, 30 * rng.normal(size=9), rng.uniform(0.2, 3, 9)
    step = _bounded_step(hessian, gradient, 1e-3, -high, high)
    assert 0 < (np.abs(step) == high).sum() < 9
    np.testing.assert_allclose(step, _slow_step(hessian, gradient, 1e-3, -high, high), atol=1e-12)


class TestSpace:
    def test_draws_lie_inside(self, speaker):
        """The limits are those of Hidden.sample: nearly every draw is inside, and none far outside."""
        articulation = Articulation(PHONES, N_FRAMES, speaker)
        for scale in (1.0, 0.5):
            space = HiddenSpace(articulation, scale)
            beyond = []
            for seed in range(40):
                hidden = _draw(seed, speaker, scale)
                low, high = (space.hidden(z) for z in (space.lower, space.upper))
                assert low.effort <= hidden.effort <= high.effort
                assert (hidden.undershoot >= low.undershoot - 0.12 * scale).all()
                assert (hidden.undershoot <= high.undershoot + 0.25 * scale).all()
                assert (np.abs(hidden.lag_s) <= high.lag_s + 1e-12).all()
                assert (np.abs(hidden.wander) <= high.wander * 1.6).all()
                z = np.zeros(space.size)
                z[space.undershoot] = (hidden.undershoot - 1 + 0.05 * scale) / (0.23 * scale)
                beyond.append(space.limits(z)[2].max())
            assert np.mean(np.array(beyond) > 0) < 0.2 and max(beyond) < 1

    def test_inside_keeps_every_limit(self, speaker):
        space = HiddenSpace(Articulation(PHONES, N_FRAMES, speaker))
        for seed in range(5):
            z = space.inside(np.random.default_rng(seed).normal(size=space.size) * 3)
            assert space.limits(z)[2].max() <= 1e-9
            assert (z >= space.lower).all() and (z <= space.upper).all()
        # all phones together at what one alone may reach: no draw does that
        everything = np.zeros(space.size)
        everything[space.undershoot] = 2.4
        assert space.limits(everything)[2].max() > 3


@pytest.fixture(scope="module")
def found(speaker):
    lips = TakeMeter(PHONES, speaker, LIPS)
    truth = _motion(speaker, _draw(0, speaker))
    rest, at = speaker.template, np.arange(len(truth))
    flat = truth.reshape(len(truth), -1)
    late = np.stack([np.interp(at - 3, at, flat[:, k]) for k in range(flat.shape[1])], 1)
    motions = {
        "truth": truth,
        "another take": _motion(speaker, _draw(7, speaker)),
        "smoothed": gaussian_filter1d(truth, 3, axis=0),
        "1.5 x": rest + 1.5 * (truth - rest),
        "late": late,
        "backwards": truth[::-1],
        "frozen": np.broadcast_to(rest, truth.shape),
    }
    return {name: lips.nearest(motion) for name, motion in motions.items()}


class TestDistance:
    def test_order(self, found):
        relative = {name: take.relative for name, take in found.items()}
        assert relative["truth"] < 0.02 and relative["another take"] < 0.02
        assert relative["smoothed"] > 0.1 and relative["1.5 x"] > 0.05
        assert relative["late"] > relative["smoothed"]
        assert relative["backwards"] > relative["late"] and relative["frozen"] > 0.4

    def test_golden(self, found):
        """What the search found before it was made faster."""
        for name, metres in (
            ("smoothed", 0.0011641078672774798),
            ("1.5 x", 0.001439374470730555),
            ("late", 0.002289213687647815),
            ("frozen", 0.001322373504367945),
        ):
            assert found[name].distance_m == pytest.approx(metres, rel=1e-6)

    def test_the_take_exists_and_is_that_far(self, found, speaker):
        take = found["frozen"]
        motion = _motion(speaker, take.hidden)[:, LIPS] - speaker.template[LIPS]
        assert take.distance_m == pytest.approx(math.sqrt((motion**2).sum(-1).mean()), rel=1e-6)
        take.hidden.check(len(PHONES))
        assert 0.7 <= take.hidden.effort <= 1.3 and (take.hidden.undershoot <= 1.6).all()

    def test_no_start_does_much_better(self, speaker):
        search = TakeSearch(PHONES, N_FRAMES, speaker, LIPS)
        motion = (1.5 * (_motion(speaker, _draw(2, speaker)) - speaker.template))[:, LIPS].reshape(-1, 3 * len(LIPS))
        rng = np.random.default_rng(0)
        starts = [search.space.inside(rng.normal(size=search.space.size)) for _ in range(5)]
        best = min(search.nearest(motion, [z]).distance_m for z in starts)
        assert search.nearest(motion).distance_m < 1.03 * best

    def test_whole_face_with_blinks_and_brows(self, speaker):
        hidden = replace(_draw(4, speaker), blinks=np.array([[0.31, 0.03, 1.0]]), brows=np.array([[0.5, 0.2, 0.7]]))
        meter = TakeMeter(PHONES, speaker)
        take = meter.nearest(_motion(speaker, hidden))
        assert take.relative < 0.03
        assert take.hidden.blinks[0, 0] == pytest.approx(0.31, abs=0.01)
        plain = meter.nearest(_motion(speaker, replace(hidden, blinks=np.zeros((0, 3)))))
        assert len(plain.hidden.blinks) == 0 and plain.relative < 0.03

    def test_batches_lengths_and_numbers_that_are_not_finite(self, speaker):
        truth = torch.tensor(_motion(speaker, _draw(0, speaker)))
        longer = torch.cat([truth, truth[-1:]])
        values = true_distance(torch.stack([longer, longer]).flatten(-2), PHONES, speaker, LIPS)
        assert values.shape == (2,) and float(values[0]) == float(values[1]) < 1e-4
        broken = truth.clone()
        broken[3] = math.nan
        assert math.isnan(true_distance(broken, PHONES, speaker, LIPS))
        assert float(true_distance(truth[:20], PHONES, speaker, LIPS)) < 1e-4

    def test_without_hidden_variation_only_one_motion_is_right(self, speaker):
        only = _motion(speaker, Hidden.none(len(PHONES)))
        assert float(true_distance(only, PHONES, speaker, LIPS, scale=0.0)) < 1e-9
        other = _motion(speaker, _draw(0, speaker))
        expected = math.sqrt(((other - only)[:, LIPS] ** 2).sum(-1).mean())
        assert float(true_distance(other, PHONES, speaker, LIPS, scale=0.0)) == pytest.approx(expected, rel=1e-6)

    def test_mistakes(self, speaker):
        truth = _motion(speaker, _draw(0, speaker))
        for kwargs, message in (
            ({"fps": 25}, "fps is 25"),
            ({"phones": [("xx", 0.0, 1.0)]}, "unknown phone"),
            ({"phones": []}, "phones are empty"),
            ({"vertices": truth[:, :300]}, "V=300"),
        ):
            with pytest.raises(UserError, match=message):
                true_distance(**{"vertices": truth, "phones": PHONES, "speaker": speaker, **kwargs})
