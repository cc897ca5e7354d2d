"""The mel encoder, cached features, and actor checkpoints, good and hostile."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from tiny import make_tiny_corpus
from transformers.audio_utils import mel_filter_bank

from s2f_rl.data import FaceCorpus
from s2f_rl.data.audio import conv_frames
from s2f_rl.errors import UserError
from s2f_rl.models import FaceFormer, MelAudioEncoder, build_audio_encoder
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.checkpoint import actor_payload, load_actor


@pytest.fixture(params=["vocaset", "biwi"])
def actor(request):
    torch.manual_seed(0)
    model = FaceFormer(MelAudioEncoder(width=12, topology=request.param), 8, feature_dim=16, n_subjects=3)
    torch.nn.init.normal_(model.decoder.vertice_map_r.weight, std=1e-3)
    return model.eval()


class TestMelEncoder:
    @pytest.mark.parametrize("n_samples", [1700, 16000, 16159, 16160, 16161, 23457])
    def test_frame_count(self, actor, n_samples):
        """As many 50 Hz features and frames as wav2vec2 would give."""
        encoder = actor.audio_encoder
        wave = torch.randn(2, n_samples)
        assert encoder.conv_features(wave).shape[1] == conv_frames(n_samples)
        frames = encoder.clock.natural_frames(n_samples)
        assert encoder(wave).shape == (2, frames * encoder.features_per_frame, 12)
        assert encoder.n_frames(n_samples) == frames

    def test_log_mel_against_a_direct_transform(self, actor):
        """Frame k of the 100 Hz spectrum is the windowed DFT of samples 160k + (0..511), window centred."""
        encoder = actor.audio_encoder
        wave = torch.randn(1, 8000)
        window = np.zeros(512)
        window[56:456] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
        filters = encoder.mel_filters.numpy().astype(np.float64)
        rows = []
        padded = np.concatenate([wave[0].numpy(), np.zeros(160)])
        for k in range((len(padded) - 512) // 160 + 1):
            power = np.abs(np.fft.rfft(padded[160 * k : 160 * k + 512] * window)) ** 2
            rows.append(np.log(np.maximum(power @ filters, 1e-6)))
        rows += [rows[-1]] * (2 * conv_frames(8000) - len(rows))
        mel = np.stack(rows)[: 2 * conv_frames(8000)]
        mel = (mel - mel.mean(0)) / (mel.std(0) + 1e-2)
        ours = encoder.conv_features(wave)[0].reshape(-1, 40).numpy()
        assert np.abs(ours - mel).max() < 2e-3

    @pytest.mark.parametrize("n_mels", [1, 8, 40, 80])
    def test_filters_against_another_implementation(self, n_mels):
        """To the last bit of float32, so that weights trained with transformers' filters hear the same."""
        bank = mel_filter_bank(257, n_mels, 40.0, 7600.0, 16000, norm="slaney", mel_scale="slaney")
        ours = MelAudioEncoder(width=8, n_mels=n_mels).mel_filters
        assert torch.equal(ours, torch.from_numpy(bank).float())

    def test_gain_does_not_matter(self, actor):
        wave = torch.randn(1, 8000)
        torch.testing.assert_close(actor.audio_encoder(wave), actor.audio_encoder(3 * wave), atol=1e-3, rtol=1e-3)

    def test_mistakes(self, actor):
        with pytest.raises(UserError, match="too short"):
            actor.audio_encoder(torch.randn(1, 300))
        with pytest.raises(UserError, match="kind='whisper'"):
            build_audio_encoder("whisper")
        with pytest.raises(UserError, match="wdth"):
            build_audio_encoder("mel", wdth=3)
        with pytest.raises(UserError, match="pretrained=/nowhere"):
            build_audio_encoder("wav2vec2", pretrained="/nowhere")


def test_predict_rows_are_independent(actor):
    """A padded row gives what it gives alone; frames after its end hold the template. Meshes as [V*3] or [V, 3]."""
    wave, template, style = torch.randn(2, 16000), torch.randn(2, 24), torch.eye(3)[:2]
    out = actor.predict(wave, template, style, lengths=[16000, 9000])
    alone = actor.predict(wave[1:, :9000], template[1:], style[1:])
    torch.testing.assert_close(out[1, : alone.shape[1]], alone[0], atol=1e-6, rtol=1e-5)
    assert torch.equal(out[1, alone.shape[1] :], template[1].expand(out.shape[1] - alone.shape[1], -1))
    torch.testing.assert_close(actor.predict(wave, template.view(2, 8, 3), style, [16000, 9000]), out)
    with pytest.raises(UserError, match="lengths"):
        actor.predict(wave, template, style, lengths=[16000, 20000])
    with pytest.raises(UserError, match="style has 2 columns"):
        actor.predict(wave, template, style[:, :2])
    with pytest.raises(UserError, match="template has shape"):
        actor.predict(wave, template[:, :21], style)


def test_no_frame_ceiling(actor):
    """Beyond the reference's 600 frames, step mode and sequence mode still agree."""
    a = actor.audio_encoder.features_per_frame
    audio, style = torch.randn(1, 700, a, 12), torch.eye(3)[:1]
    with torch.no_grad():
        latent = actor.generate(audio, style)
        torch.testing.assert_close(actor.decoder.sequence(latent, audio, style), latent, atol=2e-5, rtol=1e-4)


class TestCachedAudio:
    @pytest.fixture
    def corpus(self, tmp_path):
        return FaceCorpus(make_tiny_corpus(tmp_path / "c"), split="all")

    def test_memory_and_disk(self, corpus, tmp_path):
        encoder = MelAudioEncoder(width=12)
        cold = CachedAudio(encoder, corpus, tmp_path / "cache")
        features = cold.get(1)
        u = corpus[1]
        with torch.no_grad():
            expected = encoder.eval()(u.waveform[None])[0].unsqueeze(1)[: corpus.n_frames(1)]
        torch.testing.assert_close(features, expected)
        assert cold.get(1) is features
        (path,) = (tmp_path / "cache").glob("*.npy")
        np.save(path, features.numpy() + 1)  # proves that a second cache reads the file
        torch.testing.assert_close(CachedAudio(encoder, corpus, tmp_path / "cache").get(1), features + 1)
        path.write_bytes(b"\x93NUMPY broken")
        torch.testing.assert_close(CachedAudio(encoder, corpus, tmp_path / "cache").get(1), features)
        torch.testing.assert_close(torch.from_numpy(np.load(path)), features)  # mended

    def test_what_a_killed_process_left_goes(self, corpus, tmp_path):
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / ".audio-0-0-1.000000000000.tmp.npy").touch()
        CachedAudio(MelAudioEncoder(width=8), corpus, tmp_path / "cache")
        assert list((tmp_path / "cache").iterdir()) == []

    def test_other_weights_other_key(self, corpus, tmp_path):
        one, other = MelAudioEncoder(width=12), MelAudioEncoder(width=12)
        a = CachedAudio(one, corpus, tmp_path).get(0)
        b = CachedAudio(other, corpus, tmp_path).get(0)
        assert not torch.allclose(a, b)

    def test_a_folder_that_cannot_be(self, corpus, tmp_path):
        """Told before a run begins, not for every utterance of it."""
        (tmp_path / "file").touch()
        for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
            with pytest.raises(UserError, match=f"{folder}: no folder.*corpus.cache"):
                CachedAudio(MelAudioEncoder(width=8), corpus, folder)

    def test_bounded(self, corpus):
        cache = CachedAudio(MelAudioEncoder(width=12), corpus, max_megabytes=1e-6)
        for i in range(3):
            cache.get(i)
        assert [i in cache._memory for i in range(3)] == [False, False, True]


class TestCheckpoint:
    def test_round_trip(self, actor, tmp_path):
        torch.save({"actor": actor_payload(actor, ["a", "b", "c"], units="metres")}, tmp_path / "best.pt")
        again, about = load_actor(tmp_path)  # a folder means its best.pt
        assert about["subjects"] == ["a", "b", "c"] and about["units"] == "metres"
        x = torch.randn(1, 8000), torch.randn(1, 24), torch.eye(3)[:1]
        assert torch.equal(again.predict(*x), actor.predict(*x))

    def test_hostile(self, actor, tmp_path):
        class Evil:
            def __reduce__(self):
                return (eval, ("open('/tmp/s2f_rl_pwned', 'w')",))

        payload = actor_payload(actor, ["a", "b", "c"])
        files = {
            "missing.pt": None,
            "code.pt": pickle.dumps(Evil()),
            "empty.pt": b"",
            "text.pt": b"hello",
        }
        for name, content in files.items():
            if content is not None:
                (tmp_path / name).write_bytes(content)
            with pytest.raises(UserError, match=name):
                load_actor(tmp_path / name)
        torch.save({"actor": {**payload, "state_dict": {}}}, tmp_path / "hollow.pt")
        torch.save({"actor": {**payload, "format": 99}}, tmp_path / "newer.pt")
        torch.save([1, 2], tmp_path / "list.pt")
        torch.save(
            {"actor": {**payload, "config": {**payload["config"], "audio": {"kind": "x"}}}}, tmp_path / "kind.pt"
        )
        whole = tmp_path / "whole.pt"
        torch.save({"actor": payload}, whole)
        (tmp_path / "cut.pt").write_bytes(whole.read_bytes()[:2000])
        for name in ("hollow.pt", "newer.pt", "list.pt", "kind.pt", "cut.pt"):
            with pytest.raises(UserError):
                load_actor(tmp_path / name)

    def test_published_weights(self, tmp_path):
        from golden_faceformer import load

        _, model, inputs, state = load("vocaset")
        torch.save(state, tmp_path / "vocaset.pth")
        again, about = load_actor(tmp_path / "vocaset.pth", "vocaset", model.audio_encoder.config()["config"])
        assert about == {} and torch.equal(again.predict(*inputs), model.predict(*inputs))
        for wrong, kind in ((lambda w: w.long(), "int64"), (lambda w: w + 1j, "complex64")):
            torch.save(
                {**state, "audio_feature_map.weight": wrong(state["audio_feature_map.weight"])}, tmp_path / "w.pth"
            )
            with pytest.raises(
                UserError, match=f"w.pth: .*audio_feature_map.weight' holds {kind}, expected dense floats"
            ):
                load_actor(tmp_path / "w.pth", "vocaset", model.audio_encoder.config()["config"])
