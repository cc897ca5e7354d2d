"""Clips, losses and the recipe that trains a reward: against slow references, and a small training that must learn."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from s2f_rl.data import FaceCorpus
from s2f_rl.errors import UserError
from s2f_rl.models import FaceFormer, MelAudioEncoder
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer, info_nce
from s2f_rl.rewards.corruptions import chosen_corruptions
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.clips import ClipSampler
from s2f_rl.rewards.training.losses import AudioFeatures, centre_features, finished_reward, ranking_loss, reward_losses
from s2f_rl.rewards.training.projection import MeshProjection
from s2f_rl.rewards.training.recordings import MotionBank
from s2f_rl.runs import read_rows, save_checkpoint, without_times
from s2f_rl.training import actor_entry, cosine_decay
from tests.recipe_tools import load_recipe
from tests.rewards.settings import CLIPS


def sampler(bank: MotionBank, motion: MotionSubspace, projection: MeshProjection | None = None, **options):
    names = options.pop("corruptions", None)
    regressor = bank.fit_regressor(motion)
    settings = {**CLIPS, "n_stretches": 3, "n_windows": 3, "n_corruptions": 2, **options}
    return ClipSampler(bank, motion, projection, regressor, chosen_corruptions(names), **settings)


@pytest.fixture
def projection(motion: MotionSubspace) -> MeshProjection:
    return MeshProjection.fit(motion, n_rough=4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def parts(projection: MeshProjection) -> tuple[SpeechMeshTransformer, ScoreHead]:
    torch.manual_seed(0)
    return SpeechMeshTransformer(projection.width, 16, depth=1, n_heads=2), ScoreHead(16, 16, 8, dropout=0.0)


class TestClipSampler:
    def test_true_clips_are_the_recordings(self, bank: MotionBank, motion: MotionSubspace) -> None:
        batch = sampler(bank, motion, scale_range=1.0).draw()
        assert batch.mel.shape == (9, 20, 128) and batch.clips.shape[1:] == (5, 135)
        for row, (position, clip) in enumerate(zip(batch.recording.tolist(), batch.clip.tolist(), strict=True)):
            recording = bank[position]
            assert torch.equal(batch.mel[row], recording.mel_clips[clip])
            frames = recording.template + recording.displacement[clip : clip + 5]
            assert torch.allclose(batch.clips[row], frames, atol=1e-7)

    def test_rows_point_at_versions_of_the_same_clip(self, bank: MotionBank, motion: MotionSubspace) -> None:
        batch = sampler(bank, motion, corruptions=["amplitude_up"], on_base=0.0, scale_range=1.0).draw()
        n_true = len(batch.mel)
        assert torch.equal(batch.audio[:n_true], torch.arange(n_true))
        assert torch.equal(batch.audio[batch.better], batch.audio[batch.worse])
        # amplitude: a spoiled clip is the true one, further away from the template
        for row in batch.spoiled.tolist():
            true = int(batch.audio[row])
            template = bank[int(batch.recording[true])].template
            ratio = (batch.clips[row] - template).norm() / (batch.clips[true] - template).norm()
            assert 1.4 - 1e-3 < float(ratio) < 2.0 + 1e-3
        amount = (batch.clips - batch.clips[batch.audio]).flatten(1).norm(dim=1)
        assert (amount[batch.better] < amount[batch.worse]).all()

    def test_windows_keep_their_distance(self, bank: MotionBank, motion: MotionSubspace) -> None:
        for _ in range(3):
            batch = sampler(bank, motion, min_spacing=4).draw()
            starts = batch.clip.view(3, 3)
            assert (starts.diff(dim=1) >= 4).all()

    def test_heads_follow_the_routing(self, bank: MotionBank, motion: MotionSubspace) -> None:
        batch = sampler(bank, motion, corruptions=["shift_late"], on_base=0.0).draw()
        assert batch.heads[:, 0].all() and not batch.heads[:, 1].any()
        batch = sampler(bank, motion, corruptions=["jitter"], on_base=0.0).draw()
        assert batch.heads[:, 1].all() and not batch.heads[:, 0].any()

    def test_visibility_by_hand(self, bank: MotionBank, motion: MotionSubspace) -> None:
        """With amplitudes alone the difference of two clips is known, and so is its RMS."""
        batch = sampler(bank, motion, corruptions=["amplitude_down"], on_base=0.0, scale_range=1.0).draw()
        difference = batch.clips[batch.better] - batch.clips[batch.worse]
        points = difference.view(len(difference), 5, 45, 3).square().sum(-1)
        rms = torch.maximum(points[..., motion.lips].mean(-1), points.mean(-1)).mean(-1).sqrt()
        assert torch.allclose(batch.visible, (rms / 0.5e-3).clamp_max(1.0), atol=1e-3)

    def test_another_identity_moves_all_versions_alike(self, bank: MotionBank, motion, projection) -> None:
        torch.manual_seed(0)
        options = {"corruptions": ["amplitude_up"], "on_base": 0.0, "scale_range": 1.0, "n_stretches": 12}
        batch = sampler(bank, motion, projection, **options).draw()
        own = torch.stack([
            projection(bank[p].template + bank[p].displacement[c : c + 5])
            for p, c in zip(batch.recording.tolist(), batch.clip.tolist(), strict=True)
        ])  # fmt: skip
        offset = batch.clips[: len(own)] - own
        assert torch.allclose(offset, offset[:, :1].expand_as(offset), atol=1e-3)
        changed = offset[:, 0].norm(dim=1) > 1e-3
        assert 0.4 < float(changed.float().mean()) < 1.0

    def test_capture_noise_is_on_the_true_version_too(self, bank: MotionBank, motion: MotionSubspace) -> None:
        """Up to 0.5 mm at the lips, uniformly, in the subspace of the motion."""
        options = {"scale_range": 1.0, "identity_spread": 0.0, "on_base": 0.0, "corruptions": ["frozen_mouth"]}
        noisy = sampler(bank, motion, capture_noise_mm=0.5, **options)
        power = []
        for _ in range(30):
            batch = noisy.draw()
            for row, (position, clip) in enumerate(zip(batch.recording.tolist(), batch.clip.tolist(), strict=True)):
                recording = bank[position]
                noise = batch.clips[row] - recording.template - recording.displacement[clip : clip + 5]
                assert (noise - noise @ motion.basis.T @ motion.basis).norm() < 1e-3 * noise.norm() + 1e-7
                power.append(float(motion.lip_rms(noise).square().mean()))
        assert (sum(power) / len(power)) ** 0.5 == pytest.approx(0.5e-3 / 3**0.5, rel=0.35)
        with pytest.raises(UserError, match="capture_noise_mm=-1"):
            sampler(bank, motion, capture_noise_mm=-1, **options)

    def test_state_goes_on_where_it_was(self, bank: MotionBank, motion: MotionSubspace) -> None:
        one, other = sampler(bank, motion, seed=5), sampler(bank, motion, seed=6)
        one.draw()
        other.load_state_dict(one.state_dict())
        first, second = one.draw(), other.draw()
        for name, tensor in vars(first).items():
            assert torch.equal(torch.as_tensor(tensor), torch.as_tensor(getattr(second, name))), name

    def test_seeds_differ(self, bank: MotionBank, motion: MotionSubspace) -> None:
        assert not torch.equal(sampler(bank, motion, seed=1).draw().mel, sampler(bank, motion, seed=2).draw().mel)


class TestLosses:
    def test_ranking_loss_by_hand(self) -> None:
        better, worse = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 3.0])
        expected = (3 * F.softplus(torch.tensor(-1.0)) + 1 * F.softplus(torch.tensor(3.0))) / 4
        assert ranking_loss(better, worse, torch.tensor([3.0, 1.0])).item() == pytest.approx(expected.item())
        assert ranking_loss(better, worse, torch.zeros(2)).item() == 0.0

    def test_terms_by_a_slow_loop(self, bank: MotionBank, motion, projection, parts) -> None:
        backbone, head = parts
        batch = sampler(bank, motion, projection).draw()
        found = reward_losses(backbone, head, batch)
        with torch.no_grad():
            mesh, audio = backbone(batch.clips, batch.mel[batch.audio][:, None])
            odds = torch.stack(head.log_odds(audio, mesh), dim=-1)
            n = len(batch.mel)
            assert found["info_nce"].item() == pytest.approx(info_nce(mesh[:n], audio[:n]).item(), abs=1e-5)
            total, weights = 0.0, 0.0
            for b, w, seen, heads in zip(batch.better, batch.worse, batch.visible, batch.heads, strict=True):
                for k in (0, 1):
                    weight = float(seen) * float(heads[k])
                    total += weight * float(F.softplus(odds[w, k] - odds[b, k]))
                    weights += weight
            assert found["rank"].item() == pytest.approx(total / weights, rel=1e-4)
            wrong = [0.0, 0.0]
            for k in (0, 1):
                weight = batch.spoiled_visible * batch.spoiled_heads[:, k]
                wrong[k] = float((weight * F.softplus(odds[batch.spoiled, k])).sum() / weight.sum())
            right = F.softplus(-odds[:n]).mean(0)
            expected = 0.5 * (float(right[0]) + wrong[0] + float(right[1]) + wrong[1]) / 2
            assert found["classify"].item() == pytest.approx(expected, rel=1e-4)

    def test_value_term_reaches_the_critic_only(self, bank: MotionBank, motion, projection, parts) -> None:
        backbone, head = parts
        reward_losses(backbone, head, sampler(bank, motion, projection).draw())["value"].backward()
        touched = {id(p) for m in parts for p in m.parameters() if p.grad is not None}
        assert touched and touched <= {id(p) for p in head.value_parameters()}

    def test_known_audio_features_give_the_same_numbers(self, bank: MotionBank, motion, projection, parts) -> None:
        backbone, head = parts
        draws = sampler(bank, motion, projection)
        features = AudioFeatures(backbone, bank)
        for _ in range(2):
            batch = draws.draw()
            known = reward_losses(backbone, head, batch, features(batch))
            for name, term in reward_losses(backbone, head, batch).items():
                assert known[name].item() == pytest.approx(term.item(), rel=1e-4), name
        known["info_nce"].backward()
        assert all(p.grad is None for p in backbone.encoder_audio.parameters())

    def test_centred_features(self, bank: MotionBank, motion, projection, parts) -> None:
        backbone, _ = parts
        batch = sampler(bank, motion, projection).draw()

        def collapse() -> tuple[float, float]:
            with torch.no_grad():
                mesh, audio = backbone(batch.clips[: len(batch.mel)], batch.mel[:, None])
            return float(mesh.mean(0).norm()), float(audio.mean(0).norm())

        before = collapse()
        centre_features(backbone, batch)
        after = collapse()
        assert before[1] > 0.9 and after[0] < before[0] and after[1] < 0.6


def test_finished_reward_is_a_frozen_copy_on_raw_vertices(bank: MotionBank, projection, parts) -> None:
    backbone, head = parts
    reward = finished_reward(backbone, head, projection)
    assert reward.n_vertices == 45 and all(p.requires_grad for p in backbone.parameters())
    vertices = bank[0].template + bank[0].displacement
    with torch.no_grad():
        expected = backbone.encode_mesh(projection(vertices)[None])
        assert torch.allclose(reward.encode_mesh(vertices[None]), expected, atol=1e-4)


class Killed(Exception):
    """Stands for the end of the process."""


class TestRecipe:
    OPTIONS = (
        "reward_model.width=16", "reward_model.depth=1", "reward_model.n_heads=2", "reward_model.head_hidden=16",
        "clips.n_stretches=6", "clips.stretch_frames=16", "optimizer.warmup=5", "device=cpu", "logger=none",
        "progress=false", "rough_directions=4",
        "listening.iterations=2", "listening.recordings=2", "listening.clips=4", "speech.speeds=[0.95,1.0]",
    )  # fmt: skip
    LEARNABLE = ("jitter", "over_smoothing", "frozen_mouth")  # by so small a model in three seconds
    TRAINING = (
        "iterations=90", "listening.iterations=20", "evaluation.every=30", "optimizer.lr=1e-2",
        f"corruptions=[{','.join(LEARNABLE)}]",
    )  # fmt: skip

    def options(self, tiny_root: Path, out: Path, *overrides: str) -> list[str]:
        return [f"corpus.root={tiny_root}", f"root={out}", *self.OPTIONS, *overrides]

    def test_learns_and_resumes_to_the_same_numbers(self, tiny_root: Path, tmp_path: Path, monkeypatch, caplog) -> None:
        main = load_recipe("reward")
        main.run(self.options(tiny_root, tmp_path, "name=whole", *self.TRAINING))
        assert sum(line.startswith("the reward hardly notices") for line in caplog.messages) == 1
        reward = RewardModel.load(tmp_path / "whole")
        assert reward.n_vertices == 45 and reward.backbone.n_heads == 2
        hub = RewardModel.from_pretrained(tmp_path / "whole" / "pretrained")
        assert hub.content_hash() == reward.content_hash()
        report = json.loads((tmp_path / "whole" / "auc.json").read_text())
        assert report["reward"] == reward.content_hash()
        learned = [row["auc"] for row in report["rows"] if row["routed"] and row["corruption"] in self.LEARNABLE]
        assert len(learned) >= 8 and sum(learned) / len(learned) > 0.85, "on a speaker it has not seen"
        assert len((tmp_path / "whole" / "auc.csv").read_text().splitlines()) == len(report["rows"]) + 1

        module = sys.modules[main.function.__module__]

        def decay_until_killed(optimizer, options, iteration, iterations):
            if (iteration, iterations) == (30, 70):  # iteration 50, in the second phase, past the checkpoint of 30
                raise Killed
            return cosine_decay(optimizer, options, iteration, iterations)

        broken = self.options(tiny_root, tmp_path, "name=broken", "checkpoint_minutes=1e-9", *self.TRAINING)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(module, "cosine_decay", decay_until_killed)
            main.run(broken)
        assert torch.load(tmp_path / "broken" / "last.pt", weights_only=True)["iteration"] == 49, "by the clock"
        main.run([*broken, "resume=true", "checkpoint_minutes=null"])
        rows = [[without_times(row) for row in read_rows(tmp_path / n / "metrics.jsonl")] for n in ("whole", "broken")]
        assert rows[0] == rows[1] and len(rows[0]) == 90
        assert RewardModel.load(tmp_path / "broken").content_hash() == reward.content_hash()

    def test_head_on_a_given_backbone(self, tiny_root: Path, tmp_path: Path) -> None:
        torch.manual_seed(0)
        given = RewardModel(SpeechMeshTransformer(135, 16, depth=1, n_heads=2))
        given.save(tmp_path / "published")
        backbone = f"backbone={tmp_path / 'published' / 'model_loss.pth'}"
        load_recipe("reward").run(self.options(tiny_root, tmp_path, backbone, "iterations=3"))
        trained = RewardModel.load(tmp_path / "reward")
        assert trained.head is not None and trained.audio_hash() == given.audio_hash()
        for name, tensor in given.backbone.state_dict().items():
            assert torch.equal(trained.backbone.state_dict()[name], tensor)

    def test_meets_a_policy(self, tiny_root: Path, corpus: FaceCorpus, tmp_path: Path, monkeypatch) -> None:
        torch.manual_seed(0)
        actor = FaceFormer(MelAudioEncoder(width=8), 45, feature_dim=16, n_subjects=len(corpus.subjects))
        save_checkpoint(tmp_path / "best.pt", {"actor": actor_entry(actor, corpus)})
        given = (f"policy={tmp_path / 'best.pt'}", "corruptions=[policy_samples]", "iterations=4")
        load_recipe("reward").run(self.options(tiny_root, tmp_path, *given))
        recorded = [name for i, name in enumerate(corpus.names) if corpus.has_vertices(i)]
        assert len(list((tmp_path / "reward" / "policy_samples").iterdir())) == len(recorded) < len(corpus)

        # killed while it listens, with a part of the samples gone: the same reward in the end
        broken = self.options(tiny_root, tmp_path, "name=broken", "checkpoint_minutes=1e-9", *given)
        main = load_recipe("reward")

        def killed(optimizer, options, iteration, iterations):
            if (iteration, iterations) == (2, 2):
                raise Killed
            return cosine_decay(optimizer, options, iteration, iterations)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(sys.modules[main.function.__module__], "cosine_decay", killed)
            main.run(broken)
        assert torch.load(tmp_path / "broken" / "last.pt", weights_only=True)["iteration"] == 1
        next((tmp_path / "broken" / "policy_samples").iterdir()).unlink()
        main.run([*broken, "resume=true"])
        hashes = {RewardModel.load(tmp_path / name).content_hash() for name in ("reward", "broken")}
        assert len(hashes) == 1

        both = f"policy=[{tmp_path / 'best.pt'},{tmp_path / 'best.pt'}]"
        load_recipe("reward").run(self.options(tiny_root, tmp_path, both, *given[1:], "name=both"))
        for k in "01":
            assert len(list((tmp_path / "both" / "policy_samples" / k).iterdir())) == len(recorded)
        assert len(json.loads((tmp_path / "both" / "inputs.json").read_text())["policy"]) == 1  # twice the same path
        with pytest.raises(UserError, match="one of them"):
            load_recipe("reward").run(self.options(tiny_root, tmp_path, *given, "policy_samples=nowhere"))

    def test_report(self, tiny_root: Path, tmp_path: Path, monkeypatch) -> None:
        main = load_recipe("reward")
        calls = []
        monkeypatch.setattr(
            sys.modules[main.function.__module__], "reward_report", lambda *a, **k: calls.append((a, k))
        )
        main.run(self.options(tiny_root, tmp_path, "iterations=3", "evaluation.utterances=2", "report=true"))
        ((where, root, out), options), = calls  # fmt: skip
        assert (where, root, out) == (tmp_path / "reward", str(tiny_root), tmp_path / "reward" / "report")
        assert options["device"] == "cpu" and RewardModel.load(where).n_vertices == 45

    def test_mistakes(self, tiny_root: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="nonsense"):
            load_recipe("reward").run(self.options(tiny_root, tmp_path, "corruptions=[nonsense]"))
        with pytest.raises(UserError, match="nowhere"):
            load_recipe("reward").run(self.options(tiny_root, tmp_path, "corpus.root=nowhere"))
