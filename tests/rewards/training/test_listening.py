"""Speech that is changed at random, and the audio half that learns to tell the motion from it."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from s2f_rl.data import FaceCorpus, mel_clips
from s2f_rl.errors import UserError
from s2f_rl.rewards import SpeechMeshTransformer, info_nce
from s2f_rl.rewards.corruptions import chosen_corruptions, stretched
from s2f_rl.rewards.motion.subspace import MotionSubspace
from s2f_rl.rewards.training.clips import ClipSampler
from s2f_rl.rewards.training.listening import MotionReadout, draw_pairs, listening_losses
from s2f_rl.rewards.training.projection import MeshProjection
from s2f_rl.rewards.training.recordings import MotionBank
from s2f_rl.rewards.training.speech_augmentation import SpeechAugmentation
from tests.rewards.settings import CLIPS

RATE = 19200


def tone(hertz: float, seconds: float = 1.0, rate: int = 16000) -> torch.Tensor:
    return 0.3 * torch.sin(2 * math.pi * hertz * torch.arange(int(seconds * rate)) / rate)


class TestSpeed:
    def test_a_tone_gets_higher_and_shorter(self, tiny_root: Path, tmp_path: Path) -> None:
        shutil.copytree(tiny_root, tmp_path / "corpus")
        corpus = FaceCorpus(tmp_path / "corpus", "train")
        soundfile.write(corpus.root / "wav" / f"{corpus.names[0]}.wav", tone(1000.0, 1.0, 22050).numpy(), 22050)
        faster = corpus[0].speech_at(RATE, 1.25)
        expected = tone(1250.0, 0.8, RATE)
        assert abs(len(faster) - len(expected)) <= 2
        assert torch.allclose(
            faster[2000:10000], expected[2000:10000], atol=3e-2
        )  # 27562.5 Hz is rounded, so phases drift a little
        odd = corpus[0].speech_at(RATE, 1.1)  # 22050 * 1.1 is no whole number in floating point
        assert abs(len(odd) - RATE / 1.1) <= 2

    def test_bank_stretches_the_motion(self, corpus, bank: MotionBank) -> None:
        several = MotionBank(corpus, speeds=[1.0, 1.25])
        assert len(several) == 2 * len(bank) and several.speeds[:4] == [1.0, 1.25, 1.0, 1.25]
        plain, fast = several[0], several[1]
        assert torch.equal(plain.displacement, bank[0].displacement)
        n_frames = round(len(plain.displacement) / 1.25)
        assert torch.equal(fast.displacement, stretched(plain.displacement, n_frames))
        assert abs(len(fast.mel_clips) - (n_frames - 4)) <= 3, "speech and motion keep together"
        with pytest.raises(UserError, match="speeds"):
            MotionBank(corpus, speeds=[0.0])

    def test_bank_hands_out_policy_samples(self, corpus, bank: MotionBank, motion, tmp_path: Path) -> None:
        recording = bank[0]
        sample = (recording.template + 0.5 * recording.displacement).numpy()
        np.save(tmp_path / f"{recording.name}_condition_S1.npy", sample)
        several = MotionBank(corpus, speeds=[1.0, 1.25], policy_samples=tmp_path)
        draws = torch.Generator().manual_seed(0)
        plain = several.context(0, motion, draws).policy_sample
        fast = several.context(1, motion, draws).policy_sample
        assert torch.allclose(plain, 0.5 * recording.displacement, atol=1e-7)
        assert torch.allclose(fast, 0.5 * several[1].displacement, atol=1e-7)
        assert several.context(2, motion, draws).policy_sample is None, "no prediction of that utterance"


class TestAugmentation:
    def mel(self) -> torch.Tensor:
        noise = 0.1 * torch.randn(RATE, generator=torch.Generator().manual_seed(0))
        return mel_clips(noise * torch.linspace(0.01, 1, RATE))

    def test_gain_is_a_gain_of_the_waveform(self) -> None:
        wave = 0.1 * torch.randn(RATE, generator=torch.Generator().manual_seed(0))
        mel = mel_clips(wave)
        draws = torch.Generator().manual_seed(4)
        louder = SpeechAugmentation(gain_db=6.0, equaliser_db=0.0, noise_db=0.0)(mel, draws)
        levels = 6.0 * torch.randn(len(mel), 1, 1, generator=torch.Generator().manual_seed(4)).flatten()
        for clip in (0, 7):
            expected = mel_clips(wave * 10 ** (float(levels[clip]) / 20))[clip]
            assert torch.allclose(louder[clip], expected, atol=1e-4)

    def test_empty_filters_stay_empty_and_noise_only_adds(self) -> None:
        mel = self.mel()
        heard = SpeechAugmentation(0.0, 0.0, 30.0)(mel, torch.Generator().manual_seed(1))
        empty = mel == mel.min()
        assert empty.any() and torch.equal(heard[empty], mel[empty])
        assert (heard >= mel - 1e-6).all()
        changed = (heard - mel).abs().amax((1, 2)) > 1e-3
        assert 0.2 < changed.float().mean() < 0.8, "half of the clips stay clean"

    def test_same_draws_same_speech(self) -> None:
        mel, augmentation = self.mel(), SpeechAugmentation(6.0, 4.0, 30.0)
        once, again = (augmentation(mel, torch.Generator().manual_seed(2)) for _ in range(2))
        assert torch.equal(once, again) and torch.isfinite(once).all() and not torch.equal(once, mel)


class TestLosses:
    def test_against_their_formulas(self, bank: MotionBank, motion: MotionSubspace) -> None:
        torch.manual_seed(0)
        projection = MeshProjection.fit(motion, 4, torch.Generator().manual_seed(0))
        sampler = ClipSampler(bank, motion, projection, None, chosen_corruptions(["jitter"]), **CLIPS)
        batch = draw_pairs(sampler, motion, None, 3, 4)
        assert batch.mel.shape == (12, 20, 128) and batch.clips.shape == (12, 5, projection.width)
        backbone, readout = SpeechMeshTransformer(projection.width, 16, 1, 2), MotionReadout(16, len(motion.std))
        losses = listening_losses(backbone, readout, batch, kept_patches=1.0)
        mesh = backbone.encode_embedded(backbone.embed_frames(batch.clips))
        audio = backbone.encode_audio(batch.mel)
        total = 0.0
        for i in range(12):
            for half, feature in ((readout.audio, audio[i]), (readout.mesh, mesh[i])):
                told = half(4.0 * feature).view(5, -1)
                total += float((told - batch.motion[i]).square().sum()) / 5 / 12
        assert losses["predict"].item() == pytest.approx(total, rel=1e-4)
        assert losses["info_nce"].item() == pytest.approx(info_nce(mesh, audio).item(), rel=1e-4)

    def test_target_is_that_of_the_vertices(self, bank: MotionBank, motion: MotionSubspace) -> None:
        sampler = ClipSampler(bank, motion, None, None, chosen_corruptions(["jitter"]), **CLIPS)
        batch = draw_pairs(sampler, motion, None, 2, 3)
        displacement = (batch.clips[0] - batch.clips[1]) - (batch.clips[0] - batch.clips[1]).mean(0)
        told = (batch.motion[0] - batch.motion[1]) - (batch.motion[0] - batch.motion[1]).mean(0)
        inside = displacement @ motion.basis.T  # of one speaker, so the template falls out
        assert told.norm() == pytest.approx(float(inside.norm() / motion.std.norm()), rel=1e-3)

    def test_fewer_patches_are_fewer_patches(self) -> None:
        torch.manual_seed(0)
        backbone = SpeechMeshTransformer(12, 16, 1, 2)
        mel = torch.randn(2, 20, 128)
        kept = torch.arange(0, 160, 2)
        tokens = (backbone.encoder_audio.patches(mel) + backbone.encoder_audio.positions)[:, kept]
        for block in backbone.encoder_audio.blocks:
            tokens = block(tokens)
        assert torch.allclose(backbone.pool_audio(mel, kept), backbone.encoder_audio.norm(tokens).mean(1), atol=1e-6)


class TestChosen:
    def test_a_family_can_be_left_out(self) -> None:
        names = {each.name for each in chosen_corruptions(None, "time")}
        assert "shift_early" not in names and "jitter" in names
        with pytest.raises(UserError, match="leave_out"):
            chosen_corruptions(None, "nonsense")
        with pytest.raises(UserError, match="none"):
            chosen_corruptions(["jitter"], "smoothness")
