"""The judge: against windows scored alone, slow loops and conv1d; its files, its list, its batches and losses."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from s2f_rl.data.mel import mel_clips
from s2f_rl.errors import UserError
from s2f_rl.evaluation.scorer import Scorer
from s2f_rl.rewards import AudioFeatureCache, RewardModel, ScoreHead, SpeechMeshTransformer
from s2f_rl.rewards.judge.judge import Judge, lag_profile, load_scorer
from s2f_rl.rewards.judge.layers import TimeBlock, live_bins, mel_frames
from s2f_rl.rewards.judge.register import _registered, register_judge

V, R, W = 12, 5, 8
WINDOW = 21


def make_judge(seed: int = 0) -> Judge:
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    matrix = torch.randn(R, V * 3, generator=generator)
    judge = Judge(matrix, 0.1 * torch.randn(V * 3, generator=generator), W, hidden=6)
    for module in (judge.head.lip, judge.head.real):
        module[-1].weight.data.mul_(5)  # scores that differ visibly
    return judge.frozen()


def inputs(n_frames: int, n_clips: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n_clips + 4, 4, 128, generator=generator)  # what every frame sounds like
    clips = [rows[i : i + 5].flatten(0, 1) for i in range(n_clips)]
    mel = torch.stack(clips) if clips else torch.zeros(0, 20, 128)
    return 0.3 * torch.randn(n_frames, V * 3, generator=generator), mel


@pytest.fixture(scope="module")
def judge() -> Judge:
    return make_judge()


class TestLayers:
    def test_block_is_a_convolution(self) -> None:
        torch.manual_seed(0)
        block, x = TimeBlock(W, 3, 2), torch.randn(2, 11, W)
        kernel = block.mix.weight.view(W, 3, W).transpose(1, 2)  # [out, in, taps]
        convolved = F.conv1d(block.norm(x).transpose(1, 2), kernel, block.mix.bias, dilation=2).transpose(1, 2)
        assert torch.allclose(block(x), x[:, 2:-2] + block.out(F.gelu(convolved)), atol=1e-6)

    def test_frames_of_clips(self) -> None:
        """The rows put together from clips are those of the sound itself, at the end too."""
        wave = torch.randn(640 * 12, generator=torch.Generator().manual_seed(0))
        long = mel_clips(wave)
        rows = mel_frames(long[:6])
        assert rows.shape == (10, 4, 128)
        for frame in range(8):
            assert torch.allclose(rows[frame], long[frame, :4], atol=1e-4), frame
        assert torch.equal(rows[9], long[5, 16:])

    def test_live_bins(self) -> None:
        clips = mel_clips(torch.randn(640 * 6, generator=torch.Generator().manual_seed(0)))
        constant = [k for k in range(128) if float(clips[..., k].amax() - clips[..., k].amin()) == 0]
        assert sorted(constant + live_bins().tolist()) == list(range(128)) and len(live_bins()) == 90

    def test_lag_profile_by_loops(self) -> None:
        generator = torch.Generator().manual_seed(0)
        mesh, audio = torch.randn(2, 1, 13, W, generator=generator)
        found = lag_profile(mesh, audio)
        assert found.shape == (1, 3, 4 * 13)
        for window in range(3):
            for k, lag in enumerate(range(-6, 7)):
                for group in range(4):
                    channels = slice(2 * group, 2 * group + 2)
                    cosines = [
                        F.cosine_similarity(mesh[0, p, channels], audio[0, p - lag, channels], dim=0)
                        for p in range(window, window + 11)
                        if window <= p - lag <= window + 10
                    ]
                    expected = float(torch.stack(cosines).mean())
                    assert float(found[0, window, 4 * k + group]) == pytest.approx(expected, abs=1e-5)


class TestAudio:
    def test_hears_nothing_of_what_comes_after(self, judge: Judge) -> None:
        _, mel = inputs(0, 30)
        whole = judge.encode_audio(mel)
        assert whole.shape == (30, 2 * W) == (30, judge.feature_width)
        for n in (0, 3, 6, 7, 16, 17, 25):
            assert torch.allclose(judge.encode_audio(mel[:n]), whole[:n], atol=1e-5), n
        assert (whole[:6, :W] == 0).all() and (whole[6:, :W] != 0).any(1).all()
        assert (whole[:16, W:] == 0).all() and (whole[16:, W:] != 0).any(1).all()

    def test_shapes(self, judge: Judge) -> None:
        _, mel = inputs(0, 8)
        assert torch.equal(judge.encode_audio(mel[:, None].numpy()), judge.encode_audio(mel))
        with pytest.raises(UserError, match="20, 128"):
            judge.encode_audio(torch.zeros(3, 20, 64))


class TestScore:
    def test_a_window_alone_scores_the_same(self, judge: Judge) -> None:
        vertices, mel = inputs(34, 29)  # one clip fewer than the frames allow
        found = judge.score(vertices, mel)
        assert found["score_mask"].tolist() == [20 <= t < 33 for t in range(34)]
        assert found["lip_score"][~found["score_mask"]].abs().sum() == 0
        for t in range(20, 33):
            alone = judge.score(vertices[t - 20 : t + 1], mel[t - 20 : t - 3])
            assert alone["score_mask"].tolist() == [False] * 20 + [True]
            for key in ("lip_score", "real_score"):
                assert float(alone[key][-1]) == pytest.approx(float(found[key][t]), abs=1e-5)
        assert found["lip_score"][20:33].std() > 1e-3 and 0 <= found["lip_score"].min() <= found["lip_score"].max() <= 1

    def test_scores_are_softened_log_odds(self, judge: Judge) -> None:
        vertices, mel = inputs(24, 20)
        local, window = judge.audio(mel_frames(mel)[None])
        odds = judge.log_odds((vertices - judge.mean)[None] @ judge.matrix.T, local, window)[0]
        found = judge.score(vertices, mel)
        assert torch.allclose(found["lip_score"][20:], 1 / (1 + torch.exp(-odds[:, 0] / 3)), atol=1e-5)
        assert torch.allclose(found["real_score"][20:], 1 / (1 + torch.exp(-odds[:, 1] / 3)), atol=1e-5)

    def test_what_each_score_depends_on(self) -> None:
        judge = make_judge().double()  # a fresh one hardly looks at its window's ends
        vertices, mel = inputs(21, 17)
        found, deaf = judge.score(vertices, mel), judge.score(vertices, mel.flip(-1))
        assert deaf["real_score"][20] == found["real_score"][20] and deaf["lip_score"][20] != found["lip_score"][20]
        for frame in range(21):
            moved = vertices.clone()
            moved[frame] += 0.1
            assert judge.score(moved, mel)["real_score"][20] != found["real_score"][20], frame

    @pytest.mark.parametrize(("n_frames", "n_clips"), [(0, 0), (4, 0), (20, 16), (21, 16), (20, 30), (40, 5)])
    def test_too_short_for_a_window(self, judge: Judge, n_frames: int, n_clips: int) -> None:
        found = judge.score(*inputs(n_frames, n_clips))
        assert all(value.shape == (n_frames,) and not value.any() for value in found.values())

    def test_batch_against_lanes_alone(self, judge: Judge) -> None:
        """Padding of nan leaks into no score and no gradient."""
        lengths, n_clips, n_frames = (30, 25, 12), (26, 19, 8), 33
        vertices = torch.full((3, n_frames, V * 3), torch.nan)
        audio = torch.full((3, 29, 2 * W), torch.nan)
        alone = []
        for lane, (length, n) in enumerate(zip(lengths, n_clips, strict=True)):
            motion, mel = inputs(length, n, seed=lane)
            vertices[lane, :length], audio[lane, :n] = motion, judge.encode_audio(mel)
            alone.append(judge.score(motion.view(length, V, 3), mel, stride=3))
        vertices.requires_grad_()
        found = judge.score_batch(vertices, audio, torch.tensor(n_clips), stride=3)
        for lane, length in enumerate(lengths):
            for key, value in found.items():
                assert torch.allclose(value[lane, :length].float(), alone[lane][key].float(), atol=1e-5), (lane, key)
                assert not value[lane, length:].any()
        assert found["score_mask"].sum(1).tolist() == [4, 1, 0]
        (found["lip_score"] + found["real_score"]).sum().backward()
        assert vertices.grad is not None and torch.isfinite(vertices.grad).all()
        assert [bool(g.any()) for g in vertices.grad] == [True, True, False]

    def test_gradient_against_finite_differences(self) -> None:
        model = make_judge().double()
        vertices, mel = inputs(22, 18)
        audio = model.encode_audio(mel)[None]
        vertices = vertices.double()[None]
        chosen = torch.zeros_like(vertices).flatten()
        chosen[torch.arange(0, chosen.numel(), 97)] = 1.0
        small = torch.zeros(9, dtype=torch.float64, requires_grad=True)
        place = chosen.nonzero().flatten()[:9]

        def scores(change: torch.Tensor) -> torch.Tensor:
            moved = vertices.flatten().index_add(0, place, change).view_as(vertices)
            return model.score_batch(moved, audio)["lip_score"]

        assert torch.autograd.gradcheck(scores, small)

    def test_wrong_shapes(self, judge: Judge) -> None:
        with pytest.raises(UserError, match="12 vertices"):
            judge.score(torch.zeros(30, 33), torch.zeros(26, 20, 128))
        with pytest.raises(UserError, match=r"expected \[B, T, V\*3\]"):
            judge.score_batch(torch.zeros(30, V * 3), torch.zeros(1, 26, 2 * W))
        with pytest.raises(UserError, match="stride=0"):
            judge.score_batch(torch.zeros(1, 30, V * 3), torch.zeros(1, 26, 2 * W), stride=0)

    def test_scorer_takes_it_beside_a_reward(self, validation) -> None:
        torch.manual_seed(0)
        judge = Judge(torch.randn(R, 135), torch.zeros(135), W, hidden=6).frozen()
        reward = RewardModel(SpeechMeshTransformer(135, 16, depth=1, n_heads=2), ScoreHead(16, 16, 8))
        u = validation[0]
        row = Scorer({"train": reward, "judge": judge}, validation).scores(0, u.vertices[None])[0]
        alone = judge.score(u.vertices, u.mel_clips)
        assert row["judge_lip_score"] == pytest.approx(float(alone["lip_score"][alone["score_mask"]].mean()), abs=1e-5)
        assert set(row) == {"lip_score", "real_score", "judge_lip_score", "judge_real_score"}


STATE = make_judge().state_dict()


class TestFiles:
    def test_roundtrip(self, judge: Judge, tmp_path: Path) -> None:
        judge.save(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["judge.pt"]
        for loaded in (Judge.load(tmp_path), load_scorer(tmp_path), load_scorer(tmp_path / "judge.pt")):
            assert isinstance(loaded, Judge) and loaded.content_hash() == judge.content_hash()
            assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
        vertices, mel = inputs(25, 21)
        for key, value in judge.score(vertices, mel).items():
            assert torch.equal(Judge.load(tmp_path).score(vertices, mel)[key], value)

    def test_a_reward_is_still_a_reward(self, tmp_path: Path) -> None:
        RewardModel(SpeechMeshTransformer(36, 16, depth=1, n_heads=2)).save(tmp_path)
        assert isinstance(load_scorer(tmp_path), RewardModel)
        with pytest.raises(UserError, match="judge"):
            Judge.load(tmp_path / "model_loss.pth")

    def test_is_no_reward(self, judge: Judge, tmp_path: Path) -> None:
        judge.save(tmp_path)
        for path in (tmp_path, tmp_path / "judge.pt"):
            with pytest.raises(UserError) as caught:
                RewardModel.load(path)
            assert "\n" not in str(caught.value) and "not for training" in str(caught.value)

    def test_hashes(self, judge: Judge) -> None:
        other = make_judge()
        assert other.content_hash() == judge.content_hash() and other.audio_hash() == judge.audio_hash()
        other.mean[0] += 1e-3
        assert other.content_hash() != judge.content_hash() and other.audio_hash() == judge.audio_hash()
        other.audio.embed.bias.data[0] += 1e-3
        assert other.audio_hash() != judge.audio_hash()

    @pytest.mark.parametrize("make", [
        lambda path: None,
        lambda path: path.mkdir(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(pickle.dumps(Path("/"))),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({"judge": 3}, path),
        lambda path: torch.save({"judge": {"mesh.embed.weight": torch.zeros(1)}}, path),
        lambda path: torch.save({"judge": STATE | {"matrix": torch.zeros(R)}}, path),
        lambda path: torch.save({"judge": STATE | {"matrix": torch.zeros(0, 36)}}, path),
        lambda path: torch.save({"judge": STATE | {"mean": torch.zeros(33)}}, path),
        lambda path: torch.save({"judge": STATE | {"mean": torch.full((36,), torch.nan)}}, path),
        lambda path: torch.save({"judge": STATE | {"mesh.local_norm.weight": torch.zeros(6)}}, path),
        lambda path: torch.save({"judge": torch.nn.Linear(2, 2)}, path),
    ])  # fmt: skip
    def test_hostile(self, tmp_path: Path, make) -> None:
        make(tmp_path / "judge.pt")
        for path in (tmp_path, tmp_path / "judge.pt"):
            with pytest.raises(UserError) as caught:
                Judge.load(path)
            assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)

    @pytest.mark.parametrize("entry", [
        {"mesh.local_norm.weight": torch.zeros(10**6 * 4)},  # the model of this width would take terabytes
        {"head.real.0.bias": torch.zeros(1).expand(10**13)},
        {"mean": torch.zeros(36).to(torch.float8_e4m3fn)},
    ])  # fmt: skip
    def test_sizes_and_kinds_that_cannot_be(self, tmp_path: Path, entry: dict) -> None:
        torch.save({"judge": STATE | entry}, tmp_path / "judge.pt")
        with pytest.raises(UserError, match=r"judge\.pt"):
            Judge.load(tmp_path)

    def test_a_reward_wins_in_a_folder_of_both(self, judge: Judge, tmp_path: Path) -> None:
        reward = RewardModel(SpeechMeshTransformer(36, 16, depth=1, n_heads=2))
        for save in (reward.save, reward.save_pretrained):
            folder = tmp_path / save.__name__
            judge.save(folder)
            assert isinstance(load_scorer(folder), Judge)
            save(folder)
            for found in (load_scorer(folder), RewardModel.load(folder)):
                assert found.content_hash() == reward.content_hash()
            assert isinstance(load_scorer(folder / "judge.pt"), Judge)

    def test_cache_on_disk(self, judge: Judge, validation, tmp_path: Path) -> None:
        first, second = (AudioFeatureCache(judge, validation, tmp_path) for _ in range(2))
        features = first.get(0)
        assert torch.equal(second.get(0), features) and second.from_disk == 1
        assert torch.equal(features, judge.encode_audio(validation[0].mel_clips))


class TestRegister:
    def test_the_judges_of_the_benchmarks(self) -> None:
        folder = Path(__file__).resolve().parents[3] / "benchmarks"
        entries = _registered(folder / "judges.json")
        assert {"judge", "judge_v2"} <= {entry["name"] for entry in entries}
        for entry in entries:
            assert load_scorer(folder / entry["name"]).content_hash() == entry["hash"]

    def test_each_hash_once(self, tmp_path: Path) -> None:
        file = tmp_path / "judges.json"
        register_judge(file, {"name": "one", "hash": "abc"})
        register_judge(file, {"name": "two", "hash": "def", "seed": 3})
        register_judge(file, {"name": "again", "hash": "abc"})
        assert json.loads(file.read_text()) == _registered(file)
        assert [entry["name"] for entry in _registered(file)] == ["one", "two"]

    @pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"hash": "a"}]', '[{"hash": 1, "name": "a"}]'])
    def test_no_list_of_judges(self, tmp_path: Path, content: str) -> None:
        file = tmp_path / "judges.json"
        file.write_text(content)
        with pytest.raises(UserError, match=r"judges\.json"):
            register_judge(file, {"name": "a", "hash": "a"})
        assert file.read_text() == content
