"""Forced alignment: names, times and files without the aligner; the aligner itself on synthetic speech."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from s2f_rl.data import FaceCorpus, alignment
from s2f_rl.data.alignment import (
    align_corpus,
    align_file,
    phone_name,
    read_pronunciations,
    spoken_words,
    to_phones,
    write_phones,
)
from s2f_rl.data.annotations import read_phones
from s2f_rl.data.transcripts import find_transcripts
from s2f_rl.errors import UserError
from s2f_rl.metrics.closure import is_bilabial
from s2f_rl.rewards.articulation.phones import PhoneSource
from tests.tiny import make_tiny_corpus

PHONES = [("sil", 0.0, 0.25), ("m", 0.25, 0.3), ("ah", 0.3, 0.41)]


def test_phone_names() -> None:
    assert [phone_name(n) for n in ("AH0", "ER1", "M", "SIL", "+NSN+", "+SPN+", "(NULL)")] == [
        "ah", "er", "m", "sil", "sil", "sil", "sil",
    ]  # fmt: skip
    assert sorted(phone_name(p) for p in alignment.ARPABET if is_bilabial(phone_name(p))) == ["b", "m", "p"]
    assert len(alignment.ARPABET) == 39


def test_spoken_words() -> None:
    assert spoken_words("It\u2019s a well-known \u201cDon't\u201d, O'Brien's 'cause 'twas!") == [
        "it's", "a", "well", "known", "don't", "o'brien's", "'cause", "'twas",
    ]  # fmt: skip
    assert spoken_words("caf\u00e9 5 -- ' ") == ["caf\u00e9", "5"]


class TestToPhones:
    def test_times(self) -> None:
        """Frame k is the window from 10 k to 10 k + 25.6 ms; a boundary lies between the centres of two windows."""
        found = to_phones([("SIL", 0, 25), ("+NSN+", 25, 5), ("M", 30, 5), ("AH", 35, 10), ("SIL", 45, 10)], 0.5)
        assert found == [("sil", 0.0, 0.308), ("m", 0.308, 0.358), ("ah", 0.358, 0.458), ("sil", 0.458, 0.5)]

    def test_cut_to_the_sound(self) -> None:
        found = to_phones([("B", 0, 10), ("AA", 10, 10), ("SIL", 20, 10)], 0.15)
        assert found == [("b", 0.0, 0.108), ("aa", 0.108, 0.15)]

    def test_silence_is_no_alignment(self) -> None:
        for segments in ([], [("SIL", 0, 20)]):
            with pytest.raises(UserError, match="no speech"):
                to_phones(segments, 1.0)


def test_written_as_a_corpus_reads_it(tmp_path: Path) -> None:
    write_phones(tmp_path / "phones" / "a.json", PHONES)
    assert read_phones(tmp_path / "phones" / "a.json") == PHONES


class TestTranscripts:
    NAMES = ["S0_sentence01", "S0_sentence02", "S1_sentence01"]

    def test_every_form(self, tmp_path: Path) -> None:
        words = {"S0_sentence01": "Hello, you", "S1_sentence01": "Bye"}
        (tmp_path / "a.json").write_text(json.dumps({**words, "other": "x", "S0_sentence02": " "}))
        (tmp_path / "a.csv").write_text('name,text\nS0_sentence01,"Hello, you"\n\nS1_sentence01,Bye\n')
        (tmp_path / "b.csv").write_text('S0_sentence01,"Hello, you"\nS1_sentence01,Bye\n')
        (tmp_path / "a.txt").write_text("S0_sentence01\tHello, you\nS1_sentence01\tBye\n", encoding="utf-8-sig")
        for name in ("a.json", "a.csv", "b.csv", "a.txt"):
            assert find_transcripts(tmp_path / name, self.NAMES) == words
        folder = tmp_path / "texts"
        folder.mkdir()
        (folder / "S0.txt").write_text("Hello, you\nSecond\n")
        (folder / "S1_sentence01.txt").write_text("Bye\n")
        assert find_transcripts(folder, self.NAMES) == {**words, "S0_sentence02": "Second"}

    def test_a_cell_beyond_what_csv_reads(self, tmp_path: Path) -> None:
        (tmp_path / "words.csv").write_text("S0_sentence01," + "a" * 200_000)
        with pytest.raises(UserError, match=r"words\.csv: cannot be read as a table"):
            find_transcripts(tmp_path / "words.csv", ["S0_sentence01"])

    def test_mistakes(self, tmp_path: Path) -> None:
        cases = {
            "one.txt": (b"just words\n", "NAME<TAB>words"),
            "twice.txt": (b"a\tx\na\ty\n", "twice"),
            "bytes.txt": (b"a\t\xff\xfe\n", "UTF-8"),
            "three.csv": (b"a,b,c\n", "NAME"),
            "list.json": (b"[1]", "not an object"),
            "none.json": (b'{"other": "x"}', "no utterance"),
        }
        for name, (content, message) in cases.items():
            (tmp_path / name).write_bytes(content)
            with pytest.raises(UserError, match=message) as caught:
                find_transcripts(tmp_path / name, self.NAMES)
            assert name in str(caught.value)
        with pytest.raises(UserError, match="absent"):
            find_transcripts(tmp_path / "absent.txt", self.NAMES)


def test_pronunciations(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("# mine\nBobcat  B AA1 B K AE2 T\n")
    assert read_pronunciations(path) == {"bobcat": ["B", "AA", "B", "K", "AE", "T"]}
    for line, message in (("bobcat B QQ", "'QQ'"), ("bobcat", "no phones")):
        path.write_text(line)
        with pytest.raises(UserError, match=message):
            read_pronunciations(path)


class _FakeAligner:
    calls: list[str] = []

    def __init__(self, pronunciations: object = None) -> None:
        type(self).calls = []

    def align(self, waveform: np.ndarray, rate: int, text: str) -> list[alignment.Phone]:
        type(self).calls.append(text)
        if text == "xyzzy":
            raise UserError("the dictionary lacks 'xyzzy'")
        if text == "stop":
            raise KeyboardInterrupt
        return PHONES


class TestCorpus:
    @pytest.fixture
    def root(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(alignment, "Aligner", _FakeAligner)
        return make_tiny_corpus(tmp_path / "corpus", n_subjects=3, n_sentences=1)

    def test_written_reported_and_gone_on_with(self, root: Path) -> None:
        words = {"S0_sentence01": "xyzzy", "S1_sentence01": "one", "S2_sentence01": "stop"}
        (root / "transcripts.json").write_text(json.dumps(words))
        with pytest.raises(KeyboardInterrupt):
            align_corpus(root, progress=False)
        assert [p.name for p in (root / "phones").iterdir()] == ["S1_sentence01.json"]

        (root / "transcripts.json").write_text(json.dumps({k: w for k, w in words.items() if k != "S2_sentence01"}))
        report = align_corpus(root, progress=False)
        assert _FakeAligner.calls == ["xyzzy"]
        assert report.kept == ["S1_sentence01"] and report.written == []
        assert set(report.failed) == {"S0_sentence01", "S2_sentence01"} and "xyzzy" in report.failed["S0_sentence01"]
        assert json.loads((root / alignment.REPORT).read_text())["failed"] == report.failed
        assert FaceCorpus(root, split="all")["S1_sentence01"].phones == PHONES

    def test_overwrite_and_damaged_timings(self, root: Path) -> None:
        (root / "phones").mkdir()
        (root / "phones" / "S0_sentence01.json").write_text('[["m", 0')
        (root / "phones" / "S1_sentence01.json").write_text('[["m", 0, 1]]')
        words = root / "words.txt"
        words.write_text("".join(f"S{k}_sentence01\tone\n" for k in range(3)))
        assert align_corpus(root, words, progress=False).written == ["S0_sentence01", "S2_sentence01"]
        assert len(align_corpus(root, words, overwrite=True, progress=False).written) == 3

    def test_beside_the_corpus(self, root: Path, tmp_path: Path) -> None:
        """Its own timings stay as they are, and the other folder is gone on with by itself."""
        (root / "phones").mkdir()
        (root / "phones" / "S0_sentence01.json").write_text('[["m", 0, 1]]')
        (root / "transcripts.json").write_text(json.dumps({f"S{k}_sentence01": "one" for k in range(3)}))
        report = align_corpus(root, progress=False, out=tmp_path / "aligned")
        assert len(report.written) == 3 and not (root / alignment.REPORT).exists()
        assert [path.name for path in (root / "phones").iterdir()] == ["S0_sentence01.json"]
        assert json.loads((tmp_path / "aligned" / alignment.REPORT).read_text())["written"] == 3
        assert PhoneSource(tmp_path / "aligned").of(FaceCorpus(root, split="all")["S0_sentence01"]) == PHONES
        assert len(align_corpus(root, progress=False, out=tmp_path / "aligned").kept) == 3

    def test_moved_boundaries(self, root: Path) -> None:
        """Where the second look can tell, its times are kept; where it cannot, the aligner's."""
        (root / "transcripts.json").write_text(json.dumps({"S0_sentence01": "one", "S1_sentence01": "two"}))
        moved = [("sil", 0.0, 0.2), ("m", 0.2, 0.3), ("ah", 0.3, 0.41)]
        asked: list[list[alignment.Phone]] = []

        def retime(waveform: np.ndarray, rate: int, phones: Sequence[alignment.Phone]) -> list[alignment.Phone] | None:
            asked.append(list(phones))
            return moved if len(asked) == 1 else None

        report = align_corpus(root, progress=False, retime=retime)
        assert asked == [PHONES, PHONES] and report.unheard == ["S1_sentence01"]
        assert read_phones(root / "phones" / "S0_sentence01.json") == moved
        assert read_phones(root / "phones" / "S1_sentence01.json") == PHONES
        told = json.loads((root / alignment.REPORT).read_text())
        assert (told["retimed"], told["unheard"]) == (1, ["S1_sentence01"])

    def test_no_transcripts(self, root: Path) -> None:
        with pytest.raises(UserError, match="--text"):
            align_corpus(root, progress=False)


def test_without_pocketsphinx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pocketsphinx", None)
    with pytest.raises(UserError, match=r"s2f_rl\[align\]"):
        alignment.Aligner()


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("pocketsphinx", reason="extra align is not installed")
    pytest.importorskip("espeakng_loader", reason="extra demo is not installed")
    from s2f_rl.data.synthetic import synthesize

    root = tmp_path_factory.mktemp("spoken")
    synthesize(root, 3, 1, vertices=300, progress=False)
    return root


class TestSpeech:
    """A sentence of the synthesiser, whose timings are known."""

    def test_against_known_timings(self, spoken: Path) -> None:
        corpus = FaceCorpus(spoken, split="all")
        truth = {u.name: u.phones for u in corpus}
        report = align_corpus(spoken, overwrite=True, progress=False)
        assert report.failed == {} and len(report.written) == len(corpus) == 3
        errors = []
        for u in corpus:
            ours = [p for p in u.phones if is_bilabial(p[0])]
            theirs = [p for p in truth[u.name] if is_bilabial(p[0])]
            assert [p[0] for p in ours] == [p[0] for p in theirs]
            errors += [abs(a[1] - b[1]) for a, b in zip(ours, theirs, strict=True)]
            assert all(a[2] == b[1] for a, b in zip(u.phones, u.phones[1:], strict=False))
            assert u.phones[0][1] == 0 and abs(u.phones[-1][2] - len(u.waveform) / 16000) < 0.05
        assert np.median(errors) < 0.025

    def test_one_file_twice_the_same(self, spoken: Path, tmp_path: Path) -> None:
        u = FaceCorpus(spoken, split="all")[0]
        wav = spoken / "wav" / f"{u.name}.wav"
        first = align_file(wav, u.transcript, tmp_path / "a.json")
        assert read_phones(tmp_path / "a.json") == first
        assert align_file(wav, u.transcript, tmp_path / "b.json") == first

    def test_words(self, spoken: Path, tmp_path: Path) -> None:
        wav = next((spoken / "wav").glob("*.wav"))
        for text, message in (("hello xyzzyq 42", "'xyzzyq', '42'"), ("...", "no words")):
            with pytest.raises(UserError, match=message) as caught:
                align_file(wav, text, tmp_path / "a.json")
            assert wav.name in str(caught.value)
        (tmp_path / "words.txt").write_text("xyzzyq Z IH Z IY K\n")
        assert alignment.Aligner(tmp_path / "words.txt").words("Xyzzyq, 'hello'") == ["xyzzyq", "hello"]

    def test_sound_too_short_for_the_words(self, spoken: Path) -> None:
        """One line, and the next recording is aligned as if nothing had happened."""
        u = FaceCorpus(spoken, split="all")[0]
        aligner = alignment.Aligner()
        whole = aligner.align(u.waveform_raw.numpy(), 16000, u.transcript)
        for n in (0, 10, 1600, 4800):
            with pytest.raises(UserError, match="text and recording"):
                aligner.align(u.waveform_raw.numpy()[:n], 16000, u.transcript)
            assert aligner.align(u.waveform_raw.numpy(), 16000, u.transcript) == whole
