"""Coarticulation and hidden variation: phones to motion, without any speech synthesiser."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from s2f_rl.data.synthetic import coarticulation
from s2f_rl.data.synthetic.coarticulation import articulate, closure_curve, generate, speech_curves
from s2f_rl.data.synthetic.hidden import MAX_LAG_S, Hidden
from s2f_rl.data.synthetic.phones import BILABIALS, PHONES, from_espeak
from s2f_rl.data.synthetic.rig import A
from s2f_rl.data.synthetic.sentences import (
    MAX_SENTENCES,
    N_SHARED_POOL,
    SENTENCES,
    first_unseen,
    sentence_text,
)
from s2f_rl.data.synthetic.speakers import Speaker, make_speaker
from s2f_rl.data.synthetic.visemes import SPEECH_ARTICULATORS, gestures
from s2f_rl.errors import UserError

PHONE_LIST = "sil b aa b uw m iy f ah p eh w ao m b aa v ih s t er sil".split()
LENGTHS = np.resize([0.09, 0.07, 0.12, 0.05, 0.15], len(PHONE_LIST))
ENDS = 0.1 + np.cumsum(LENGTHS)
PHONES_SAID = [
    (p, float(e - n) if k else 0.0, float(e)) for k, (p, e, n) in enumerate(zip(PHONE_LIST, ENDS, LENGTHS, strict=True))
]
DURATION = PHONES_SAID[-1][2]
N_FRAMES = int(DURATION * 60)


@pytest.fixture(scope="module")
def cast() -> list[Speaker]:
    return [make_speaker(i, 0, 320) for i in range(12)]


def _sample(seed: int, speaker: Speaker, scale: float = 1.0) -> Hidden:
    style = speaker.style
    rng = np.random.default_rng(seed)
    n = len(PHONES_SAID)
    return Hidden.sample(rng, n, DURATION, style.blink_hz, style.brow_hz, style.brow_height, scale)


def _lip_distance_mm(speaker: Speaker, displacement: np.ndarray) -> np.ndarray:
    v = speaker.face.template_mm + 1000 * displacement.reshape(len(displacement), -1, 3)
    return np.linalg.norm(v[:, speaker.rig.upper_lip] - v[:, speaker.rig.lower_lip], axis=-1)


def _rest_mm(speaker: Speaker) -> float:
    t = speaker.face.template_mm
    return float(np.linalg.norm(t[speaker.rig.upper_lip] - t[speaker.rig.lower_lip]))


class TestDominance:
    def test_against_the_plain_formula(self, cast: list[Speaker]) -> None:
        """Cohen and Massaro's sum, one term at a time."""
        style, times = cast[0].style, np.array([0.0, 0.31, 0.77, 1.2])
        phones = [("sil", 0.0, 0.2), ("aa", 0.2, 0.4), ("oy", 0.4, 0.8), ("s", 0.8, 1.3)]
        undershoot, lags = np.array([1.0, 0.8, 1.1, 0.9]), np.linspace(-0.03, 0.03, 8)
        found = speech_curves(times, phones, style, undershoot, lags)
        for i, t in enumerate(times):
            for p in range(8):
                above = below = 0.0
                for k, (phone, start, end) in enumerate(phones):
                    parts = gestures()[phone]
                    for j, gesture in enumerate(parts):
                        length = (end - start) / len(parts)
                        centre = start + (j + 0.5) * length
                        tau = t - lags[p] - centre
                        distance = max(abs(tau) - 0.5 * 0.35 * length, 0.0)
                        rate = coarticulation._ONSET[p] / style.anticipation if tau < 0 else coarticulation._OFFSET[p]
                        weight = gesture.dominance[p] * np.exp(-rate * style.speed * distance)
                        above += weight * gesture.target[p] * undershoot[k]
                        below += weight
                assert found[i, p] == pytest.approx(above / (below + 0.02), rel=1e-9, abs=1e-12)

    def test_every_phone_has_gestures(self) -> None:
        assert set(gestures()) == set(PHONES)
        for parts in gestures().values():
            for part in parts:
                assert part.target.shape == part.dominance.shape == (len(SPEECH_ARTICULATORS),)
                assert (part.dominance > 0).all()

    def test_rounding_begins_before_the_vowel(self, cast: list[Speaker]) -> None:
        """The consonants before /u/ are rounded already, those before /i/ are not."""
        hidden = Hidden.none(4)
        at = {}
        for vowel in ("uw", "iy"):
            phones = [("sil", 0.0, 0.3), ("s", 0.3, 0.4), ("t", 0.4, 0.48), (vowel, 0.48, 0.7)]
            curves, _ = articulate(phones, 42, cast[0], hidden)
            at[vowel] = curves[int(0.42 * 60)]
        assert at["uw"][A["round"]] > at["iy"][A["round"]] + 0.25
        assert at["iy"][A["spread"]] > at["uw"][A["spread"]] + 0.15


class TestMotion:
    def test_lips_close_at_every_bilabial_of_every_speaker(self, cast: list[Speaker]) -> None:
        for k, speaker in enumerate(cast):
            for hidden in (Hidden.none(len(PHONES_SAID)), _sample(k, speaker), _sample(50 + k, speaker, 2.0)):
                distance = _lip_distance_mm(speaker, generate(PHONES_SAID, N_FRAMES, speaker, hidden))
                for phone, start, end in PHONES_SAID:
                    if phone in BILABIALS:
                        centre = 0.5 * (start + end)
                        # also on the 30 fps grid, whose nearest frame is up to 17 ms away
                        for frame in {round(centre * 60), 2 * round(centre * 30)}:
                            assert distance[frame] <= _rest_mm(speaker) + 0.05, (speaker.name, phone, start)

    def test_open_vowels_open(self, cast: list[Speaker]) -> None:
        for speaker in cast:
            distance = _lip_distance_mm(
                speaker, generate(PHONES_SAID, N_FRAMES, speaker, Hidden.none(len(PHONES_SAID)))
            )
            start, end = PHONES_SAID[2][1:]
            assert PHONES_SAID[2][0] == "aa"
            assert distance[int(start * 60) : int(end * 60) + 2].max() > 5.0

    def test_held_vowels_look_different(self, cast: list[Speaker]) -> None:
        def held(phone: str) -> tuple[float, float, float]:
            phones = [("sil", 0.0, 0.2), (phone, 0.2, 0.8), ("sil", 0.8, 1.0)]
            speaker = cast[0]
            d = 1000 * generate(phones, 60, speaker, Hidden.none(3))[30].reshape(-1, 3)
            v = speaker.face.template_mm + d
            contact = speaker.face.topology.lips[-1]
            forward = float(d[speaker.rig.upper_lip, 2])
            return (
                float(v[speaker.rig.upper_lip, 1] - v[speaker.rig.lower_lip, 1]),
                float(np.ptp(v[contact, 0])),
                forward,
            )

        a, i, u, f = held("aa"), held("iy"), held("uw"), held("f")
        assert a[0] > 10 > u[0] and f[0] < 4
        assert i[1] > a[1] + 4 > u[1] + 12
        assert u[2] > a[2] + 3

    def test_pure_and_consistent_between_frame_rates(self, cast: list[Speaker]) -> None:
        speaker, hidden = cast[1], _sample(7, cast[1])
        once, twice = (generate(PHONES_SAID, N_FRAMES, speaker, hidden) for _ in range(2))
        assert np.array_equal(once, twice)
        n = N_FRAMES // 2 * 2
        even = generate(PHONES_SAID, n, speaker, hidden, 60.0)
        half = generate(PHONES_SAID, n // 2, speaker, hidden, 30.0)
        assert half == pytest.approx(even[::2], abs=1e-12)

    def test_starts_and_ends_near_rest(self, cast: list[Speaker]) -> None:
        phones = [("sil", 0.0, 0.4), ("aa", 0.4, 0.6), ("sil", 0.6, 1.1)]
        speaker = cast[0]
        d = 1000 * np.linalg.norm(generate(phones, 66, speaker, Hidden.none(3)).reshape(66, -1, 3), axis=-1)
        lips = speaker.face.topology.lips.ravel()
        assert d[0, lips].max() < 1.5 and d[-1, lips].max() < 1.5 and d[30, lips].max() > 8

    def test_speakers_move_differently(self, cast: list[Speaker]) -> None:
        hidden = Hidden.none(len(PHONES_SAID))
        sizes = [np.sqrt((generate(PHONES_SAID, N_FRAMES, s, hidden) ** 2).mean()) for s in cast[:8]]
        assert np.std(sizes) / np.mean(sizes) > 0.08

    def test_motion_is_smooth(self, cast: list[Speaker]) -> None:
        d = 1000 * generate(PHONES_SAID, N_FRAMES, cast[0], _sample(1, cast[0])).reshape(N_FRAMES, -1, 3)
        speed = np.linalg.norm(np.diff(d, axis=0), axis=-1).max() * 60
        assert speed < 600  # mm/s; lids at a blink are the fastest, lips stay under 300

    def test_closure_curve_plateau(self, cast: list[Speaker]) -> None:
        times = np.linspace(0, 1, 1001)
        closed = closure_curve(times, [("sil", 0, 0.5), ("b", 0.5, 0.52), ("aa", 0.52, 1.0)], cast[0].style)
        assert (closed[(times > 0.4851) & (times < 0.5349)] == 1).all()
        assert closed[times < 0.42].max() == 0 and closed[times > 0.62].max() == 0

    def test_unknown_phone_and_foreign_hidden(self, cast: list[Speaker]) -> None:
        with pytest.raises(ValueError, match="unknown phone 'xx'"):
            generate([("xx", 0.0, 0.1)], 6, cast[0], Hidden.none(1))
        with pytest.raises(ValueError, match="3 phones for an utterance of 1"):
            generate([("aa", 0.0, 0.1)], 6, cast[0], Hidden.none(3))


class TestHidden:
    def test_each_part_moves_the_face(self, cast: list[Speaker]) -> None:
        speaker, none = cast[2], Hidden.none(len(PHONES_SAID))
        base = generate(PHONES_SAID, N_FRAMES, speaker, none)
        lips, lids = speaker.face.topology.lips, speaker.face.topology.lids

        def change(**parts: object) -> np.ndarray:
            other = generate(PHONES_SAID, N_FRAMES, speaker, dataclasses.replace(none, **parts))
            return 1000 * np.linalg.norm((other - base).reshape(N_FRAMES, -1, 3), axis=-1)

        assert change(effort=1.3)[:, lips.ravel()].max() > 1.0
        assert change(effort_curve=np.array([0.3, 0, 0]))[:, lips.ravel()].max() > 1.0
        assert change(lag_s=np.array([0.04, 0.04]))[:, lips.ravel()].max() > 1.0
        assert change(undershoot=np.full(len(PHONES_SAID), 0.6))[:, lips.ravel()].max() > 1.0
        blink = change(blinks=np.array([[0.5, 0.05, 1.0]]))
        assert blink[:, lids.ravel()].max() > 5 and blink[:, lips.ravel()].max() == 0
        brow = change(brows=np.array([[0.5, 0.3, 0.8]]))
        assert brow[:, speaker.face.topology.brows.ravel()].max() > 3
        wander = np.zeros((6, 5))
        wander[5, 0] = 0.5
        assert 0.1 < change(wander=wander).max() < 3

    def test_scale_zero_is_none(self, cast: list[Speaker]) -> None:
        drawn, none = _sample(3, cast[0], 0.0), Hidden.none(len(PHONES_SAID))
        for field in dataclasses.fields(Hidden):
            assert np.array_equal(getattr(drawn, field.name), getattr(none, field.name)), field.name

    def test_draws_are_in_range_and_vary(self, cast: list[Speaker]) -> None:
        takes = [_sample(k, cast[0]) for k in range(200)]
        effort = np.array([t.effort for t in takes])
        assert 0.7 <= effort.min() < 0.76 and 1.24 < effort.max() <= 1.3
        lag = np.stack([t.lag_s for t in takes])
        assert np.abs(lag).max() <= MAX_LAG_S + 1e-12 and lag.std() > 0.01
        assert 0.15 < np.concatenate([t.undershoot for t in takes]).std() < 0.3

    def test_much_is_unexplained_by_the_audio(self, cast: list[Speaker]) -> None:
        """What makes squared error regress to the mean: the mean over takes moves less than any take."""
        speaker = cast[0]
        takes = np.stack([generate(PHONES_SAID, N_FRAMES, speaker, _sample(k, speaker)) for k in range(40)])
        lips = takes.reshape(40, N_FRAMES, -1, 3)[:, :, speaker.face.topology.lips.ravel()]
        mean = lips.mean(0)
        total = ((lips - mean.mean(0)) ** 2).mean()
        assert 0.1 < ((lips - mean) ** 2).mean() / total < 0.4

    def test_file_round_trip(self, cast: list[Speaker], tmp_path: Path) -> None:
        hidden = _sample(11, cast[0])
        path = tmp_path / "h.npz"
        path.write_bytes(hidden.to_bytes())
        again = Hidden.load(path)
        assert again.to_bytes() == hidden.to_bytes()
        assert np.array_equal(generate(PHONES_SAID, 30, cast[0], again), generate(PHONES_SAID, 30, cast[0], hidden))

    def test_bad_files(self, cast: list[Speaker], tmp_path: Path) -> None:
        good = _sample(11, cast[0])
        bad = {
            "empty": b"",
            "truncated": good.to_bytes()[:300],
            "text": b"hello",
            "nan": dataclasses.replace(good, effort_curve=np.full(3, np.nan)).to_bytes(),
            "shape": dataclasses.replace(good, wander=np.zeros((2, 2))).to_bytes(),
            "events": dataclasses.replace(good, blinks=np.zeros((2, 2))).to_bytes(),
        }
        for name, content in bad.items():
            path = tmp_path / f"{name}.npz"
            path.write_bytes(content)
            with pytest.raises(UserError, match=name):
                Hidden.load(path)
        np.savez(tmp_path / "objects.npz", effort=np.array([{}], dtype=object), allow_pickle=True)
        with pytest.raises(UserError, match="objects"):
            Hidden.load(tmp_path / "objects.npz")
        with pytest.raises(UserError, match="absent"):
            Hidden.load(tmp_path / "absent.npz")


class TestSentences:
    def test_own_list(self) -> None:
        assert len(set(SENTENCES)) == len(SENTENCES) >= 60
        for text in SENTENCES:
            assert text.isascii() and 5 <= len(text.split()) <= 11
            assert sum(text.lower().count(c) for c in "mbp") >= 2, text

    @pytest.mark.parametrize("n", [1, 2, 5, 10, 40, MAX_SENTENCES])
    def test_upper_half_is_unseen_in_training(self, n: int) -> None:
        train = {sentence_text(s, k, n, True) for s in range(8) for k in range(1, n + 1)}
        assert train <= set(SENTENCES[:N_SHARED_POOL])
        for speaker in range(8, 12):
            said = [sentence_text(speaker, k, n, False) for k in range(1, n + 1)]
            assert len(set(said)) == n
            assert not set(said[first_unseen(n) - 1 :]) & train

    def test_as_faceformer_splits_vocaset(self) -> None:
        assert first_unseen(40) == 21

    def test_refusals(self) -> None:
        with pytest.raises(UserError, match="sentences=65"):
            sentence_text(0, 1, MAX_SENTENCES + 1, True)
        with pytest.raises(ValueError, match="not in 1..4"):
            sentence_text(0, 5, 4, True)


def test_espeak_names() -> None:
    pairs = {"'A:": "aa", ",V": "ah", "tS": "ch", "@L": "el", "_:": "sil", "t#": "dx", "aI3": "ay", "b": "b", ";": "y"}
    assert {name: from_espeak(name) for name in pairs} == pairs
    with pytest.raises(ValueError, match="unknown espeak-ng phoneme"):
        from_espeak("XX")
