"""Stretches and losses that train a judge: against the recordings and slow loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from s2f_rl.data import FaceCorpus
from s2f_rl.data.mel import mel_clips
from s2f_rl.errors import UserError
from s2f_rl.rewards.corruptions import CORRUPTIONS, chosen_corruptions
from s2f_rl.rewards.judge.judge import Judge
from s2f_rl.rewards.judge.layers import live_bins, mel_frames
from s2f_rl.rewards.judge.losses import judge_losses, sync_loss
from s2f_rl.rewards.judge.stretches import StretchSampler, another_voice, long_enough
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.projection import MeshProjection
from s2f_rl.rewards.training.recordings import MotionBank
from tests.tiny import make_tiny_corpus

W, WINDOW = 8, 21


@pytest.fixture
def projection(motion: MotionSubspace) -> MeshProjection:
    return MeshProjection.fit(motion, n_rough=4, generator=torch.Generator().manual_seed(0))


STRETCHES = {
    **{"n_stretches": 3, "stretch_frames": 28, "n_corruptions": 2, "on_base": 0.25, "identity_spread": 1.0},
    **{"style_spread": 0.1, "scale_range": 1.1, "voice_spread": 1.0, "capture_noise_mm": 0.0},
}
PLAIN = {"identity_spread": 0.0, "style_spread": 0.0, "scale_range": 1.0, "voice_spread": 0.0, "on_base": 0.0}


def sampler(bank: MotionBank, motion: MotionSubspace, projection: MeshProjection, names=None, **options):
    settings = {**STRETCHES, **options}
    return StretchSampler(bank, motion, projection, bank.fit_regressor(motion), chosen_corruptions(names), **settings)


class TestSampler:
    def test_true_stretches_are_the_recordings(self, bank: MotionBank, motion, projection) -> None:
        batch = sampler(bank, motion, projection, **PLAIN).draw()
        assert batch.frames.shape[1:] == (28, projection.width) and batch.mel.shape == (3, 28, 4, 128)
        found = 0
        for k in range(3):
            for position in range(len(bank)):
                recording = bank[position]
                rows = mel_frames(recording.mel_clips[: recording.n_clips])
                for start in range(len(rows) - 27):
                    if torch.equal(rows[start : start + 24], batch.mel[k, :24]):
                        vertices = recording.template + recording.displacement[start : start + 28]
                        assert torch.allclose(batch.frames[k], projection(vertices), atol=1e-4)
                        assert torch.allclose(rows[start : start + 28], batch.mel[k], atol=1e-3)
                        found += 1
        assert found == 3

    def test_versions_of_a_stretch(self, bank: MotionBank, motion, projection) -> None:
        batch = sampler(bank, motion, projection, ["amplitude_up"], **PLAIN).draw()
        assert batch.stretch.tolist() == [0, 1, 2] + [k for k in range(3) for _ in range(4)]
        assert torch.equal(batch.stretch[batch.better], batch.stretch[batch.worse])
        assert batch.heads.all() and batch.visible.shape == (18, 8) and len(batch.spoiled) == 6
        amount = (batch.frames - batch.frames[batch.stretch]).flatten(1).norm(dim=1)
        assert (amount[batch.better] < amount[batch.worse]).all() and (amount[:3] == 0).all()

    def test_visibility_by_hand(self, bank: MotionBank, motion) -> None:
        raw = MeshProjection(torch.eye(135), torch.zeros(135), torch.zeros(135))
        batch = sampler(bank, motion, raw, ["amplitude_down", "frozen_mouth"], **PLAIN).draw()
        points = (batch.frames[batch.better] - batch.frames[batch.worse]).unflatten(-1, (45, 3)).square().sum(-1)
        rms = torch.maximum(points[..., motion.lips].mean(-1), points.mean(-1))
        by_hand = torch.stack([rms[:, w : w + WINDOW].mean(1) for w in range(8)], dim=1).sqrt() / 0.5e-3
        assert torch.allclose(batch.visible, by_hand.clamp_max(1.0), atol=1e-3)

    def test_looks_are_shared_by_all_versions(self, bank: MotionBank, motion, projection) -> None:
        """Face and style change a difference of versions by the style alone, and each direction by its factor."""
        raw = MeshProjection(torch.eye(135), torch.zeros(135), torch.ones(135))
        options = {**PLAIN, "identity_spread": 1.0, "scale_range": 1.5}
        plain, changed = (sampler(bank, motion, raw, ["amplitude_up"], **o).draw() for o in (PLAIN, options))
        difference, other = (b.frames[b.worse[0]] - b.frames[b.better[0]] for b in (plain, changed))
        within = difference @ motion.basis.T @ motion.basis
        factor = (other * within).sum() / (within * within).sum()
        assert torch.allclose(other - difference, (factor - 1) * within, atol=1e-5) and abs(factor - 1) > 1e-3
        offset = changed.frames[0] - plain.frames[0]
        assert float(offset.mean(0).abs().mean()) > 0.1

    def test_routing(self, bank: MotionBank, motion, projection) -> None:
        lip = sampler(bank, motion, projection, ["shift_late"], on_base=0.0).draw()
        assert lip.heads[:, 0].all() and not lip.heads[:, 1].any() and not lip.spoiled_heads[:, 1].any()

    def test_state_goes_on_where_it_was(self, bank: MotionBank, motion, projection) -> None:
        one, other = (sampler(bank, motion, projection, on_base=0.5, seed=seed) for seed in (5, 6))
        one.draw()
        other.load_state_dict(one.state_dict())
        first, second = one.draw(), other.draw()
        for name, tensor in vars(first).items():
            assert torch.equal(tensor, getattr(second, name)), name

    def test_policy_samples_are_used(self, corpus: FaceCorpus, motion, projection, tmp_path: Path) -> None:
        for i in range(len(corpus)):
            np.save(tmp_path / f"{corpus.names[i]}.npy", np.tile(corpus[i].template, (200, 1)))
        bank = MotionBank(corpus, policy_samples=tmp_path)
        batch = sampler(bank, motion, projection, ["policy_samples"], **PLAIN).draw()
        assert len(batch.spoiled) == 6 and (batch.frames[batch.better] != batch.frames[batch.worse]).any()

    def test_projection_of_a_resumed_run_is_used(self, bank: MotionBank, motion, projection) -> None:
        """Loading a checkpoint replaces the projection's content after the sampler was made."""
        other = MeshProjection.fit(motion, n_rough=4, generator=torch.Generator().manual_seed(7))
        options = {**PLAIN, "style_spread": 0.5}
        expected = sampler(bank, motion, other, ["amplitude_up"], **options).draw()
        resumed = sampler(bank, motion, projection, ["amplitude_up"], **options)
        projection.load_state_dict(other.state_dict())
        assert torch.equal(resumed.draw().frames, expected.frames)

    def test_controls_are_not_trained_on(self, bank: MotionBank, motion, projection) -> None:
        controls = [name for name, corruption in CORRUPTIONS.items() if not corruption.heads]
        assert controls
        batch = sampler(bank, motion, projection, [*controls, "jitter"], n_corruptions=12).draw()
        assert batch.heads.any(1).all()
        with pytest.raises(UserError, match="controls"):
            sampler(bank, motion, projection, controls)

    def test_nothing_that_can_be_made(self, bank: MotionBank, motion, projection) -> None:
        with pytest.raises(UserError, match="policy_sample"):
            sampler(bank, motion, projection, ["policy_samples"]).draw()

    def test_as_long_as_the_shortest_allows(self, bank: MotionBank, motion, projection) -> None:
        batch = sampler(bank, motion, projection, stretch_frames=500, n_stretches=len(bank)).draw()
        assert batch.frames.shape[1] == min(bank[p].n_clips + 4 for p in range(len(bank)))

    def test_too_short_recordings(self, motion, projection, tmp_path: Path) -> None:
        root = make_tiny_corpus(tmp_path, n_subjects=3, n_sentences=4, n_vertices=45, seconds=(0.4, 1.0))
        short = FaceCorpus(root, "train")
        frames = [min(len(short[i].vertices), len(short[i].mel_clips) + 4) for i in range(len(short))]
        expected = [i for i, n in enumerate(frames) if n >= WINDOW]
        assert long_enough(short) == expected and 0 < len(expected) < len(short)
        assert sampler(MotionBank(short), motion, projection).draw().frames.shape[1] >= WINDOW
        rest = [i for i in range(len(short)) if i not in expected]
        with pytest.raises(UserError, match="21 frames"):
            sampler(MotionBank(short, rest), motion, projection)


class TestVoice:
    def test_nothing_changes_at_zero(self) -> None:
        mel = torch.randn(3, 20, 128, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(another_voice(mel, torch.Generator().manual_seed(0), 0.0), mel, atol=1e-5)

    def test_empty_filters_stay(self) -> None:
        mel = mel_frames(mel_clips(torch.randn(640 * 9, generator=torch.Generator().manual_seed(0))))
        for seed in range(4):
            changed = another_voice(mel, torch.Generator().manual_seed(seed))
            empty = [k for k in range(128) if k not in set(live_bins().tolist())]
            assert torch.equal(changed[..., empty], mel[..., empty])
            assert 0.01 < float((changed - mel).abs().mean()) < 0.6


class TestLosses:
    def test_sync_by_loops(self) -> None:
        mesh, audio = torch.randn(2, 2, 6, W, generator=torch.Generator().manual_seed(0))
        total = 0.0
        for s in range(2):
            cosine = F.normalize(mesh[s], dim=-1) @ F.normalize(audio[s], dim=-1).T / 0.1
            for t in range(6):
                rivals = [k for k in range(6) if abs(k - t) != 1]
                total -= float(cosine[t, t] - torch.logsumexp(cosine[t, rivals], 0))
                total -= float(cosine[t, t] - torch.logsumexp(cosine[rivals, t], 0))
        assert sync_loss(mesh, audio).item() == pytest.approx(total / 24, rel=1e-5)

    def test_terms_by_a_slow_loop(self, bank: MotionBank, motion, projection) -> None:
        torch.manual_seed(0)
        model = Judge.of(projection, W, 6, dropout=0.0)
        batch = sampler(bank, motion, projection, on_base=0.5).draw()
        found = judge_losses(model, batch)
        odds = []
        with torch.no_grad():
            for k, frames in enumerate(batch.frames):
                local, window = model.audio(batch.mel[batch.stretch[k]][None])
                odds.append(model.log_odds(frames[None], local, window)[0])
        totals = {"rank": [0.0, 0.0], "pooled": [0.0, 0.0]}
        wrong, right = np.zeros((2, 2)), np.zeros(2)

        def count(name: str, weight: float, gap: torch.Tensor) -> None:
            totals[name][0] += weight * float(F.softplus(gap))
            totals[name][1] += weight

        for h in (0, 1):
            for p in range(len(batch.better)):
                for w in range(8):
                    weight = float(batch.visible[p, w]) * float(batch.heads[p, h])
                    count("rank", weight, odds[batch.worse[p]][w, h] - odds[batch.better[p]][w, h])
            for q, row in enumerate(batch.spoiled.tolist()):
                weights = batch.spoiled_visible[q] * batch.spoiled_heads[q, h]
                wrong[h] += [float((weights * F.softplus(odds[row][:, h])).sum()), float(weights.sum())]
                for true in range(3):
                    count("pooled", float(weights.mean()), odds[row][:, h].mean() - odds[true][:, h].mean())
            right[h] = float(torch.stack([F.softplus(-odds[true][:, h]) for true in range(3)]).mean())
        for name, (total, weight) in totals.items():
            assert found[name].item() == pytest.approx(total / weight, rel=1e-4), name
        expected = 0.5 * float((right + wrong[:, 0] / wrong[:, 1]).mean())
        assert found["classify"].item() == pytest.approx(expected, rel=1e-4)
