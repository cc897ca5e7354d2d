"""The closure reward against a loop over frames, its slope, its masks, and what it refuses."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.errors import UserError
from s2f_rl.metrics import closure_threshold
from s2f_rl.metrics.closure import spoken_frames
from s2f_rl.rewards import ClosureReward, Reward
from tests.tiny import make_tiny_corpus

PHONES = [("sil", 0.0, 0.1), ("aa", 0.1, 0.3), ("p", 0.3, 0.4), ("m", 0.4, 0.45), ("s", 0.45, 0.6), ("_:", 0.6, 0.7)]
CLOSED, OPEN = "closure_score", "open_score"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = make_tiny_corpus(tmp_path_factory.mktemp("closure"), n_sentences=1, seconds=(0.7, 0.9))
    (root / "phones").mkdir()
    (root / "phones" / "S0_sentence01.json").write_text(json.dumps(PHONES))
    return FaceCorpus(root, split="all")


@pytest.fixture(scope="module")
def motion(corpus):
    """Lips that come together and part: [2, T, V*3] around the template of S0."""
    torch.manual_seed(0)
    vertices = corpus[0].template.repeat(2, 21, 1).unflatten(-1, (-1, 3))
    gap = torch.linspace(-0.006, 0.014, 21)
    vertices[:, :, corpus.regions["upper_lip"], 1] += torch.stack([gap, gap.flip(0)])[..., None]
    return vertices.flatten(-2)


def score(reward, corpus, vertices, utterances=(0, 0), **more):
    prepared = [reward.prepare(corpus[u]) for u in utterances]
    mask = torch.ones(vertices.shape[:2], dtype=torch.bool)
    return reward.score_motion(vertices, prepared, mask, **more)


def test_against_a_loop(corpus, motion):
    reward = ClosureReward(corpus, softness_mm=2.0, margin_mm=0.5, margin_s=0.04)
    found = score(reward, corpus, motion)
    u = corpus[0]
    upper, lower = (int(corpus.regions[name][0]) for name in ("upper_lip", "lower_lip"))
    c = closure_threshold(u.template, upper, lower, truth=u.vertices)
    seen = {CLOSED: set(), OPEN: set()}
    for lane in range(2):
        for t in range(motion.shape[1]):
            at = t / 30
            face = motion[lane, t].view(-1, 3)
            d = float((face[upper] - face[lower]).norm())
            wanted = {
                CLOSED: 0.3 - 1e-6 <= at < 0.45 - 1e-6,
                OPEN: 0.1 - 1e-6 <= at < 0.6 - 1e-6 and not 0.26 - 1e-6 <= at < 0.49 - 1e-6,
            }
            amiss = {CLOSED: max(d - c, 0.0) / 0.002, OPEN: max(c + 0.002 - d, 0.0) / 0.002}
            for name, (scores, mask) in found.items():
                assert bool(mask[lane, t]) == wanted[name], (name, t)
                expected = 1 / (1 + amiss[name] ** 2)
                assert float(scores[lane, t]) == pytest.approx(expected, abs=1e-5)
                if wanted[name]:
                    seen[name].add(round(expected, 2))
    assert all(len(values) > 3 and 0 <= min(values) < 0.5 for values in seen.values())


def test_half_the_score_and_a_slope_that_points_the_right_way(corpus):
    reward = ClosureReward(corpus)
    u = corpus[0]
    asked = reward.prepare(u)
    face = u.template.view(-1, 3).double().clone()
    upper, lower = (corpus.regions[name] for name in ("upper_lip", "lower_lip"))
    gaps = torch.tensor([asked.threshold_m - 0.0004, asked.threshold_m, asked.threshold_m + 0.001, 0.05]).double()
    gaps.requires_grad_()
    direction = torch.tensor([0.0, 1.0, 0.0]).double()
    frames = []
    for gap in gaps:
        frame = face.clone()
        frame[upper] = frame[lower] + gap * direction
        frames.append(frame.flatten())
    vertices = torch.stack(frames).unsqueeze(0)
    found = reward.score_motion(vertices, [asked], torch.ones(1, 4, dtype=torch.bool))
    assert found[CLOSED][0][0].tolist()[:3] == pytest.approx([1.0, 1.0, 0.5])
    assert found[OPEN][0][0].tolist()[1:] == pytest.approx([0.5, 1.0, 1.0])
    closing = torch.autograd.grad(found[CLOSED][0].sum(), gaps, retain_graph=True)[0]
    opening = torch.autograd.grad(found[OPEN][0].sum(), gaps)[0]
    assert closing[0] == 0 and (closing[2:] < 0).all()  # wide open there is a slope as well
    assert (opening[:2] > 0).all() and opening[3] == 0
    step = 1e-7  # against a difference, at the third gap
    x = (0.001 + step, 0.001 - step)
    expected = (1 / (1 + (x[0] / 0.001) ** 2) - 1 / (1 + (x[1] / 0.001) ** 2)) / (2 * step)
    assert float(closing[2]) == pytest.approx(expected, rel=1e-4)


def test_a_piece_is_scored_as_in_the_whole(corpus, motion):
    reward = ClosureReward(corpus)
    whole = score(reward, corpus, motion)
    piece = score(reward, corpus, motion[:, 7:12], first_frame=torch.tensor([7, 7]))
    for name in (CLOSED, OPEN):
        assert torch.equal(piece[name][0], whole[name][0][:, 7:12])
        assert torch.equal(piece[name][1], whole[name][1][:, 7:12])


def test_an_utterance_without_phones_has_no_score(corpus, motion):
    found = score(ClosureReward(corpus), corpus, motion, utterances=(0, 1))
    assert all(mask[0].any() and not mask[1].any() for _, mask in found.values())


def test_the_contract(corpus):
    reward = ClosureReward(corpus)
    assert isinstance(reward, Reward) and reward.look_back == 0 and reward.fps == 30
    assert reward.mesh_identity == corpus.mesh_identity and reward.differentiable
    others = [ClosureReward(corpus, softness_mm=2.0), ClosureReward(corpus, margin_s=0.1)]
    assert len({reward.content_hash(), *(other.content_hash() for other in others)}) == 3
    assert ClosureReward(corpus).content_hash() == reward.content_hash()


@pytest.mark.parametrize(
    "options", [{"softness_mm": 0.0}, {"margin_mm": float("nan")}, {"margin_s": -1.0}, {"margin_s": 10**400}]
)
def test_numbers_out_of_range(corpus, options):
    with pytest.raises(UserError, match=next(iter(options))):
        ClosureReward(corpus, **options)


def test_what_it_needs_of_a_corpus(corpus):
    class Silent(SimpleNamespace):
        def __len__(self):
            return 2

        def __getitem__(self, i):
            return SimpleNamespace(phones=None)

    known = {"regions": corpus.regions, "fps": 30.0, "mesh_identity": None, "root": "here"}
    with pytest.raises(UserError, match="here: no utterance has phone timings.*`s2f-rl align here`"):
        ClosureReward(Silent(**known))
    with pytest.raises(UserError, match="does not say which vertices are the upper_lip"):
        ClosureReward(Silent(**{**known, "regions": {}}))


def test_spoken_frames():
    found = spoken_frames([*PHONES, ("@", 0.7, 0.75), ("'p", 0.75, 0.8)], 24, 30.0)
    assert found.tolist() == [3 <= t < 18 or 21 <= t for t in range(24)]
