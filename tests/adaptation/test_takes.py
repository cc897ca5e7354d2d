"""Recordings, their words, and long ones in pieces."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from s2f_rl.adaptation import takes
from s2f_rl.adaptation.corpus import held_back_takes
from s2f_rl.adaptation.takes import Take, cut_in_pauses, named_sounds, read_takes, read_words
from s2f_rl.data.audio import write_wav
from s2f_rl.errors import UserError

RATE = 1000


def spoken(*stretches: tuple[str, float]) -> Take:
    """A take of phones of these lengths; its samples count up."""
    phones, at = [], 0.0
    for phone, length in stretches:
        phones.append((phone, at, at + length))
        at += length
    return Take("take", np.arange(round(at * RATE), dtype=np.float32), RATE, phones)


class TestPieces:
    def test_in_the_middle_of_pauses(self) -> None:
        take = spoken(("sil", 0.4), ("ah", 4.0), ("sil", 0.4), ("b", 2.0), ("sil", 0.4), ("m", 2.8), ("sil", 1.0))
        pieces = cut_in_pauses(take)
        # the pause at 6.6 s would leave a piece of 2.4 s, the last one nothing
        assert [piece.label for piece in pieces] == ["take 1 (0.0 to 4.6 s)", "take 2 (4.6 to 11.0 s)"]
        assert np.array_equal(np.concatenate([piece.waveform for piece in pieces]), take.waveform)
        expected = [("sil", 0.0, 0.2), ("b", 0.2, 2.2), ("sil", 2.2, 2.6), ("m", 2.6, 5.4), ("sil", 5.4, 6.4)]
        assert [p for p, _, _ in pieces[1].phones or []] == [p for p, _, _ in expected]
        for found, wanted in zip(pieces[1].phones or [], expected, strict=True):
            assert found[1:] == pytest.approx(wanted[1:])
        assert pieces[0].phones == [("sil", 0.0, 0.4), ("ah", 0.4, 4.4), ("sil", 4.4, pytest.approx(4.6))]

    def test_whole_where_nobody_pauses(self) -> None:
        take = spoken(("ah", 8.0), ("sil", 0.1), ("b", 8.0))
        assert cut_in_pauses(take) == [take]


class TestHeldBack:
    @pytest.mark.parametrize("n, count", [(1, 0), (3, 0), (4, 1), (7, 1), (8, 2), (14, 2), (25, 5)])
    def test_about_a_fifth(self, n: int, count: int) -> None:
        assert len(held_back_takes(n, None)) == count

    def test_evenly_and_never_all(self) -> None:
        assert held_back_takes(9, 3) == [1, 4, 7] and held_back_takes(3, 0) == []
        for wanted in (3, -1):
            with pytest.raises(UserError, match="one at least must be adapted to"):
                held_back_takes(3, wanted)


class TestWords:
    def test_of_one_recording_a_plain_script(self, tmp_path: Path) -> None:
        script = tmp_path / "script.txt"
        script.write_text("It is said.\nAnd more is said.\n")
        assert read_words(script, ["take"]) == {"take": "It is said.\nAnd more is said.\n"}
        with pytest.raises(UserError, match="NAME<TAB>words"):
            read_words(script, ["one", "two"])
        script.write_text("take\tIt is said.\nother\tIt is not.\n")
        assert read_words(script, ["take"]) == {"take": "It is said."}

    def test_of_several(self, tmp_path: Path) -> None:
        (tmp_path / "words.json").write_text(json.dumps({"b": "said", "c": "not"}))
        assert read_words(tmp_path / "words.json", ["a", "b"]) == {"b": "said"}
        assert read_words(None, ["a"]) == {}


class TestMistakes:
    def test_no_use_as_speech(self, tmp_path: Path) -> None:
        for name, sound, told in (
            ("silent", np.zeros(8000), "is silent"),
            ("short", np.random.default_rng(0).normal(0, 0.1, 1000), "lasts 0.25 s"),
            ("long", np.random.default_rng(0).normal(0, 0.1, 280000), "lasts 70 s and its words are not known"),
        ):
            write_wav(tmp_path / f"{name}.wav", sound.astype(np.float32), 4000)
            with pytest.raises(UserError, match=told):
                read_takes({name: tmp_path / f"{name}.wav"}, {})

    def test_words_of_another_sentence(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Forced alignment puts any words somewhere: most of their phones then last three frames."""
        write_wav(tmp_path / "said.wav", np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32), 4000)
        found = {"right": [0.03, 0.08, 0.12, 0.06, 0.09], "wrong": [0.03, 0.08, 0.03, 0.06, 0.03]}

        class Aligner:
            def __init__(self, pronunciations: object) -> None: ...

            def align(self, waveform: np.ndarray, rate: int, text: str) -> list[tuple[str, float, float]]:
                ends = np.cumsum(found[text]).tolist()
                return [("sil", 0.0, 0.01), *(("ah", e - n, e) for e, n in zip(ends, found[text], strict=True))]

        monkeypatch.setattr(takes, "Aligner", Aligner)
        assert len(read_takes({"said": tmp_path / "said.wav"}, {"said": "right"})) == 1
        moved = [("sil", 0.0, 0.02), ("ah", 0.02, 0.39)]
        for better, expected in ((moved, moved), (None, Aligner(None).align(np.zeros(1), 1, "right"))):
            (take,) = read_takes(
                {"said": tmp_path / "said.wav"}, {"said": "right"}, retime=lambda *_, better=better: better
            )
            assert take.phones == expected
        with pytest.raises(UserError, match=r"said\.wav: its words do not fit the sound \(60% of the phones"):
            read_takes({"said": tmp_path / "said.wav"}, {"said": "wrong"})

    def test_names(self) -> None:
        with pytest.raises(UserError, match="another recording called a"):
            named_sounds(["x/a.wav", "y/a.mp3"])
        with pytest.raises(UserError, match="no recording"):
            named_sounds([])
