"""Live speech: the frames of a whole recording in the same windows, whatever blocks the sound comes in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from s2f_rl.data.audio import resample
from s2f_rl.errors import UserError
from s2f_rl.models import FaceFormer, ListenerAudioEncoder, MelAudioEncoder, Wav2Vec2AudioEncoder
from s2f_rl.models.time_norms import SoundStatistics
from s2f_rl.models.windowed_audio import WindowedEncoder, Windows, measure_sound
from s2f_rl.streaming import SpeechStream
from tests.tiny import WAV2VEC2

V, S = 7, 3


@pytest.fixture(params=["mel", "listener", "wav2vec2"])
def actor(request) -> FaceFormer:
    torch.manual_seed(0)
    made = {
        "mel": lambda: MelAudioEncoder(8, n_mels=10),
        "listener": lambda: ListenerAudioEncoder(8, n_phones=7, ear_width=6, ear_layers=2, n_mels=10),
        "wav2vec2": lambda: Wav2Vec2AudioEncoder(WAV2VEC2),
    }
    encoder = made[request.param]()
    model = FaceFormer(encoder, V, feature_dim=16, n_subjects=S)
    torch.nn.init.normal_(model.decoder.vertice_map_r.weight, std=1e-2)
    return model


def sound(seconds: float, rate: int = 16000) -> np.ndarray:
    t = np.arange(int(seconds * rate)) / rate
    rng = np.random.default_rng(0)
    loudness = np.interp(t, np.arange(0, seconds + 1, 0.1), rng.uniform(0, 0.5, len(np.arange(0, seconds + 1, 0.1))))
    return (loudness * (np.sin(800 * t) + 0.3 * np.sin(5000 * t * (1 + 0.1 * t)))).astype(np.float32)


def streamed(stream: SpeechStream, samples: np.ndarray, seed: int | None) -> torch.Tensor:
    rng, start, out = np.random.default_rng(seed), 0, []
    while start < len(samples):
        n = len(samples) if seed is None else int(rng.choice([1, rng.integers(900), rng.integers(20000)]))
        out.append(stream.push(samples[start : start + n]))
        start += n
    return torch.cat([*out, stream.finish()])


@torch.no_grad()
def test_frames_are_those_of_the_recording_in_the_same_windows(actor):
    """Features of the windows, then the actor's own ``generate`` and ``decode`` over all of them."""
    samples, template, style = sound(3.1), torch.randn(V, 3), torch.tensor([0.2, 0.8, 0.0])
    windows = WindowedEncoder(actor.audio_encoder, Windows(0.6, 1.0, 0.2), None, SoundStatistics(raw=True))
    features = torch.cat([*windows.push(torch.from_numpy(samples)), *windows.finish()])
    expected = actor.decode(actor.generate(features[None], style[None]))[0] + template.flatten()
    found = streamed(SpeechStream(actor, template, style), samples, None)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert len(found) == actor.audio_encoder.n_frames(len(samples)) and float(found.std(0).max()) > 1e-3


def test_any_blocks_make_the_same_bits(actor):
    samples, template = sound(2.3), torch.randn(3 * V)
    whole = streamed(SpeechStream(actor, template, 1, step_ms=200, memory_s=0.5), samples, None)
    for seed in range(3):
        stream = SpeechStream(actor, template, 1, step_ms=200, memory_s=0.5)
        assert torch.equal(streamed(stream, samples, seed), whole)
    assert not torch.equal(streamed(SpeechStream(actor, template, 2, step_ms=200, memory_s=0.5), samples, None), whole)
    assert actor.training  # as it was


def test_the_decoder_looks_back_as_far_as_its_memory(actor):
    """.5 s are 15 frames: the first that misses one is the sixteenth."""
    samples, template = sound(2.3), torch.zeros(3 * V)
    short, whole = (
        streamed(SpeechStream(actor, template, 1, memory_s=memory_s), samples, None) for memory_s in (0.5, None)
    )
    assert torch.equal(short[:15], whole[:15])
    assert (short[15:] != whole[15:]).any(1).all()


def test_frames_come_a_step_and_the_look_ahead_after_they_are_spoken(actor):
    stream, samples, due, n = SpeechStream(actor, torch.zeros(3 * V), 0, 200, 300), sound(3.0), [], 0
    for start in range(0, len(samples), 160):
        came = len(stream.push(samples[start : start + 160]))
        due += [(start + 160) / 16000 - frame / 30 for frame in range(n, n + came)]
        n += came
    wider = actor.audio_encoder.look_around / 50
    assert n > 60 and 0.2 < min(due) and max(due) < 0.2 + 0.3 + wider + 0.09  # the grid of features adds up to 80 ms


def test_other_rates_are_resampled(actor):
    """Near what the resampled recording makes: the ends are filtered alike but for rounding."""
    samples, template = sound(2.0, 44100), torch.zeros(3 * V)
    known = measure_sound(actor.audio_encoder, torch.from_numpy(resample(samples, 44100, 16000)), raw=True)
    options = {"rate_hz": 44100, "statistics": known}
    whole = streamed(SpeechStream(actor, template, 0, statistics=known), resample(samples, 44100, 16000), None)
    for seed in (None, 5):
        found = streamed(SpeechStream(actor, template, 0, **options), samples, seed)
        n = min(len(found), len(whole))
        assert abs(len(found) - len(whole)) <= 1
        torch.testing.assert_close(found[: n - 1], whole[: n - 1], rtol=0, atol=1e-2 * float(whole.abs().max()))


def test_nothing_is_heard(actor):
    stream = SpeechStream(actor, torch.zeros(3 * V), 0)
    assert stream.push([]).shape == (0, 3 * V) and stream.finish().shape == (0, 3 * V)


def test_mistakes(actor):
    template = torch.zeros(3 * V)
    for wrong, message in (
        ({"style": 3}, "style columns 0 to 2"),
        ({"style": torch.ones(4)}, "4 columns"),
        ({"template": torch.zeros(9)}, "7 vertices"),
        ({"step_ms": 0}, "step_ms=0: give a step above 0"),
        ({"step_ms": float("inf")}, "step_ms=inf"),
        ({"look_ahead_ms": -1}, "look_ahead_ms=-1: give 0 or more"),
        ({"context_ms": float("nan")}, "context_ms=nan"),
        ({"memory_s": 0}, "memory_s=0: give seconds above 0"),
        ({"rate_hz": 1000}, "4000 to 384000"),
    ):
        with pytest.raises(UserError, match=message):
            SpeechStream(actor, **{"template": template, "style": 0, **wrong})
    stream = SpeechStream(actor, template, 0)
    for samples in (np.zeros((2, 5)), [0.0, float("nan")], [0.0, -1e30]):
        with pytest.raises(UserError, match="one row of finite numbers"):
            stream.push(samples)
    stream.finish()
    with pytest.raises(UserError, match="has ended"):
        stream.push(np.zeros(5))
