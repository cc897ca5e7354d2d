"""Takes of one utterance: drawn as by the environment, measured against loops and against a corpus without secrets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.data.synthetic import Hidden, load_take, synthesize
from s2f_rl.errors import UserError
from s2f_rl.evaluation.takes import against_true_takes, best_of, draw_takes, spanned, variety
from s2f_rl.evaluation.truth import TrueDistances
from s2f_rl.models import FaceFormer, MelAudioEncoder
from s2f_rl.models.policy import MotionPolicy
from tests.codes import CodeActor

LIPS = torch.tensor([1, 4])


def gaussian(**options: object) -> MotionPolicy:
    torch.manual_seed(0)
    actor = FaceFormer(MelAudioEncoder(width=8), 6, n_subjects=2, feature_dim=16)
    torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=1e-3)
    return actor.eval().make_policy(noise_vertices=LIPS, noise_mm=0.3, **options)


def codes() -> MotionPolicy:
    torch.manual_seed(0)
    return CodeActor(MelAudioEncoder(width=8), 6, 2).eval().make_policy()


def speech(frames: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(frames, 1, 8, generator=generator), torch.tensor([0.0, 1.0])


@pytest.mark.parametrize(
    "make", [gaussian, lambda: gaussian(exploration="vertex"), codes], ids=["z", "vertex", "codes"]
)
def test_takes_follow_from_their_seed(make):
    policy = make()
    before = torch.get_rng_state()
    takes = draw_takes(policy, *speech(), 3, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert takes.shape == (3, 9, 18) and torch.equal(takes, draw_takes(policy, *speech(), 3, seed=5))
    assert not torch.equal(takes, draw_takes(policy, *speech(), 3, seed=6))
    assert min(float((takes[a] - takes[b]).abs().max()) for a, b in ((0, 1), (0, 2), (1, 2))) > 1e-5
    with pytest.raises(UserError, match="takes=0"):
        draw_takes(policy, *speech(), 0, seed=5)


def test_at_once_as_by_steps(monkeypatch):
    policy = gaussian(correlation=0.5)
    at_once = draw_takes(policy, *speech(), 3, seed=5)
    monkeypatch.setattr(type(policy.core), "rolls_out", property(lambda core: False))
    torch.testing.assert_close(draw_takes(policy, *speech(), 3, seed=5), at_once, rtol=0, atol=1e-8)


def test_the_noise_is_as_large_as_asked():
    """Frame 0 has no past: its takes differ by the noise alone, sqrt(2) noise_mm between two of them (RMS)."""
    first = draw_takes(gaussian(), *speech(1), 400, seed=0)[:, 0].unflatten(-1, (-1, 3))[:, LIPS]
    apart = (first[0::2] - first[1::2]).square().sum(-1).mean().sqrt()
    assert 1e3 * float(apart) == pytest.approx(0.3 * 2**0.5, rel=0.1)


def test_best_of():
    found = best_of([0.1, 0.9, 0.5], [3.0, 2.0, 4.0])
    assert found["judge_picked"] == 2.0 and found["judge_best"] == 4.0 and found["judge_mean"] == 3.0
    assert found["reward_picked"] == 0.9 and found["reward_mean"] == pytest.approx(0.5)
    assert found["agreement"] == pytest.approx(np.corrcoef([0.1, 0.9, 0.5], [3.0, 2.0, 4.0])[0, 1])


def test_what_is_spanned():
    """Of two true directions of variances 9 and 1, takes that differ along the first alone, however little, have .9."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(18, 3, generator=generator, dtype=torch.float64)).Q.T
    lips = torch.arange(6)
    true = torch.stack([3 * basis[0], -3 * basis[0], basis[1], -basis[1]])[:, None]
    takes = (basis[2] + torch.tensor([[1e-3], [-1e-3], [0.0]]) * basis[0])[:, None]
    assert spanned(true, takes, lips) == pytest.approx(0.9, abs=1e-5)
    assert spanned(true, true, lips) == pytest.approx(1, abs=1e-5)
    assert spanned(true, (torch.tensor([[1.0], [2.0]]) * basis[2])[:, None], lips) == pytest.approx(0, abs=1e-5)


def test_against_true_takes():
    """Numbers that can be told by heart: constant motions at places on a line."""

    def at(*places: float) -> torch.Tensor:
        return torch.tensor(places)[:, None, None].expand(-1, 4, 18) / 3**0.5  # distance 1 for a place further by 1

    true = at(0, 1, 2, 3, 4, 5, 10)
    found = against_true_takes(at(0, 0.25, 5), at(7)[0], true, at(0, 1, 2), LIPS)
    assert found["nearest_take"] == pytest.approx((0 + 0.75 + 1.75 + 2 + 1 + 0 + 5) / 7, rel=1e-5)
    assert found["nearest_plain"] == pytest.approx((7 + 6 + 5 + 4 + 3 + 2 + 3) / 7, rel=1e-5)
    assert found["nearest_true"] == pytest.approx((0 + 0 + 0 + 1 + 2 + 3 + 8) / 7, rel=1e-5)
    assert found["reached"] == pytest.approx(2 / 3)
    assert found["coverage"] == 1 and found["spanned"] == pytest.approx(1)
    away = against_true_takes(at(50, 51), at(7)[0], true, at(0, 1), LIPS)
    assert away["coverage"] == away["density"] == 0 < away["coverage_true"]
    assert variety(at(0, 1, 3), LIPS)["diversity_lips"] == pytest.approx((1 + 2 + 3) / 3, rel=1e-5)


def test_true_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With the recording's own hidden variation a take is the recording; drawn ones are not."""
    corpus = FaceCorpus(synthesize(tmp_path / "c", 3, 1, vertices=300, workers=1, progress=False), split="validation")
    utterance, meter = corpus[0], TrueDistances(corpus)
    recorded = utterance.vertices - utterance.template
    n = len(recorded)  # a take ends with the motion of the generator, a recording with the speech's last whole frame
    takes = meter.takes(utterance, 2, seed=0)
    assert torch.equal(takes, meter.takes(utterance, 2, seed=0))
    assert (
        min(float((takes[:, :n] - recorded).abs().amax((1, 2)).min()), float((takes[0] - takes[1]).abs().max())) > 1e-4
    )
    hidden = load_take(corpus.root, utterance.name).hidden
    monkeypatch.setattr(Hidden, "sample", lambda *arguments: hidden)
    torch.testing.assert_close(meter.takes(utterance, 1, seed=0)[0, :n], recorded, rtol=0, atol=1e-7)
    of_another = meter.takes(utterance, 1, seed=0, speaker=corpus.subjects[0])[0, :n]
    assert float((of_another - recorded).abs().max()) > 1e-4
    with pytest.raises(UserError, match="speaker=nobody"):
        meter.takes(utterance, 1, seed=0, speaker="nobody")
