"""Several rewards in one transform: own masks, both modes, caps, weights, and rewards that can do less."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torchrl.envs import TransformedEnv, check_env_specs

from s2f_rl.envs import FrozenRewardTransform
from s2f_rl.errors import UserError
from s2f_rl.rewards import PerceptualReward, Reward, RewardModel
from s2f_rl.rewards.parts import RewardParts
from s2f_rl.training import RewardSignal
from s2f_rl.training.statistics import batch_statistics
from tests.envs.support import corpus_in, env_for, policy_for, replayed, reward_model_for


class Jerk(Reward):
    """Looks back by three frames; negative, on odd frames of every utterance only."""

    score_names = ("jerk_score",)
    look_back = 3

    def prepare(self, utterance):
        return torch.arange(1000) % 2 == 1

    def score_motion(self, vertices, prepared, frame_mask, stride=1, first_frame=None):
        jerk = vertices.diff(dim=1).diff(dim=1).diff(dim=1).square().sum(-1)
        score = torch.nn.functional.pad(-1e4 * jerk, (3, 0))
        starts = [0] * len(prepared) if first_frame is None else first_frame.tolist()
        mask = torch.stack([odd[i : i + vertices.shape[1]] for odd, i in zip(prepared, starts, strict=True)])
        return {"jerk_score": (score, mask)}


class Whole(Jerk):
    """Against the mean over the utterance: it needs frames to come."""

    score_names = ("whole_score",)
    look_back = None
    differentiable = False

    def score_motion(self, vertices, prepared, frame_mask, stride=1, first_frame=None):
        n = frame_mask.sum(-1).view(-1, 1, 1)
        mean = (vertices * frame_mask.unsqueeze(-1)).sum(1, keepdim=True) / n
        return {"whole_score": ((vertices - mean).square().sum(-1), frame_mask)}


class Open(Reward):
    """Looks at a frame by itself."""

    score_names = ("open_score",)
    look_back = 0

    def score_motion(self, vertices, prepared, frame_mask, stride=1, first_frame=None):
        return {"open_score": (vertices[..., 1] - vertices[..., 4], frame_mask)}


@pytest.fixture(scope="module")
def model(corpus):
    return reward_model_for(corpus)


@pytest.fixture(scope="module")
def batch(corpus):
    env, ids = env_for(corpus, 6), torch.arange(6).view(-1, 1)
    torch.manual_seed(5)
    policy = policy_for(corpus)
    with torch.no_grad():
        start = env.reset(TensorDict({"utterance": ids}, [6]))
        return env.rollout(env.horizon, policy, auto_reset=False, tensordict=start, break_when_any_done=False)


def jerk(corpus, batch, lane, t):
    u = corpus[int(batch["utterance"][lane, 0])].template
    a, b, c, d = (u + batch["action"][lane, t - k] for k in range(4))
    return -1e4 * float((a - 3 * b + 3 * c - d).square().sum())


@pytest.mark.parametrize("stride", [1, 2])
def test_against_a_loop(model, corpus, batch, stride):
    weights = {"lip_score": 0.7, "jerk_score": 0.5}
    parts = {"perceptual": model, "jerk": Jerk()}
    data = FrozenRewardTransform(parts, corpus, weights, scale=2.0, stride=stride)(batch.clone())
    alone = FrozenRewardTransform(model, corpus, stride=stride)(batch.clone())
    after = data["next"]
    for name in ("lip_score", "real_score"):
        assert torch.equal(after[name], alone["next", name])
        assert torch.equal(after[f"{name}_mask"], alone["next", "score_mask"])
    assert "lip_score_mask" not in alone["next"].keys()
    n_only = 0
    for lane in range(6):
        n = corpus.n_frames(lane)
        for t in range(batch.shape[1]):
            has = 3 <= t < n and t % 2 == 1 and (t - 3) % stride == 0
            lip = bool(alone["next", "score_mask"][lane, t])
            score = jerk(corpus, batch, lane, t) if has else 0.0
            assert bool(after["jerk_score_mask"][lane, t]) == has and bool(after["score_mask"][lane, t]) == (has or lip)
            assert float(after["jerk_score"][lane, t]) == pytest.approx(score, rel=1e-3, abs=1e-5)
            expected = 2.0 * (0.7 * float(after["lip_score"][lane, t]) + 0.5 * score)
            assert float(after["reward"][lane, t]) == pytest.approx(expected, rel=1e-3, abs=1e-5)
            n_only += has and not lip
    assert n_only > 0
    with torch.no_grad():
        found = batch_statistics(data, policy_for(corpus), corpus.regions["lips"], ("lip_score", "jerk_score"))
    assert found["lip_score"] == pytest.approx(float(after["lip_score"][after["lip_score_mask"]].mean()))
    assert found["jerk_score"] == pytest.approx(float(after["jerk_score"][after["jerk_score_mask"]].mean()))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("write_features", [False, True])
def test_in_the_environment(model, corpus, batch, stride, write_features):
    data = batch.clone()
    data["action"][0, 9, 5] = float("nan")
    options = {"stride": stride, "cap": "truth", "write_features": write_features}
    parts = {"jerk": Jerk(), "p": model}
    env = TransformedEnv(env_for(corpus, 6), FrozenRewardTransform(parts, corpus, **options))
    check_env_specs(env)
    stepped = replayed(env, data["action"], batch[:, 0].select("utterance"))
    deferred = FrozenRewardTransform(parts, corpus, **options)(data)
    names = ["lip_score", "real_score", "jerk_score", "reward", *(["mesh_feature"] if write_features else [])]
    for name in names:
        torch.testing.assert_close(stepped["next", name], deferred["next", name], atol=1e-4, rtol=1e-4)
    for name in ("score_mask", "lip_score_mask", "jerk_score_mask"):
        assert torch.equal(stepped["next", name], deferred["next", name])
    spoilt = deferred["next", "jerk_score_mask"][0, 9:13]
    assert not spoilt.any() and deferred["next", "jerk_score_mask"][0, 13]


def test_the_stride_leaves_out_clips_not_single_frames(model, corpus, batch):
    data = batch.clone()
    data["action"][0, 9, 5] = float("nan")
    parts, weights = {"open": Open(), "jerk": Jerk(), "p": model}, {"open_score": 0.5, "lip_score": 0.25}
    env = TransformedEnv(env_for(corpus, 6), FrozenRewardTransform(parts, corpus, weights, stride=3))
    stepped = replayed(env, data["action"], batch[:, 0].select("utterance"))["next"]
    deferred = FrozenRewardTransform(parts, corpus, weights, stride=3)(data.clone())["next"]
    strided = RewardParts(parts, corpus)
    for out in (stepped, deferred):
        for lane in range(6):
            rest, n = corpus[lane].template, corpus.n_frames(lane)
            for t in range(batch.shape[1]):
                there = t < n and (lane, t) != (0, 9)
                mesh = rest + data["action"][lane, t]
                score = float(mesh[1] - mesh[4]) if there else 0.0
                assert bool(out["open_score_mask"][lane, t]) == there
                assert not out["jerk_score_mask"][lane, t] or (t - 3) % 3 == 0
                assert not out["lip_score_mask"][lane, t] or (t - 4) % 3 == 0
                expected = 0.5 * score + 0.25 * float(out["lip_score"][lane, t])
                assert float(out["reward"][lane, t]) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    # validation asks for a share of all scores
    found, _ = strided.score([1], corpus[1].vertices[None], torch.ones(1, corpus.n_frames(1), dtype=torch.bool), 3)
    assert found["open_score"][1][0].nonzero().flatten().tolist() == list(range(0, corpus.n_frames(1), 3))


def test_frames_to_come(corpus, batch):
    transform = FrozenRewardTransform(Whole(), corpus)
    data = batch.clone()
    data["action"][1, 3] = float("inf")  # whatever depends on a frame that is not finite is not scored
    data["action"][~data["frame_mask"].squeeze(-1)] = float("nan")
    out = transform(data)["next"]
    assert not out["score_mask"][1].any() and torch.isfinite(out["whole_score"]).all()
    assert torch.equal(out["score_mask"][0], batch["frame_mask"][0])
    with pytest.raises(UserError, match="'whole': its scores need frames to come"):
        TransformedEnv(env_for(corpus, 6), FrozenRewardTransform(Whole(), corpus)).reward_spec  # noqa: B018
    displacement = batch["action"].clone().requires_grad_()
    with pytest.raises(UserError, match="'whole': it cannot be differentiated"):
        transform.score_displacements(displacement, torch.arange(6), batch["frame_mask"].sum((1, 2)))


def test_caps_are_over_the_own_mask(corpus, batch):
    data = FrozenRewardTransform(Jerk(), corpus, cap="truth")(batch.clone())
    transform = FrozenRewardTransform(Jerk(), corpus, cap="truth")
    for u in range(2):
        truth = corpus[u].vertices
        values = [
            -1e4 * float((truth[t] - 3 * truth[t - 1] + 3 * truth[t - 2] - truth[t - 3]).square().sum())
            for t in range(3, len(truth), 2)
        ]
        assert float(transform.caps([u])[0]) == pytest.approx(sum(values) / len(values), rel=1e-3)
    assert (data["next", "reward"] <= transform.caps(range(6))[:, None] * data["next", "score_mask"] + 1e-6).all()


def test_a_cap_counts_only_where_its_score_does(model, corpus, batch):
    """The caps of the jerk are below 0: on frames without that score they must not be taken for it."""
    parts, weights = {"p": model, "jerk": Jerk()}, {"lip_score": 1.0, "jerk_score": 0.5}
    transform = FrozenRewardTransform(parts, corpus, weights, cap="truth")
    out = transform(batch.clone())["next"]
    caps = transform.caps(range(6))
    assert (caps[:, 2] < 0).all()
    lip = torch.minimum(out["lip_score"], caps[:, None, :1])
    only = out["lip_score_mask"] & ~out["jerk_score_mask"]
    assert only.any()
    torch.testing.assert_close(out["reward"][only], lip[only])


def test_the_signal_standardises_each_score_over_its_own_frames(model, corpus, batch):
    transform = FrozenRewardTransform([model, Jerk()], corpus, {"lip_score": 2.0, "jerk_score": 0.5})
    data = transform(batch.clone())
    signal = RewardSignal(transform, "batch")(data)
    expected = torch.zeros_like(signal)
    for name, weight in (("lip_score", 2.0), ("jerk_score", 0.5)):
        score, mask = data["next", name], data["next", f"{name}_mask"]
        own = score[mask].double()
        expected += torch.where(mask, weight * (score - own.mean()) / own.std(correction=0), 0.0).float()
    torch.testing.assert_close(signal, expected, atol=1e-4, rtol=1e-4)


def test_names_and_what_is_no_part(model, corpus):
    two = RewardParts({"a": Jerk(), "b": Jerk(), "p": PerceptualReward(model)}, corpus)
    assert list(two.columns) == ["a_jerk_score", "b_jerk_score", "lip_score", "real_score"]
    assert RewardParts([model, Jerk()], corpus).columns["jerk_score"] == ("jerk", "jerk_score")
    for wrong, match in (
        ([Jerk(), Jerk()], "named by their class"),
        ({"x": object()}, "'x': object is no reward"),
        ({}, "no parts"),
    ):
        with pytest.raises(UserError, match=match):
            RewardParts(wrong, corpus)
    with pytest.raises(UserError, match="weights.lip_score: unknown score, use jerk_score"):
        FrozenRewardTransform(Jerk(), corpus, {"lip_score": 1.0})
    with pytest.raises(UserError, match="no part of the reward has features"):
        FrozenRewardTransform(Jerk(), corpus, write_features=True)


def test_another_mesh_or_rate_is_refused(corpus, tmp_path):
    other = Jerk()
    other.fps = 25.0
    with pytest.raises(UserError, match="reward part 'jerk' was trained at 25 fps"):
        FrozenRewardTransform(other, corpus)
    other = Jerk()
    other.mesh_identity = corpus_in(tmp_path, n_vertices=45).mesh_identity
    with pytest.raises(UserError, match="reward part 'jerk'"):
        FrozenRewardTransform(other, corpus)


def test_what_is_prepared_is_kept_within_bounds(corpus):
    parts = RewardParts(Jerk(), corpus, memory_limit_mb=2500 / 2**20)
    first = parts.prepared(0)
    assert parts.prepared(0) is first
    parts.prepared(1), parts.prepared(2)
    assert parts.prepared(0) is not first


def encoded_clips(corpus, reward_model, monkeypatch, **options):
    """A transform, and the number of mel clips that its audio half has encoded, which grows."""
    clips = []
    plain = RewardModel.encode_audio
    monkeypatch.setattr(RewardModel, "encode_audio", lambda self, mel: clips.append(len(mel)) or plain(self, mel))
    return FrozenRewardTransform(reward_model, corpus, **options), clips


@pytest.mark.parametrize("write_features", [False, True])
@pytest.mark.parametrize("stride", [2, 5])
def test_only_clips_that_the_stride_asks_for_are_heard(corpus, model, monkeypatch, stride, write_features):
    transform, clips = encoded_clips(corpus, model, monkeypatch, stride=stride, write_features=write_features)
    dense = FrozenRewardTransform(model, corpus, write_features=write_features)
    n_frames = torch.tensor([len(corpus[0].mel_clips) + 4, 9])
    displacement = 1e-3 * torch.randn(2, int(n_frames.max()), 3 * corpus.n_vertices)
    found = transform.score_displacements(displacement, torch.tensor([0, 1]), n_frames)
    assert sum(clips) == sum(-(-len(corpus[u].mel_clips) // stride) for u in (0, 1))
    expected = dense.score_displacements(displacement, torch.tensor([0, 1]), n_frames)
    frame = torch.arange(displacement.shape[1])
    wanted = expected["score_mask"] & ((frame - 4) % stride == 0)
    assert torch.equal(found["score_mask"], wanted) and bool(wanted.any())
    for name in set(expected) - {"score_mask", "reward"}:
        kept = wanted if expected[name].ndim == 2 else wanted.unsqueeze(-1)
        assert torch.allclose(found[name], torch.where(kept, expected[name], 0.0), atol=1e-6), name


def test_hashes():
    one, other = Jerk(), Jerk()
    other.strength = 2.0
    assert one.content_hash() == Jerk().content_hash() != other.content_hash() != Whole().content_hash()
    other.net = torch.zeros(3)
    with pytest.raises(UserError, match="give it a content_hash of its own, net is no number"):
        other.content_hash()


def _giving(**attributes):
    return type("Given", (Jerk,), attributes)()


class TestWhatAWriterMistakes:
    @pytest.mark.parametrize(
        "names",
        [
            (),
            "jerk_score",
            ("lve",),
            ("reward",),
            ("judge_lip_score",),
            ("My_score",),
            ("a b_score",),
            (3,),
            ("_score",),
        ],
    )
    def test_names_that_would_be_another_column(self, corpus, names):
        with pytest.raises(UserError, match="reward part 'mine': score_names=.*ending in _score"):
            RewardParts({"mine": _giving(score_names=names)}, corpus)

    def test_name_twice(self, corpus):
        with pytest.raises(UserError, match="two scores of the reward have the same name"):
            RewardParts({"mine": _giving(score_names=("a_score", "a_score"))}, corpus)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (lambda score, mask: {}, "Given: score_motion gives no pair of score and mask for 'jerk_score'"),
            (lambda score, mask: {"jerk_score": (score,)}, "no pair of score and mask"),
            (lambda score, mask: {"jerk_score": (score.mean(1), mask)}, r"score of jerk_score is \[1\]; give \[B, T\]"),
            (lambda score, mask: {"jerk_score": (score, mask[..., None])}, r"mask of jerk_score is \[1, 9, 1\]"),
            (lambda score, mask: {"jerk_score": (score, mask.float())}, "mask of jerk_score is torch.float32"),
        ],
    )
    def test_scores_of_another_shape(self, corpus, given, message):
        score, mask = torch.zeros(1, 9), torch.ones(1, 9, dtype=torch.bool)
        parts = RewardParts({"mine": _giving(score_motion=lambda *_: given(score, mask))}, corpus)
        with pytest.raises(UserError, match=message):
            parts.score([0], torch.zeros(1, 9, 3 * corpus.n_vertices), mask)
