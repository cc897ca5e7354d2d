"""Films are written and decoded again."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile
import torch

from s2f_rl.errors import UserError
from s2f_rl.render import render_film, render_frames
from s2f_rl.render.camera import frame_camera
from s2f_rl.render.mp4 import write_mp4
from s2f_rl.render.sound import fit_sound, load_sound

SIZE = 32


def read(path):
    """Pictures [T, H, W, 3], their times, waveform [N] on the film's clock, its rate."""
    with av.open(str(path)) as film:
        frames = list(film.decode(video=0))
        rate_v = film.streams.video[0].average_rate
        tracks = len(film.streams.audio)
    pictures = np.stack([f.to_ndarray(format="rgb24") for f in frames])
    times = [float(f.pts * f.time_base) for f in frames]
    if not tracks:
        return pictures, times, rate_v, None, 0
    with av.open(str(path)) as film:
        assert film.streams.audio[0].layout.name == "mono"
        rate = film.streams.audio[0].rate
        parts = [(round(float(f.pts * f.time_base) * rate), f.to_ndarray()[0]) for f in film.decode(audio=0)]
    waveform = np.zeros(max(at + len(part) for at, part in parts), np.float32)
    for at, part in parts:
        waveform[max(0, at) : at + len(part)] = part[max(0, -at) :]
    return pictures, times, rate_v, waveform, rate


def click(rate: int, seconds: float, at: float) -> np.ndarray:
    waveform = np.zeros(round(rate * seconds), np.float32)
    start = round(at * rate)
    waveform[start : start + rate // 200] = 0.8 * np.sin(2 * np.pi * 1000 * np.arange(rate // 200) / rate)
    return waveform


@pytest.mark.parametrize("rate", [8000, 16000, 19200, 22050, 44100])
def test_sound_is_in_sync_and_as_long_as_the_picture(tmp_path, sphere, motion, rate):
    sequence = np.concatenate([motion] * 6)  # 30 frames, 1 s
    sound = (click(rate, 0.8, 0.5), rate)
    path = render_film([sequence], None, sphere[1], sound, 30, tmp_path / "a.mp4", SIZE, samples=1)
    pictures, times, fps, waveform, film_rate = read(path)
    assert pictures.shape == (30, SIZE, SIZE, 3) and fps == 30
    np.testing.assert_allclose(times, np.arange(30) / 30, atol=1e-3)
    assert film_rate == (rate if rate != 19200 else 48000)
    assert len(waveform) / film_rate == pytest.approx(1.0, abs=1024 / film_rate)  # AAC comes in blocks
    onset = np.flatnonzero(np.abs(waveform) > 0.3)[0] / film_rate
    assert onset == pytest.approx(0.5, abs=0.004)
    assert np.abs(waveform[int(0.85 * film_rate) :]).max() < 0.01


@pytest.mark.parametrize(("seconds", "word"), [(2.0, "cut"), (0.5, "followed by silence"), (1.1, None), (0.9, None)])
def test_sound_of_another_length_is_told(tmp_path, sphere, motion, caplog, seconds, word):
    sequences = [np.concatenate([motion] * 6), motion]  # 30 frames, 1 s
    sound = (click(16000, seconds, 0.1), 16000)
    render_film(sequences, None, sphere[1], sound, 30, tmp_path / "a.mp4", SIZE, samples=1)
    expected = f"a.mp4: 30 frames of motion, the sound lasts {round(30 * seconds)} at 30 fps: it is {word}; "
    assert [expected in record.message for record in caplog.records] == ([] if word is None else [True])


def test_loudness_survives(tmp_path, sphere, motion):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(22050) / 22050)
    path = render_film([np.concatenate([motion] * 6)], None, sphere[1], (tone, 22050), 30, tmp_path / "a.mp4", SIZE)
    waveform = read(path)[3]
    assert np.sqrt((waveform[2000:20000] ** 2).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.03)  # stereo: -3 dB


def test_pictures_survive_and_short_sequences_hold_their_last_frame(tmp_path, sphere, motion):
    faces = sphere[1]
    path = render_film(
        [motion, torch.tensor(motion[:2].reshape(2, -1))], ["one", "two"], faces, None, 25, tmp_path / "a.mp4", 64
    )
    pictures, times, fps, waveform, _ = read(path)
    assert waveform is None and fps == 25 and pictures.shape == (5, 64 + 12, 128, 3)
    expected = render_frames(motion, faces, 64, frame_camera([motion, motion[:2]]))
    left, right = pictures[:, 12:, :64].astype(int), pictures[:, 12:, 64:].astype(int)
    assert np.abs(left - expected).mean() < 4 and np.abs(right[1] - expected[1]).mean() < 4
    assert np.abs(right[4] - expected[1]).mean() < 4 < np.abs(right[4] - expected[4]).mean()


@pytest.mark.parametrize("size, fps", [(33, 30), (47, 25), (32, 29.97), (32, Fraction(60000, 1001))])
def test_odd_sizes_and_any_frame_rate(tmp_path, sphere, motion, size, fps):
    path = render_film([motion], None, sphere[1], None, fps, tmp_path / "a.mp4", size, samples=1)
    pictures, times, rate, _, _ = read(path)
    assert pictures.shape == (5, size + size % 2, size + size % 2, 3)
    assert float(rate) == pytest.approx(float(fps), rel=1e-4)
    np.testing.assert_allclose(times, np.arange(5) / float(fps), atol=1e-3)


def test_sound_files_of_several_channels(tmp_path, sphere, motion):
    soundfile.write(tmp_path / "a.wav", np.stack([click(16000, 1, 0.05)] * 2, 1), 16000)
    path = render_film([motion], None, sphere[1], tmp_path / "a.wav", 30, tmp_path / "sub" / "a.mp4", SIZE, samples=1)
    _, _, _, waveform, rate = read(path)
    assert len(waveform) / rate == pytest.approx(5 / 30, abs=1024 / rate)
    assert np.abs(waveform).max() > 0.3


def test_a_failure_leaves_the_old_film_and_no_rubbish(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")

    def pictures():
        yield np.zeros((32, 32, 3), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_mp4(path, pictures(), Fraction(30))
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_mistakes(tmp_path, sphere, motion):
    faces, out = sphere[1], tmp_path / "a.mp4"
    good = {"sequences": [motion], "captions": None, "faces": faces, "audio": None, "fps": 30, "out": out, "size": SIZE}
    for change, message in (
        ({"out": tmp_path / "a.avi"}, "a.avi: films are written as mp4"),
        ({"captions": ["a", "b"]}, "2 captions for 1 sequences"),
        ({"fps": 0}, "fps is 0"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"fps": "fast"}, "fps is fast"),
        ({"sequences": []}, "no sequences"),
        ({"columns": 0}, "columns is 0"),
        ({"size": 9}, "size is 9"),
        ({"sequences": [motion, motion[:, 1:]]}, "sequence 1: has 191 vertices"),
        ({"audio": tmp_path / "no.wav"}, "no.wav: no such file"),
        ({"audio": 5}, "audio: pass a sound file"),
        ({"audio": (np.zeros((2, 9)), 16000)}, "audio: waveform of shape"),
        ({"audio": (np.zeros(0), 16000)}, "audio: waveform of shape"),
        ({"audio": (np.full(9, np.nan), 16000)}, "not finite"),
        ({"audio": (np.zeros(9), 3)}, "rate of 3 Hz"),
    ):
        with pytest.raises(UserError, match=message):
            render_film(**{**good, **change})
    assert list(tmp_path.iterdir()) == []


def test_load_sound_scales_what_is_too_loud():
    waveform, rate = load_sound((np.array([0, 16384, -32768], np.int16), 16000))
    np.testing.assert_allclose(waveform, [0, 0.5, -1])
    np.testing.assert_allclose(load_sound((torch.tensor([0.0, 4.0, -2.0]), 16000))[0], [0, 1, -0.5])
    np.testing.assert_allclose(load_sound((np.array([0.25, -0.5]), 16000))[0], [0.25, -0.5])


def test_fit_sound_cuts_and_pads():
    ramp = np.linspace(0, 1, 16000, dtype=np.float32)
    cut, rate = fit_sound(ramp, 16000, 15, Fraction(30))
    assert rate == 16000 and len(cut) == 8000 and (cut == ramp[:8000]).all()
    padded, _ = fit_sound(ramp, 16000, 60, Fraction(30))
    assert len(padded) == 32000 and (padded[:16000] == ramp).all() and (padded[16000:] == 0).all()
    assert len(fit_sound(ramp, 19200, 1001, Fraction(30000, 1001))[0]) == round(1001 * 1001 / 30000 * 48000)


@pytest.mark.parametrize("fps", [10, 24, 25, 29.97, 30, 50, 60, 120])
def test_a_jump_of_the_face_is_seen_when_its_click_is_heard(tmp_path, sphere, fps):
    """At any rate of a corpus, and after a quarter of a minute: nothing drifts."""
    seconds, at = 15.0, 14.0
    still = np.repeat(sphere[0][None].astype(np.float32), int(seconds * fps), axis=0)
    still[int(at * fps) :] += [0.3 * np.ptp(sphere[0]), 0, 0]
    sound = (click(16000, seconds, at), 16000)
    path = render_film([still], None, sphere[1], sound, fps, tmp_path / "a.mp4", SIZE, samples=1)
    pictures, times, _, waveform, rate = read(path)
    changes = np.abs(np.diff(pictures.astype(int), axis=0)).mean((1, 2, 3))
    seen, heard = times[int(changes.argmax()) + 1], np.flatnonzero(np.abs(waveform) > 0.3)[0] / rate
    assert seen == pytest.approx(at, abs=1 / fps) and heard == pytest.approx(at, abs=0.005)
    assert abs(seen - heard) < 1 / fps + 0.005
