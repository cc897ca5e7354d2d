"""Windows of audio features: against one pass, against slices of it, and the same bits for any blocks of sound."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from s2f_rl.data.audio import conv_frames, normalise
from s2f_rl.errors import UserError
from s2f_rl.models import FaceFormer, ListenerAudioEncoder, MelAudioEncoder, Wav2Vec2AudioEncoder, windowed_audio
from s2f_rl.models.audio_encoders import resample_to_frames
from s2f_rl.models.latent_stream import LatentStream, can_stream, stream_latents
from s2f_rl.models.time_norms import BandNorm, RunningMoments, SoundStatistics
from s2f_rl.models.windowed_audio import WindowedEncoder, Windows, encode_in_windows, encode_long, measure_sound
from tests.tiny import WAV2VEC2

SAMPLES = 16000 * 3 + 77
CLOCKS = [{}, {"topology": "biwi"}, {"fps": 24.0}, {"fps": 120.0}]


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch):
    """Convolutions in pieces of .8 s, so that three seconds are several."""
    monkeypatch.setattr(windowed_audio, "_PIECE", 40)


def encoder_of(kind: str, **clock):
    torch.manual_seed(0)
    made = {
        "mel": lambda: MelAudioEncoder(8, n_mels=10, **clock),
        "listener": lambda: ListenerAudioEncoder(8, n_phones=7, ear_width=6, ear_layers=3, n_mels=10, **clock),
        "wav2vec2": lambda: Wav2Vec2AudioEncoder(WAV2VEC2, **clock),
    }
    return made[kind]().eval().double()


def sound(n: int = SAMPLES, seed: int = 1) -> torch.Tensor:
    """Noise that grows louder, zero mean and unit variance, float64."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, generator=generator, dtype=torch.float64) * torch.linspace(0.1, 3, n, dtype=torch.float64)
    return (x - x.mean()) / x.std(correction=0)


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10 * float(theirs.abs().max()))


def cut(samples, seed: int):
    """Random blocks, some of them empty and some of seconds."""
    rng, start = np.random.default_rng(seed), 0
    while start < len(samples):
        n = int(rng.choice([0, 1, rng.integers(700), rng.integers(40000)]))
        yield samples[start : start + n]
        start += n


class TestAgainstOnePass:
    @pytest.mark.parametrize("clock", CLOCKS)
    @pytest.mark.parametrize("seconds", [(30.0, 0.0, 0.0), (0.5, 1.0, 1.0), (0.1, 1.0, 1.0)])
    @pytest.mark.parametrize("kind", ["mel", "listener"])
    @torch.no_grad()
    def test_windows_beyond_the_reach_of_the_encoder_are_exact(self, kind, clock, seconds):
        encoder, x = encoder_of(kind, **clock), sound()
        close(torch.cat(list(encode_in_windows(encoder, x, Windows(*seconds)))).flatten(0, 1), encoder(x[None])[0])

    @pytest.mark.parametrize("clock", CLOCKS)
    @torch.no_grad()
    def test_one_window_of_wav2vec2_is_exact(self, clock):
        """Convolutions in pieces, the moments of the group norm over all of them."""
        encoder, x = encoder_of("wav2vec2", **clock), sound()
        close(torch.cat(list(encode_in_windows(encoder, x, Windows(9, 0, 0)))).flatten(0, 1), encoder(x[None])[0])

    @pytest.mark.parametrize("kind", ["mel", "listener", "wav2vec2"])
    @pytest.mark.parametrize("clock", CLOCKS)
    @torch.no_grad()
    def test_a_window_sees_its_slice_of_the_features(self, kind, clock):
        encoder, x = encoder_of(kind, **clock), sound()
        features = resample_to_frames(encoder.conv_features(x[None]), encoder.clock)
        per_frame = encoder.features_per_frame
        step, before, after = (round(s * encoder.clock.fps) for s in (0.7, 0.4, 0.2))
        expected, n_frames = [], features.shape[1] // per_frame
        for start in range(0, n_frames, step):
            first, end, last = max(0, start - before), min(start + step, n_frames), start + step + after
            hidden = encoder.contextualise(features[:, first * per_frame : last * per_frame])
            expected.append(hidden[0, (start - first) * per_frame : (end - first) * per_frame])
        close(torch.cat(list(encode_in_windows(encoder, x, Windows(0.7, 0.4, 0.2)))).flatten(0, 1), torch.cat(expected))

    @pytest.mark.parametrize("kind", ["mel", "listener"])
    @torch.no_grad()
    def test_the_last_windows_see_nothing_beyond_the_last_frame(self, kind):
        """Whatever the length: a window is not complete before all its frames are sure to be some."""
        encoder = encoder_of(kind, fps=24.0)
        for n in range(12000, 13400, 160):
            x = sound(n)
            features, stream = encoder.conv_features(x[None])[0], WindowedEncoder(encoder, Windows(0.125, 0.25, 0.25))
            stream.statistics = measure_sound(encoder, x)
            found = torch.cat([window for part in x.split(160) for window in stream.push(part)] + stream.finish())[:, 0]
            position = (torch.arange(encoder.n_frames(n), dtype=torch.float64) * (50 / 24) - 0.625).clamp_min(0)
            before = position.long()
            after = (before + 1).clamp_max(len(features) - 1)
            between = features[before].lerp(features[after], (position - before)[:, None])
            slices = [between[max(0, start - 6) : start + 9] for start in range(0, len(position), 3)]
            expected = [
                encoder.contextualise(part[None])[0, min(6, 3 * k) : min(6, 3 * k) + 3] for k, part in enumerate(slices)
            ]
            close(found, torch.cat(expected))

    @torch.no_grad()
    def test_without_an_end_in_sight_frames_lie_at_their_own_time(self):
        encoder, x = encoder_of("mel"), sound()
        live = WindowedEncoder(encoder, Windows(0.5, 1.0, 1.0), statistics=measure_sound(encoder, x))
        found = torch.cat([*live.push(x), *live.finish()])[:, 0]
        features = encoder.conv_features(x[None])[0]
        position = torch.arange(len(found), dtype=torch.float64) * 5 / 3
        before = position.long()
        between = features[before].lerp(features[before + 1], (position - before)[:, None])
        close(found, encoder.contextualise(between[None])[0])
        assert len(found) == encoder.n_frames(len(x))


class TestBlocks:
    @pytest.mark.parametrize(
        "kind, clock", [("mel", {}), ("wav2vec2", {}), ("wav2vec2", CLOCKS[1]), ("mel", CLOCKS[2]), ("listener", {})]
    )
    @pytest.mark.parametrize("fixed", [True, False])
    @torch.no_grad()
    def test_any_blocks_make_the_same_bits(self, kind, clock, fixed):
        encoder, x = encoder_of(kind, **clock).float(), sound().float()
        found = []
        for seed in range(4):
            statistics = measure_sound(encoder, x, raw=True) if fixed else SoundStatistics(raw=True)
            stream = WindowedEncoder(encoder, Windows(0.3, 0.5, 0.2), None, statistics)
            out = [window for block in (cut(x, seed) if seed else [x]) for window in stream.push(block)]
            found.append(torch.cat(out + stream.finish()))
        assert len(found[0]) == encoder.n_frames(len(x))
        for other in found[1:]:
            assert torch.equal(found[0], other)

    @pytest.mark.parametrize("n", [0, 399, 400, 1000, 1500, 12345])
    @pytest.mark.parametrize("kind", ["mel", "listener"])
    @torch.no_grad()
    def test_any_length_has_its_frames(self, kind, n):
        encoder = encoder_of(kind)
        stream = WindowedEncoder(encoder, Windows(0.2, 0.2, 0.1), None, SoundStatistics(raw=True))
        windows = [w for block in cut(sound(12345)[:n], n) for w in stream.push(block)] + stream.finish()
        assert sum(map(len, windows)) == encoder.n_frames(n)

    @torch.no_grad()
    def test_nothing_is_heard_beyond_the_look_ahead(self):
        """Other sound from sample n on leaves the frames alone that were out by then; one more block changes some."""
        encoder = encoder_of("wav2vec2")
        windows, x, y = Windows(0.3, 0.5, 0.2), sound(), sound(seed=2)
        known = measure_sound(encoder, x, raw=True)
        for n in (16000, 29000):
            streams = [WindowedEncoder(encoder, windows, None, known) for _ in range(2)]
            early = torch.cat(streams[0].push(x[:n]))
            late = sum(len(w) for w in streams[1].push(x[:n]))
            rest = torch.cat(streams[1].push(torch.cat([y[n:], y])))
            assert late == len(early) and len(rest)
            assert n / 16000 - len(early) / 30 < 0.3 + 0.2 + 0.06 + 1 / 30  # a feature is heard 45 ms later


class TestStatistics:
    def test_moments_of_pieces(self):
        x, moments = torch.randn(5, 1000, dtype=torch.float64) * 3 + 7, RunningMoments()
        for part in x.split([1, 0, 400, 599], dim=1):
            moments.add(part)
        torch.testing.assert_close(moments.mean, x.mean(1), rtol=1e-13, atol=0)
        torch.testing.assert_close(moments.variance, x.var(1, correction=0), rtol=1e-12, atol=0)
        assert moments.n == 1000

    @pytest.mark.parametrize("kind", ["mel", "wav2vec2"])
    @torch.no_grad()
    def test_of_a_whole_recording(self, kind):
        """What reaches the norm in one pass, and mean and variance of the samples."""
        encoder, x, seen = encoder_of(kind), 5 * sound() + 2, []
        norm = encoder.band_norm if kind == "mel" else encoder.model.feature_extractor.conv_layers[0].layer_norm
        handle = norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0]))
        encoder.conv_features(torch.from_numpy(normalise(x.numpy()).astype(np.float64))[None])
        handle.remove()
        given = seen[0].T if kind == "mel" else seen[0]
        found = measure_sound(encoder, x, raw=True)
        assert found.fixed and found.norm.n == given.shape[1] and found.waveform.n == len(x)
        torch.testing.assert_close(found.norm.mean, given.mean(1), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.norm.variance, given.var(1, correction=0), rtol=1e-5, atol=0)
        torch.testing.assert_close(found.waveform.variance, x.var(correction=0)[None], rtol=1e-12, atol=0)

    @torch.no_grad()
    def test_of_the_sound_so_far(self):
        """Every piece is normalised by itself and all before it: by hand, with bands left alone."""
        encoder, bare, x = encoder_of("mel"), encoder_of("mel"), 0.2 * sound() + 0.1
        bare.band_norm = nn.Identity()
        stream = WindowedEncoder(encoder, Windows(0.4, 0.0, 0.2), None, SoundStatistics(raw=True))
        pieces = []
        convolve = encoder.conv_features
        encoder.conv_features = lambda waveform: pieces.append(convolve(waveform)) or pieces[-1]
        stream.push(x)
        start, heard, bands = 0, [], []
        for piece in pieces:
            own = piece.shape[1] - 1
            samples = x[320 * start : 320 * (start + own) + 400]
            heard.append(samples[: 320 * own])
            so_far = torch.cat(heard)
            mel = bare.conv_features(((samples - so_far.mean()) / (so_far.var(correction=0) + 1e-7).sqrt())[None])
            bands.append(mel[0, :own].reshape(2 * own, 10))
            known = torch.cat(bands)
            expected = (bands[-1] - known.mean(0)) / (known.std(0, correction=0) + 1e-2)
            close(piece[0, :own], expected.reshape(own, 20))
            start += own
        assert len(pieces) > 4

    def test_a_band_norm_is_what_it_says(self):
        x = torch.randn(2, 50, 3, dtype=torch.float64) * 4 + 1
        expected = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0).sqrt() + 0.01)
        torch.testing.assert_close(BandNorm()(x), expected)


class TestWhenWindowsAreUsed:
    @pytest.fixture
    def long(self, monkeypatch):
        monkeypatch.setattr(windowed_audio, "LONG", Windows(1.0, 0.1, 0.1))

    @torch.no_grad()
    def test_short_sound_has_the_same_bits(self):
        encoder, x = encoder_of("wav2vec2").float(), sound().float()[None]
        assert torch.equal(encode_long(encoder, x), encoder(x))

    def test_only_without_gradient_in_evaluation_at_natural_length(self, long):
        encoder, x = encoder_of("wav2vec2"), sound()[None].repeat(2, 1)
        whole = encoder(x).detach()
        with torch.no_grad():
            windows = encode_long(encoder, x)
            assert windows.shape == whole.shape and not torch.equal(windows, whole)
            assert 1e-4 < float((windows - whole).abs().mean() / whole.abs().mean()) < 0.1
            close(encode_long(encoder, x, 90), encoder(x, 90))
            close(encode_long(encoder, x[:, :16000]), encoder(x[:, :16000]))
            encoder.windowed = False
            close(encode_long(encoder, x), whole)
            encoder.windowed = True
        close(encode_long(encoder, x), whole)
        encoder.train().spec_augment = False
        with torch.no_grad():
            torch.manual_seed(0)
            first = encode_long(encoder, x)
            torch.manual_seed(0)
            assert torch.equal(first, encoder(x))
            list(encode_in_windows(encoder, x[0], windowed_audio.LONG))
        assert encoder.training and not any(module._forward_hooks for module in encoder.modules())

    def test_predict_and_stream_agree(self, long):
        torch.manual_seed(0)
        actor = FaceFormer(encoder_of("mel"), 5, feature_dim=16, n_subjects=2).double()
        torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=1e-2)
        x, template, style = sound(), torch.randn(15, dtype=torch.float64), torch.eye(2, dtype=torch.float64)[1]
        found = torch.cat(list(stream_latents(actor, x, style, windowed_audio.LONG)))
        predicted = actor.predict(x[None], template[None], style[None])[0]
        close(actor.decode(found).detach() + template, predicted)
        assert len(predicted) == actor.audio_encoder.n_frames(len(x)) and float(found.std(0).max()) > 1e-3

    def test_what_cannot_be_streamed_says_so(self):
        actor = FaceFormer(encoder_of("mel"), 5)
        actor.audio_encoder.windowed = False
        assert not can_stream(actor)
        with pytest.raises(UserError, match="needs whole utterances"):
            LatentStream(actor, torch.zeros(8), Windows(1, 1, 1))
        with pytest.raises(UserError, match="sound in pieces"):
            WindowedEncoder(actor.audio_encoder, Windows(1, 1, 1))

    def test_mistakes(self):
        encoder = encoder_of("mel")
        with pytest.raises(UserError, match="step above 0"):
            Windows(0, 1, 1)
        stream = WindowedEncoder(encoder, Windows(1, 1, 1), n_samples=1000)
        stream.push(sound(999))
        with pytest.raises(UserError, match="999 samples at 16 kHz, 1000"):
            stream.finish()
        stream.push(sound(999)[:1])
        stream.finish()
        with pytest.raises(UserError, match="has ended"):
            stream.push(sound(10))
        assert conv_frames(1000) == 2
