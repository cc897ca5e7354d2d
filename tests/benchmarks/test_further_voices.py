"""More voices and sentences than the corpus has: whose they are, what they say, what is spared."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.adaptation import make
from benchmarks.further_voices import further_voices, texts_for
from s2f_rl.data import FaceCorpus, check_corpus
from s2f_rl.data.annotations import read_phones
from s2f_rl.data.files import load_json
from s2f_rl.data.synthetic import synthesize
from s2f_rl.data.synthetic.sentences import N_SHARED_POOL, SENTENCES
from s2f_rl.data.synthetic.voices import VOICES
from s2f_rl.errors import UserError

pytest.importorskip("espeakng_loader")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("further")
    source = synthesize(folder / "c", subjects=5, sentences=4, vertices=300, progress=False)
    return source, make(source, folder / "wide", sentences=4, new=2, voices=3, spoken=5)


def test_every_new_voice_says_as_much_and_nothing_twice(corpora: tuple[Path, Path]) -> None:
    source, out = corpora
    train = FaceCorpus(out, "train")
    new = [name for name in train.names if name.startswith("NEW_")]
    voices = {name.rpartition("_sentence")[0] for name in new}
    assert voices == {"NEW_S04_M", "NEW_V006", "NEW_V007"} and len(new) == 15
    assert list(train.subjects) == list(FaceCorpus(source, "train").subjects), "style columns stay"
    said = load_json(out / "transcripts.json")
    for voice in voices:
        texts = [said[name] for name in new if name.startswith(voice)]
        assert len({*texts}) == 5
        assert {*texts} <= {*SENTENCES[:N_SHARED_POOL]}, "what is tested stays unsaid"
    for name in new:
        heard = train[train.index(name)]
        assert heard.vertices is None
        phones = read_phones(out / "phones" / f"{name}.json")
        seconds = len(heard.waveform_raw) / heard.sample_rate
        assert phones is not None and phones[-1][2] == pytest.approx(seconds, abs=0.05)
    own = train[train.index("NEW_S04_M_sentence02")]
    assert torch.equal(own.waveform_raw, FaceCorpus(source, "all")["S04_M_sentence02"].waveform_raw)
    first, second = (train[train.index(f"NEW_{voice}_sentence03")] for voice in ("V006", "V007"))
    assert not torch.equal(first.template, second.template) and not torch.equal(own.template, first.template)
    assert not check_corpus(out).has_errors


def test_a_wider_corpus_holds_the_narrower(corpora: tuple[Path, Path], tmp_path: Path) -> None:
    source, wide = corpora
    narrow = make(source, tmp_path / "narrow", sentences=4, new=2, voices=2, spoken=3)
    for file in (narrow / "wav").glob("NEW_*"):
        assert file.read_bytes() == (wide / "wav" / file.name).read_bytes()
    for split in ("adapted", "validation", "test"):
        assert FaceCorpus(narrow, split).names == FaceCorpus(wide, split).names


def test_voices_on_whom_is_tested_do_not_return() -> None:
    assert further_voices(3, 48, {0, 2}) == [49, 51, 52]
    assert further_voices(1, 48, set(range(len(VOICES))) - {5}) == [53]


def test_mistakes(corpora: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at most as many"):
        texts_for([], 0, 65)
    with pytest.raises(UserError, match="voices=0"):
        make(corpora[0], tmp_path / "none", new=2, voices=0)
    with pytest.raises(UserError, match="65 sentences"):
        make(corpora[0], tmp_path / "long", new=2, spoken=65)
