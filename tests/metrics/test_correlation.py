from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from s2f_rl.errors import UserError
from s2f_rl.metrics import lip_intensity, speech_intensity, speech_lip_correlation, speech_lip_correlation_within


class TestOverASet:
    def test_against_the_formula(self):
        rng = np.random.default_rng(0)
        who = [k % 3 for k in range(20)] + ["alone"]
        speech = rng.normal(size=21) + np.array([10 * hash(w) % 7 for w in who])
        lips = 0.3 * speech + rng.normal(size=21)
        z = []
        for values in (speech, lips):
            own = np.full(21, np.nan)
            for w in range(3):
                at = [k for k in range(21) if who[k] == w]
                own[at] = (values[at] - np.mean(values[at])) / np.sqrt(np.var(values[at]) * len(at) / (len(at) - 1))
            z.append(own[:20])
        expected = (z[0] * z[1]).sum() / math.sqrt((z[0] ** 2).sum() * (z[1] ** 2).sum())
        assert speech_lip_correlation(speech, lips, who) == pytest.approx(expected, abs=1e-12)

    def test_identities_do_not_count(self):
        """Loud people with lively faces are no correlation; within each, louder is livelier or not."""
        speech, lips = [1.0, 2.0, 3.0, 11.0, 12.0, 13.0], [3.0, 2.0, 1.0, 33.0, 32.0, 31.0]
        assert np.corrcoef(speech, lips)[0, 1] > 0.9
        assert speech_lip_correlation(speech, lips, list("aaabbb")) == pytest.approx(-1)
        assert speech_lip_correlation([100 * s for s in speech], lips, list("aaabbb")) == pytest.approx(-1)

    def test_nothing_to_correlate(self):
        assert math.isnan(speech_lip_correlation([1.0, 2.0], [1.0, 2.0], ["a", "a"]))
        assert math.isnan(speech_lip_correlation([1.0] * 4, [1.0, 2.0, 3.0, 4.0], ["a"] * 4))
        left_out = speech_lip_correlation([1.0, 2.0, 3.0, math.nan], [2.0, 4.0, 6.0, 0.0], ["a"] * 4)
        assert left_out == pytest.approx(1)
        with pytest.raises(UserError, match="2, 1 and 1"):
            speech_lip_correlation([1.0, 2.0], [1.0], ["a"])


class TestWithinASequence:
    def test_lips_that_follow_the_loudness(self):
        rng = np.random.default_rng(1)
        loud = rng.uniform(0.1, 1, 12)
        sound = np.concatenate([level * np.resize([1.0, -1.0], 800) for level in loud])
        path = np.concatenate([[0.0], np.cumsum(loud)])
        vertices = np.zeros((13, 4, 3))
        vertices[:, 1:3, 0] = 1e-3 * path[:, None]
        kwargs = {"fps": 20.0, "sample_rate": 16000.0}
        assert float(speech_lip_correlation_within(vertices, sound, [1, 2], **kwargs)) == pytest.approx(1)
        other = rng.uniform(0.1, 1, 12)
        vertices[1:, 1:3, 0] = 1e-3 * np.cumsum(other)[:, None]
        expected = np.corrcoef(loud, other)[0, 1]
        both = torch.tensor(np.stack([vertices, 5 * vertices]))
        found = speech_lip_correlation_within(both, sound, [1, 2], **kwargs)
        np.testing.assert_allclose(found, [expected] * 2, atol=1e-12)
        assert math.isnan(speech_lip_correlation_within(vertices, sound, [0], **kwargs))  # lips that do not move
        assert math.isnan(speech_lip_correlation_within(vertices, sound[:1700], [1], **kwargs))
        with pytest.raises(UserError, match="fps 0"):
            speech_lip_correlation_within(vertices, sound, [1], fps=0, sample_rate=16000)


def test_speech_intensity_is_the_recordings_rms():
    assert float(speech_intensity(np.array([3.0, -4.0]))) == pytest.approx(math.sqrt(12.5))
    assert math.isnan(speech_intensity(np.zeros(0)))
    still = np.zeros((5, 4, 3))
    assert float(lip_intensity(still, [1])) == 0
