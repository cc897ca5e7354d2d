"""The environment: specs, whole utterances per row, idle lanes, chosen utterances, styles, state of the draws."""

from __future__ import annotations

import pickle

import pytest
import torch
from tensordict import TensorDict
from torchrl.envs import RewardSum, SerialEnv, StepCounter, TransformedEnv, check_env_specs

from s2f_rl.envs import SpeechToFaceEnv
from s2f_rl.errors import UserError
from s2f_rl.models.audio_cache import CachedAudio
from tests.envs.support import WIDTH, audio_encoder, corpus_in, env_for


def chosen(ids):
    return TensorDict({"utterance": torch.tensor(ids).view(-1, 1)}, [len(ids)])


def rollout(env, **options):
    return env.rollout(env.horizon, break_when_any_done=False, **options)


class TestTorchRL:
    @pytest.mark.parametrize("n_lanes", [1, 2, 3, 5])
    @pytest.mark.parametrize("max_frames", [None, 7])
    def test_specs(self, corpus, n_lanes, max_frames):
        env = env_for(corpus, n_lanes, max_frames=max_frames)  # max_frames makes equal lengths
        check_env_specs(env)
        check_env_specs(TransformedEnv(env, StepCounter()))
        assert rollout(env).shape == (n_lanes, 7 if max_frames else env.horizon)

    def test_specs_after_a_rollout_and_in_a_batch_of_environments(self, corpus):
        env = env_for(corpus, 2)
        rollout(env)
        check_env_specs(env)
        serial = SerialEnv(2, lambda: env_for(corpus, 2))
        data = serial.rollout(30, break_when_any_done=False)
        assert data.shape == (2, 2, 30)
        assert (data["next", "done"].sum(2) <= 1).all()

    def test_biwi_has_two_features_per_frame(self, tmp_path):
        corpus = corpus_in(tmp_path, topology="biwi", n_subjects=2, n_sentences=1)
        env = env_for(corpus, 2)
        check_env_specs(env)
        assert env.observation_spec["audio"].shape == (2, 2, WIDTH)

    def test_pickles_and_moves(self, corpus):
        env = env_for(corpus, 2, seed=3)
        copy = pickle.loads(pickle.dumps(env))
        assert (rollout(env)["utterance"] == rollout(copy)["utterance"]).all()
        assert env.to("cpu") is env

    def test_pickles_and_moves_on_the_way(self, corpus):
        """A rollout under way goes on in a copy, and the copy's file is not the table once for every row."""
        env = env_for(corpus, 2)
        td = env.reset(chosen([0, 1]))
        action = torch.zeros(2, 3 * corpus.n_vertices)
        td = env.step_mdp(env.step(td.set("action", action)))
        fresh = len(pickle.dumps(env_for(corpus, 2)))
        table = 4 * 2 * WIDTH * max(corpus.n_frames(0), corpus.n_frames(1))
        written = pickle.dumps(env)
        assert len(written) < fresh + 20 * table
        copy = pickle.loads(written).to("cpu")
        assert all((env.step(td.clone())["next"] == copy.step(td.clone())["next"]).all() for _ in range(5))

    def test_step_before_reset(self, corpus):
        env = env_for(corpus, 1)
        with pytest.raises(RuntimeError, match="before the first reset"):
            env.step(TensorDict({"action": torch.zeros(1, 3 * corpus.n_vertices)}, [1]))


class TestWholeUtterances:
    def test_rows_against_a_loop(self, corpus):
        """Every observation recomputed from corpus and encoder, frame by frame."""
        env, features = env_for(corpus, 3), CachedAudio(audio_encoder(), corpus)
        data = rollout(env, auto_reset=False, tensordict=env.reset(chosen([4, 0, 2])))
        lengths = [corpus.n_frames(i) for i in (4, 0, 2)]
        assert len(set(lengths)) == 3 and env.horizon == max(corpus.n_frames(i) for i in range(len(corpus)))
        for lane, (u, length) in enumerate(zip((4, 0, 2), lengths, strict=True)):
            audio = features.get(u)
            for t in range(env.horizon):
                frame, valid = data[lane, t], t < length
                assert frame["frame_mask"].item() is valid
                assert frame["frame_index"].item() == min(t, length - 1)
                assert frame["utterance"].item() == u
                assert frame["next", "reward"].item() == 0
                assert frame["next", "done"].item() is (t == length - 1)
                assert frame["next", "terminated"].item() is (t == length - 1)
                assert not frame["next", "truncated"].item()
                assert frame["next", "frame_mask"].item() is (t + 1 < length)
                assert frame["next", "frame_index"].item() == min(t + 1, length - 1)
                assert torch.equal(frame["audio"], audio[t] if valid else torch.zeros(1, WIDTH))

    def test_max_frames_keeps_the_beginning(self, corpus):
        whole, cut = env_for(corpus, 2), env_for(corpus, 2, max_frames=10)
        assert cut.horizon == 10 and cut.n_frames(0) == 10
        a, b = (rollout(env, auto_reset=False, tensordict=env.reset(chosen([1, 3]))) for env in (whole, cut))
        assert torch.equal(a["audio"][:, :10], b["audio"])
        assert b["next", "done"][:, -1].all() and not b["next", "done"][:, :-1].any()

    def test_audio_only_corpus(self, tmp_path):
        corpus = corpus_in(tmp_path, audio_only="all")
        data = rollout(env_for(corpus, 2))
        assert data["frame_mask"].sum((1, 2)).tolist() == [corpus.n_frames(u) for u in data["utterance"][:, 0, 0]]

    def test_shares_cached_features(self, corpus):
        class Counting:
            width, calls = WIDTH, 0

            def get(self, i):
                self.calls += 1
                return torch.full((corpus.n_frames(i), 1, WIDTH), float(i))

        source = Counting()
        env = SpeechToFaceEnv(corpus, source, batch_size=4, group_size=4)
        u = env.reset()["utterance"][0].item()
        assert source.calls == 1  # once for the whole group
        assert (env.reset(chosen([u] * 4))["audio"] == u).all()

    def test_observations_are_nobodys_memory(self, corpus):
        env = env_for(corpus, 2)
        td = env.reset(chosen([0, 1]))
        expected = td.clone()
        action = torch.zeros(2, 3 * corpus.n_vertices)
        for _ in range(3):
            td.zero_()
            td = env.step(td.set("action", action))["next"]
            assert torch.equal(td["style"], expected["style"]) and torch.equal(td["utterance"], expected["utterance"])

    def test_what_was_handed_out_stays(self, corpus):
        """Neither a partial reset nor the idle time at the end changes or shares what was observed before."""
        env = env_for(corpus, 2, max_frames=8)
        td = env.reset(chosen([0, 1]))
        action = torch.zeros(2, 3 * corpus.n_vertices)
        for _ in range(5):
            td = env.step(td.set("action", action))["next"]
        kept = td.clone()
        parked = env.reset(td.clone().set("_reset", torch.tensor([[True], [False]])))
        assert parked["frame_mask"].tolist() == [[False], [True]]
        assert (td == kept).all()
        for _ in range(5):
            td = env.step(td.set("action", action))["next"]
        assert env.all_idle
        kept = td.clone()
        for _ in range(3):
            td = env.step(td.zero_().set("action", action))["next"]
            for key in ("audio", "style", "utterance", "frame_mask", "frame_index"):
                assert torch.equal(td[key], kept[key])


class TestIdleLanes:
    def test_full_reset_starts_new_utterances(self, corpus):
        env = env_for(corpus, 2)
        rollout(env)
        assert env.all_idle
        td = env.reset()
        assert td["frame_mask"].all() and not td["done"].any() and not env.all_idle

    def test_partial_reset_parks_a_running_lane(self, corpus):
        env = env_for(corpus, 2)
        td = env.reset(chosen([0, 1]))
        action = torch.zeros(2, 3 * corpus.n_vertices)
        for _ in range(5):
            td = env.step_mdp(env.step(td.set("action", action)))
        td = env.reset(td.set("_reset", torch.tensor([[True], [False]])))
        assert td["frame_mask"].tolist() == [[False], [True]]
        assert td["frame_index"].tolist() == [[4], [5]]
        assert (td["audio"][0] == 0).all() and (td["audio"][1] != 0).any()
        n_done = torch.zeros(2, 1)
        while not env.all_idle:
            td, following = env.step_and_maybe_reset(td.set("action", action))
            n_done += td["next", "done"]
            td = following
        assert n_done.tolist() == [[0], [1]]

    def test_stays_idle_beyond_the_horizon(self, corpus):
        env = env_for(corpus, 1)
        data = env.rollout(env.horizon + 9, break_when_any_done=False)
        assert data["next", "done"].sum() == 1
        assert not data["frame_mask"][:, env.horizon :].any()


class TestDraws:
    def test_one_epoch_covers_the_corpus(self, corpus):
        env = env_for(corpus, 3)
        drawn = torch.cat([env.reset()["utterance"], env.reset()["utterance"]]).flatten()
        assert sorted(drawn.tolist()) == list(range(6))

    def test_groups_share_utterance_and_style(self, corpus):
        env = env_for(corpus, 6, group_size=3, style="random")
        for _ in range(8):
            td = env.reset()
            for group in (slice(0, 3), slice(3, 6)):
                assert (td["utterance"][group] == td["utterance"][group][0]).all()
                assert (td["style"][group] == td["style"][group][0]).all()
        assert env.draw_state()["n_drawn"] == 16

    def test_state_continues(self, corpus):
        env, other = env_for(corpus, 2, style="random"), env_for(corpus, 2, style="random", seed=9)
        env.reset()
        state = env.draw_state()
        expected = [env.reset() for _ in range(5)]
        TransformedEnv(other, RewardSum()).load_draw_state(state)  # reached through transforms
        assert all((other.reset() == td).all() for td in expected)

    def test_set_seed(self, corpus):
        env = env_for(corpus, 2, seed=4)
        first = [env.reset()["utterance"].tolist() for _ in range(4)]
        assert env.set_seed(4) != 4  # TorchRL's next seed
        assert [env.reset()["utterance"].tolist() for _ in range(4)] == first

    def test_chosen_utterances(self, corpus):
        env = env_for(corpus, 2)
        assert env.reset(chosen([5, 5]))["utterance"].tolist() == [[5], [5]]
        assert TransformedEnv(env, StepCounter()).reset(chosen([3, 1]))["utterance"].tolist() == [[3], [1]]
        assert env.draw_state()["n_drawn"] == 0
        for ids in ([6, 0], [-1, 0]):
            with pytest.raises(UserError, match="the corpus has 6 utterances"):
                env.reset(chosen(ids))
        with pytest.raises(UserError, match="expected integers"):
            env.reset(TensorDict({"utterance": torch.zeros(2, 1)}, [2]))


class TestStyles:
    def test_own_is_the_corpus_style(self, corpus):
        env = env_for(corpus, 6)
        td = env.reset(chosen([0, 1, 2, 3, 4, 5]))
        for lane in range(4):
            assert torch.equal(td["style"][lane], corpus[lane].style)
        assert corpus[4].style is None and (td["style"][4:].sum(1) == 1).all()

    def test_index_and_given(self, corpus):
        env = env_for(corpus, 2, style=1)
        assert env.reset()["style"].tolist() == [[0, 1], [0, 1]]
        given = torch.tensor([[0.3, 0.7], [1.0, 0.0]])
        assert torch.equal(env.reset(chosen([0, 1]).set("style", given))["style"], given)
        with pytest.raises(UserError, match="style has shape"):
            env.reset(chosen([0, 1]).set("style", torch.ones(2, 3)))

    def test_all_in_turn(self, corpus):
        env = env_for(corpus, 2, style="all")
        assert env.reset(chosen([4, 4]))["style"].tolist() == [[1, 0], [0, 1]]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"style": "loud"}, "style='loud' is unknown"),
            ({"batch_size": 4, "group_size": 3}, "group_size=3 must divide"),
            ({"group_size": 0}, "group_size=0"),
            ({"batch_size": 0}, "at least one lane"),
            ({"max_frames": 0}, "max_frames=0"),
        ],
    )
    def test_mistakes(self, corpus, options, message):
        with pytest.raises(UserError, match=message):
            env_for(corpus, **{"batch_size": 2, **options})

    def test_encoder_of_another_topology(self, corpus):
        class Short:
            width = WIDTH

            def get(self, i):
                return torch.zeros(corpus.n_frames(i) - 1, 1, WIDTH)

        with pytest.raises(UserError, match="frames of audio features, expected"):
            SpeechToFaceEnv(corpus, Short(), batch_size=1).reset()
