"""The frozen reward: deferred against a slow loop, in the environment against deferred, masks, caps, gradients."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tensordict import TensorDict
from torchrl.envs import TransformedEnv, check_env_specs

from s2f_rl.envs import FrozenRewardTransform
from s2f_rl.errors import UserError
from tests.envs.support import corpus_in, env_for, policy_for, replayed, reward_model_for

SCORES = ("lip_score", "real_score")


class OtherMelClips:
    """A corpus whose utterance i has ``extra[i]`` mel clips more (or fewer) than T-4."""

    def __init__(self, corpus, extra):
        self.corpus, self.extra = corpus, extra
        self.n_vertices = corpus.n_vertices

    def __getitem__(self, i):
        u = self.corpus[i]
        n = max(self.corpus.n_frames(i) - 4 + self.extra[i], 0)
        mel = torch.cat([u.mel_clips, u.mel_clips.flip(0), u.mel_clips])[:n]
        assert len(mel) == n
        return SimpleNamespace(template=u.template, vertices=u.vertices, mel_clips=mel)


@pytest.fixture(scope="module")
def uneven(corpus):
    """As many mel clips as T-4, 5 fewer, 7 more, none at all, one, 2 fewer."""
    counts = [corpus.n_frames(i) - 4 for i in range(6)]
    return OtherMelClips(corpus, [0, -5, 7, -counts[3], 1 - counts[4], -2])


@pytest.fixture(scope="module")
def model(corpus):
    return reward_model_for(corpus)


@pytest.fixture(scope="module")
def batch(corpus):
    env, ids = env_for(corpus, 6), torch.arange(6).view(-1, 1)
    start = env.reset(TensorDict({"utterance": ids}, [6]))
    torch.manual_seed(5)
    policy = policy_for(corpus)
    with torch.no_grad():
        return env.rollout(env.horizon, policy, auto_reset=False, tensordict=start, break_when_any_done=False)


def slow(model, corpus, frames, batch, stride, weights, scale):
    """Lane by lane with RewardModel.score on template + displacement, summed up frame by frame."""
    out = {name: torch.zeros(batch.shape) for name in ("lip_score", "real_score", "score_mask", "reward")}
    for lane in range(len(batch)):
        u = batch["utterance"][lane, 0].item()
        vertices = corpus[u].template + batch["action"][lane, : frames[lane]]
        scores = model.score(vertices, corpus[u].mel_clips)
        for t in range(frames[lane]):
            if not scores["score_mask"][t] or (t - 4) % stride:
                continue
            out["score_mask"][lane, t] = 1
            for name in SCORES:
                out[name][lane, t] = scores[name][t]
                out["reward"][lane, t] += scale * weights[name] * scores[name][t]
    return out


def same(batch, expected, atol=1e-5):
    for name, value in expected.items():
        torch.testing.assert_close(batch["next", name].squeeze(-1).float(), value.float(), atol=atol, rtol=0)


@pytest.mark.parametrize("stride", [1, 2, 3])
class TestDeferred:
    @pytest.mark.parametrize("max_frames", [1, 80, 4096])  # lane by lane, in chunks, all at once
    def test_against_a_loop(self, model, corpus, uneven, batch, stride, max_frames):
        weights = {"lip_score": 0.7, "real_score": 1.3}
        transform = FrozenRewardTransform(model, uneven, weights, scale=2.0, stride=stride, max_frames=max_frames)
        data = batch.clone()
        assert transform(data) is data
        frames = [corpus.n_frames(i) for i in range(6)]
        expected = slow(model, uneven, frames, batch, stride, weights, 2.0)
        same(data, expected)
        n_scored = data["next", "score_mask"].sum((1, 2))
        assert n_scored[3] == 0 and n_scored[4] == 1 and n_scored[0] == len(range(0, frames[0] - 4, stride))
        assert data["next", "score_mask"].dtype == torch.bool
        scored = data["next", "reward"][data["next", "score_mask"]]
        assert scored.std() > 1e-3 and not data["next", "reward"].requires_grad

    def test_in_the_environment(self, model, uneven, corpus, batch, stride):
        transform = FrozenRewardTransform(model, uneven, stride=stride)
        env = TransformedEnv(env_for(corpus, 6), FrozenRewardTransform(model, uneven, stride=stride))
        # Twice, so that the windows begin with the frames of the rollout before.
        for ids in ([5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5]):
            start = env.reset(TensorDict({"utterance": torch.tensor(ids).view(-1, 1)}, [6]))
            torch.manual_seed(5)
            policy = policy_for(corpus)
            data = env.rollout(env.horizon, policy, auto_reset=False, tensordict=start, break_when_any_done=False)
        assert torch.equal(data["action"], batch["action"])
        deferred = transform(batch.clone())
        same(data, {name: deferred["next", name].squeeze(-1) for name in (*SCORES, "score_mask", "reward")})


class TestInTheEnvironment:
    def test_specs_and_lone_steps(self, model, corpus):
        env = TransformedEnv(env_for(corpus, 3), FrozenRewardTransform(model, corpus))
        check_env_specs(env)
        td = env.rand_step(env.reset())
        assert {"lip_score", "real_score", "score_mask", "reward"} <= set(td["next"].keys())
        assert "lip_score" not in td.keys()

    def test_a_lane_that_restarts_alone(self, model, corpus):
        """Environments that do not park their lanes: one lane begins another utterance while the other goes on."""
        transform = FrozenRewardTransform(model, corpus)
        frames = 0.01 * torch.randn(2, 14, 3 * corpus.n_vertices)
        # lane 0: utterance 1 throughout; lane 1: frames 0..5 of utterance 0, then frames 0..7 of utterance 3
        utterance = torch.tensor([[1] * 14, [0] * 6 + [3] * 8])
        index = torch.tensor([list(range(14)), [*range(6), *range(8)]])
        rewards, masks = [], []
        for t in range(14):
            if t == 0 or index[1, t] == 0:
                transform._reset(TensorDict({}, [2]), TensorDict({}, [2]))
            td = TensorDict(
                {
                    "action": frames[:, t],
                    "utterance": utterance[:, t, None],
                    "frame_index": index[:, t, None],
                    "frame_mask": torch.ones(2, 1, dtype=torch.bool),
                },
                [2],
            )
            out = transform._step(td, TensorDict({}, [2]))
            rewards.append(out["reward"])
            masks.append(out["score_mask"])
        rewards, masks = torch.cat(rewards, 1), torch.cat(masks, 1)
        for lane, u, piece in ((0, 1, slice(0, 14)), (1, 0, slice(0, 6)), (1, 3, slice(6, 14))):
            scores = model.score(corpus[u].template + frames[lane, piece], corpus[u].mel_clips)
            assert torch.equal(masks[lane, piece], scores["score_mask"])
            expected = scores["lip_score"] + scores["real_score"]
            torch.testing.assert_close(rewards[lane, piece], expected, atol=1e-5, rtol=0)


class TestScores:
    def test_audio_only_and_no_head(self, tmp_path):
        corpus = corpus_in(tmp_path, audio_only="all", n_subjects=2, n_sentences=1)
        model = reward_model_for(corpus, head=False)
        env = env_for(corpus, 2)
        data = env.rollout(env.horizon, policy_for(corpus), break_when_any_done=False)
        data = FrozenRewardTransform(model, corpus, {"lip_score": 1.0}, cap="truth")(data)
        assert ("next", "real_score") not in data.keys(True)
        assert torch.equal(data["next", "reward"], data["next", "lip_score"])
        for u in range(2):
            lane = data["utterance"][:, 0, 0].tolist().index(u)
            frames = corpus.n_frames(u)
            expected = model.score(corpus[u].template + data["action"][lane, :frames], corpus[u].mel_clips)
            torch.testing.assert_close(
                data["next", "lip_score"][lane, :frames, 0], expected["lip_score"], atol=1e-5, rtol=0
            )

    def test_cap_at_the_truth(self, model, corpus, batch):
        weights = {"lip_score": 1.0, "real_score": 2.0}
        data = FrozenRewardTransform(model, corpus, weights, scale=0.5, cap="truth")(batch.clone())
        n_capped = 0
        for lane in range(6):
            truth = model.score(corpus[lane].vertices, corpus[lane].mel_clips)
            cap = {name: truth[name][truth["score_mask"]].mean().item() for name in SCORES}
            for t in range(batch.shape[1]):
                frame = data[lane, t]["next"]
                expected = 0.0
                if frame["score_mask"]:
                    expected = 0.5 * sum(weights[k] * min(frame[k].item(), cap[k]) for k in SCORES)
                    n_capped += frame["lip_score"].item() > cap["lip_score"]
                assert frame["reward"].item() == pytest.approx(expected, abs=1e-5)
        assert 0 < n_capped < data["next", "score_mask"].sum()

    def test_a_frame_that_is_not_finite_spoils_its_own_clips_only(self, model, corpus, batch):
        data = batch.clone()
        data["action"][0, 9, 5] = float("nan")
        data["action"][1, 7] = float("inf")
        transform = FrozenRewardTransform(model, corpus)
        data, clean = transform(data), transform(batch.clone())
        mask = clean["next", "score_mask"].clone()
        mask[0, 9:14] = False
        mask[1, 7:12] = False
        env = TransformedEnv(env_for(corpus, 6), FrozenRewardTransform(model, corpus))
        start = env.reset(batch[:, 0].select("utterance"))
        actions = iter(data["action"].unbind(1))
        stepped = env.rollout(
            env.horizon,
            lambda td: td.set("action", next(actions)),
            auto_reset=False,
            tensordict=start,
            break_when_any_done=False,
        )
        for result in (data, stepped):
            assert torch.equal(result["next", "score_mask"], mask)
            for name in (*SCORES, "reward"):
                expected = torch.where(mask, clean["next", name], 0)
                torch.testing.assert_close(result["next", name], expected, atol=1e-5, rtol=0)

    def test_whatever_the_padding_holds(self, model, corpus, batch):
        data = batch.clone()
        data["action"][~data["frame_mask"].squeeze(-1)] = float("nan")
        transform = FrozenRewardTransform(model, corpus)
        data, clean = transform(data), transform(batch.clone())
        assert torch.equal(data["next", "reward"], clean["next", "reward"])

    def test_leading_dimensions(self, model, corpus, batch):
        transform = FrozenRewardTransform(model, corpus)
        nested, flat = transform(batch.clone().view(2, 3, -1)), transform(batch.clone())
        assert torch.equal(nested["next", "reward"].flatten(0, 1), flat["next", "reward"])

    def test_cache_folder(self, model, corpus, batch, tmp_path):
        first = FrozenRewardTransform(model, corpus, cache_folder=tmp_path)(batch.clone())
        again = FrozenRewardTransform(model, corpus, cache_folder=tmp_path)
        assert torch.equal(again(batch.clone())["next", "reward"], first["next", "reward"])
        audio = again.parts.perceptual.audio
        assert audio.from_disk == 6 and audio.computed == 0


class TestFeatures:
    """Features of the scored clips, for the original project's critic."""

    def test_against_single_clips(self, model, corpus, uneven, batch):
        options = {"stride": 2, "cap": "truth", "write_features": True}
        data = batch.clone()
        data["action"][0, 9, 5] = float("nan")
        data["action"][~data["frame_mask"].squeeze(-1)] = float("nan")
        plain = FrozenRewardTransform(model, uneven, stride=2, cap="truth")(data.clone())
        written = FrozenRewardTransform(model, uneven, **options)(data.clone())
        assert torch.equal(written["next", "score_mask"], plain["next", "score_mask"])
        for name in (*SCORES, "reward"):
            torch.testing.assert_close(written["next", name], plain["next", name], atol=1e-5, rtol=0)
        for lane in range(6):
            u = uneven[lane]
            for t in range(batch.shape[1]):
                mesh = written["next", "mesh_feature"][lane, t]
                audio = written["next", "audio_feature"][lane, t]
                if not plain["next", "score_mask"][lane, t]:
                    assert (mesh == 0).all() and (audio == 0).all()
                    continue
                clip = (u.template + batch["action"][lane, t - 4 : t + 1]).unsqueeze(0)
                expected = model.backbone(clip, u.mel_clips[t - 4].view(1, 1, 20, 128))
                torch.testing.assert_close(mesh, expected[0][0], atol=1e-5, rtol=0)
                torch.testing.assert_close(audio, expected[1][0], atol=1e-5, rtol=0)

        env = TransformedEnv(env_for(corpus, 6), FrozenRewardTransform(model, uneven, **options))
        check_env_specs(env)
        stepped = replayed(env, data["action"], batch[:, 0].select("utterance"))
        for name in ("reward", "mesh_feature", "audio_feature"):
            torch.testing.assert_close(stepped["next", name], written["next", name], atol=1e-5, rtol=0)


class TestGradient:
    def test_against_finite_differences(self, corpus, batch):
        model = reward_model_for(corpus).double()
        transform = FrozenRewardTransform(model, corpus, {"lip_score": 1.0, "real_score": 0.5}, stride=2, max_frames=1)
        lanes, utterance, frames = batch[:2], torch.tensor([0, 1]), torch.tensor([corpus.n_frames(i) for i in (0, 1)])
        displacement = lanes["action"].double().requires_grad_()
        transform.score_displacements(displacement, utterance, frames)["reward"].sum().backward()
        gradient = displacement.grad
        direction = torch.randn_like(gradient)
        step = 1e-6
        moved = [lanes["action"].double() + sign * step * direction for sign in (1, -1)]
        totals = [transform.score_displacements(x, utterance, frames)["reward"] for x in moved]
        expected = (totals[0] - totals[1]).sum().item() / (2 * step)
        assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-4)
        assert abs(expected) > 1e-3
        assert all(p.grad is None for p in model.parameters())

    @pytest.mark.parametrize("write_features", [False, True])
    def test_padding_and_bad_frames_get_none(self, model, corpus, batch, write_features):
        transform = FrozenRewardTransform(model, corpus, write_features=write_features)
        displacement = batch["action"].clone()
        displacement[~batch["frame_mask"].squeeze(-1)] = float("nan")
        displacement[0, 6] = float("nan")
        displacement.requires_grad_()
        frames = batch["frame_mask"].sum((1, 2))
        out = transform.score_displacements(displacement, batch["utterance"][:, 0, 0], frames)
        out["reward"].sum().backward()
        assert torch.isfinite(displacement.grad).all()
        assert (displacement.grad[~batch["frame_mask"].squeeze(-1)] == 0).all()
        assert (displacement.grad[0, 6] == 0).all() and (displacement.grad[0, 12] != 0).any()


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"weights": {"lip": 1.0}}, "reward.weights.lip: unknown score"),
            ({"weights": {"lip_score": float("nan")}}, "finite"),
            ({"stride": 0}, "reward.stride=0"),
            ({"cap": "lies"}, "reward.cap='lies'"),
        ],
    )
    def test_options(self, model, corpus, options, message):
        with pytest.raises(UserError, match=message):
            FrozenRewardTransform(model, corpus, **options)

    def test_a_score_that_the_model_does_not_have(self, corpus):
        model = reward_model_for(corpus, head=False)
        for options in ({}, {"weights": {"real_score": 1.0}}):
            with pytest.raises(UserError, match="real_score: this reward model has no head"):
                FrozenRewardTransform(model, corpus, **options)

    def test_another_topology(self, model, tmp_path):
        other = corpus_in(tmp_path, n_vertices=30, n_subjects=2, n_sentences=1)
        with pytest.raises(UserError, match="different meshes: 40 vertices and 30"):
            FrozenRewardTransform(model, other)

    def test_rows_that_do_not_begin_at_frame_0(self, model, corpus, batch):
        transform = FrozenRewardTransform(model, corpus)
        with pytest.raises(ValueError, match="begin at frame 0"):
            transform(batch[:, 3:].clone())
        with pytest.raises(ValueError, match="whole utterances"):
            transform(batch[:, 0].clone())
