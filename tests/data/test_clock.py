"""One clock: a burst of sound and a jump of the face at the same instant stay together, at any rate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tensordict import TensorDict

from s2f_rl.data import FaceCorpus
from s2f_rl.data.clock import PRESETS, Clock, clock_of, rates_alike
from s2f_rl.envs import SpeechToFaceEnv
from s2f_rl.errors import UserError
from s2f_rl.models import MelAudioEncoder
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.audio_encoders import resample_to_frames
from tests.tiny import make_tiny_corpus

RATES = [10, 24, 25, 29.97, 30, 50, 60, 120]
BURSTS_S = (0.7, 2.0)
SECONDS = 3.0


class Loudness(MelAudioEncoder):
    """One feature per frame or several: the mean log-mel of its 50 Hz frame."""

    def contextualise(self, features: torch.Tensor) -> torch.Tensor:
        return features.mean(-1, keepdim=True).expand(-1, -1, self.width)


def corpus_at(folder: Path, fps: float, features: int = 1, step: int = 1) -> FaceCorpus:
    """Speech that is silent but for two bursts, a face that stands still but for two jumps at the same instants."""
    root = make_tiny_corpus(
        folder, n_subjects=2, n_sentences=1, seconds=(SECONDS, SECONDS), stored_fps=fps * step, frame_step=step
    )
    description = json.loads((root / "corpus.json").read_text())
    (root / "corpus.json").write_text(json.dumps({**description, "audio_features_per_frame": features}))
    rng = np.random.default_rng(0)
    for path in (root / "wav").iterdir():
        time = np.arange(int(SECONDS * 16000)) / 16000
        loud = sum((time >= at) & (time < at + 0.2) for at in BURSTS_S)
        soundfile.write(path, (rng.normal(size=len(time)) * (1e-4 + 0.2 * loud)).astype(np.float32), 16000)
    for path in (root / "vertices_npy").iterdir():
        face = np.repeat(np.load(path)[:1], int(SECONDS * fps * step), axis=0)
        time = np.arange(len(face)) / (fps * step)
        face += 0.005 * sum((time >= at) & (time < at + 0.2) for at in BURSTS_S)[:, None]
        np.save(path, face)
    return FaceCorpus(root, "all")


def onsets(curve: np.ndarray) -> np.ndarray:
    """Frames at which a curve first exceeds the middle of its range: the beginning of every burst or jump."""
    loud = curve > (curve.min() + curve.max()) / 2
    return np.flatnonzero(loud & ~np.r_[True, loud[:-1]])


@pytest.mark.parametrize(("fps", "features"), [(fps, 1) for fps in RATES] + [(25, 2), (30, 2), (24, 3)])
class TestBurstAndJump:
    def seen(self, corpus: FaceCorpus) -> np.ndarray:
        moved = (corpus[0].vertices - corpus[0].template).abs().amax(1).numpy()
        frames = onsets(moved)
        assert frames == pytest.approx([at * corpus.fps for at in BURSTS_S], abs=1)
        return frames

    def test_supervised_pairs_and_environment(self, tmp_path: Path, fps: float, features: int) -> None:
        corpus = corpus_at(tmp_path, fps, features)
        seen = self.seen(corpus)
        encoder = Loudness(width=3, fps=corpus.fps, features_per_frame=features).eval()
        heard = encoder(corpus[0].waveform[None])[0].view(-1, features, 3)[: len(corpus[0].vertices)]
        near = max(1, fps / 50)  # a feature stands for 20 ms
        assert np.abs(onsets(heard[:, 0, 0].numpy()) - seen).max() <= near
        assert len(CachedAudio(encoder, corpus).get(0)) == corpus.n_frames(0)
        env = SpeechToFaceEnv(corpus, encoder, batch_size=1)
        start = env.reset(TensorDict({"utterance": torch.tensor([[0]])}, [1]))
        rollout = env.rollout(env.horizon, break_when_any_done=False, auto_reset=False, tensordict=start)
        observed = rollout["audio"][0, :, 0, 0].numpy()
        assert rollout["frame_mask"].sum() == corpus.n_frames(0) and np.abs(onsets(observed) - seen).max() <= near

    def test_reward_clips(self, tmp_path: Path, fps: float, features: int) -> None:
        """Clip i hears the frames i to i + 4: a jump at frame t is first heard in clip t - 4, in its last fifth."""
        corpus = corpus_at(tmp_path, fps, features)
        seen = self.seen(corpus)
        clips = corpus[0].mel_clips  # [n, 20 of 10 ms at the nominal rate, 128]
        heard = clips[:, :4].mean((1, 2)).numpy()  # the first fifth of clip i: frame i
        assert np.abs(onsets(heard) - seen).max() <= 1
        assert abs(len(clips) - (corpus.n_frames(0) - 4)) <= max(1, fps / 20)


def test_every_second_frame_is_used(tmp_path: Path) -> None:
    corpus = corpus_at(tmp_path, 24, step=5)
    assert corpus.fps == 24 and len(corpus[0].vertices) == corpus.n_frames(0) == 71
    assert onsets((corpus[0].vertices - corpus[0].template).abs().amax(1).numpy()) == pytest.approx([17, 48])


class TestClock:
    def test_frames_do_not_drift(self) -> None:
        """Every frame hears what is said within a feature's window of its own time, however long the speech is."""
        for clock in (Clock(24), Clock(29.97), Clock(60), Clock(12.5, 3)):
            n_conv = 5000
            n_frames = clock.frames_of_features(n_conv)
            assert n_frames == int(n_conv / 50 * clock.fps)
            at = clock.feature_positions(n_conv, n_frames)[:: clock.features_per_frame]
            middle = (320 * at + 200) / 16000
            assert np.abs(middle[1:-1] - np.arange(n_frames)[1:-1] / clock.fps).max() < 0.0125 + 1e-9

    def test_features_are_interpolated_at_their_time(self) -> None:
        clock = Clock(24, 2)
        features = torch.arange(100.0)[None, :, None]  # the feature is its own number
        out = resample_to_frames(features, clock)[0, :, 0].double().numpy()
        expected = (np.arange(2 * 48) / 48 * 16000 - 200) / 320
        np.testing.assert_allclose(out, expected.clip(0, 99), atol=1e-4)
        assert resample_to_frames(features, clock, 3).shape == (1, 6, 1)
        longer = resample_to_frames(features, clock, 60)[0, :, 0]  # beyond the sound: its last feature
        assert len(longer) == 120 and longer[-1] == 99

    def test_published_clocks(self) -> None:
        assert PRESETS["vocaset"].stretches and not PRESETS["biwi"].stretches and PRESETS["biwi"].whole_features
        assert clock_of("vocaset", 25) == Clock(25, 1) and clock_of("biwi", 24, 1) == Clock(24, 1)
        assert [Clock(fps).mel_rate_hz for fps in (25, 30, 29.97)] == [16000, 19200, 19181]

    @pytest.mark.parametrize("fps", [0, 9.9, 121, float("nan"), float("inf"), -30])
    def test_impossible_rates(self, fps: float) -> None:
        with pytest.raises(UserError, match="10 to 120 frames per second"):
            Clock(fps)

    def test_differences(self) -> None:
        assert Clock(30).difference(Clock(30.0)) is None and Clock(29.97).difference(Clock(30000 / 1001)) is None
        assert Clock(30).difference(Clock(29.97)) == "30 fps and 29.97 fps"
        assert Clock(25, 2).difference(Clock(25, 1)) == "2 and 1 audio features per frame"
        assert rates_alike(29.97, 30) and not rates_alike(25, 30) and not rates_alike(24, 25)


def test_an_encoder_of_another_rate_is_refused(tmp_path: Path) -> None:
    corpus = corpus_at(tmp_path, 24)
    with pytest.raises(UserError, match="run at 30 fps and 24 fps; make the encoder with fps=24"):
        SpeechToFaceEnv(corpus, MelAudioEncoder(width=4), batch_size=1)
