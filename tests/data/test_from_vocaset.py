"""The VOCASET converter on a small download of the published form."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from s2f_rl.data import FaceCorpus, check_corpus, prepare_vocaset
from s2f_rl.errors import UserError

PEOPLE = ("FaceTalk_170728_03272_TA", "FaceTalk_170809_00138_TA")
V, RATE = 30, 22000


class Raw:
    """The four files of VOCASET's download, for two people and three sentences."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        self.folder = folder
        folder.mkdir()
        template = rng.uniform(-0.09, 0.09, size=(V, 3))
        self.templates = {person: template + 0.001 * k for k, person in enumerate(PEOPLE)}
        self.audio: dict[str, Any] = {person: {} for person in PEOPLE}
        self.rows: dict[str, Any] = {person: {} for person in PEOPLE}
        order: list[tuple[str, str, int]] = []
        for person in PEOPLE:
            for k in (21, 22, 23):
                n_frames = int(rng.integers(50, 70))
                order += [(person, f"sentence{k}", t) for t in range(n_frames)]
                samples = (6000 * rng.normal(size=int(n_frames / 60 * RATE))).astype(np.int16)
                self.audio[person][f"sentence{k}"] = {"audio": samples, "sample_rate": RATE}
        moves = 0.003 * rng.normal(size=(len(order), V, 3))
        self.verts = np.stack([self.templates[person] for person, _, _ in order]).astype(np.float32) + moves.astype(
            "f4"
        )
        for row in rng.permutation(len(order)):  # numbered out of order, as a dict may be
            person, sentence, t = order[row]
            self.rows[person].setdefault(sentence, {})[t] = int(row)
        self.write()

    def write(self) -> None:
        np.save(self.folder / "data_verts.npy", self.verts)
        for name, content in (
            ("raw_audio_fixed", self.audio),
            ("subj_seq_to_idx", self.rows),
            ("templates", self.templates),
        ):
            (self.folder / f"{name}.pkl").write_bytes(pickle.dumps(content, protocol=2))

    def expected(self, person: str, sentence: str) -> np.ndarray:
        rows = self.rows[person][sentence]
        return np.stack([self.verts[rows[t]].reshape(-1) for t in sorted(rows)])


@pytest.fixture
def raw(tmp_path: Path) -> Raw:
    return Raw(tmp_path / "raw")


def test_everything_is_written_as_it_was_published(raw: Raw, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = prepare_vocaset(raw.folder, out, progress=False)
    assert (report.n_utterances, report.n_recorded, report.n_written, report.problems) == (6, 6, 12, [])
    assert "6 utterances, 6 of them with vertices" in str(report)
    for person in PEOPLE:
        for sentence, sound in raw.audio[person].items():
            written = np.load(out / "vertices_npy" / f"{person}_{sentence}.npy")
            assert written.dtype == np.float32
            np.testing.assert_array_equal(written, raw.expected(person, sentence))
            samples, rate = soundfile.read(out / "wav" / f"{person}_{sentence}.wav", dtype="int16")
            assert rate == RATE
            np.testing.assert_array_equal(samples, sound["audio"])
    assert (out / "templates.pkl").read_bytes() == (raw.folder / "templates.pkl").read_bytes()
    corpus = FaceCorpus(out, topology="vocaset")
    assert len(corpus) == 3 and corpus[0].vertices is not None
    np.testing.assert_array_equal(
        corpus[0].vertices.numpy(), raw.expected(PEOPLE[0], "sentence21")[::2][: len(corpus[0])]
    )
    assert len(FaceCorpus(out, "test")) == 3
    assert not check_corpus(out).has_errors


def test_flame_files_are_copied_and_the_output_may_be_the_input(raw: Raw) -> None:
    (raw.folder / "FLAME_masks.pkl").write_bytes(pickle.dumps({"lips": np.arange(5)}))
    prepare_vocaset(raw.folder, raw.folder.parent / "out", progress=False)
    assert FaceCorpus(raw.folder.parent / "out").regions["lips"].tolist() == [0, 1, 2, 3, 4]
    prepare_vocaset(raw.folder, raw.folder, progress=False)
    assert len(FaceCorpus(raw.folder, "all")) == 6


def test_a_second_run_keeps_what_is_complete(raw: Raw, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare_vocaset(raw.folder, out, progress=False)
    name = f"{PEOPLE[0]}_sentence21"
    untouched = out / "vertices_npy" / f"{PEOPLE[0]}_sentence22.npy"
    before = os.stat(untouched).st_mtime_ns
    broken = out / "vertices_npy" / f"{name}.npy"
    broken.write_bytes(broken.read_bytes()[:1000])
    shorter = out / "vertices_npy" / f"{PEOPLE[1]}_sentence22.npy"
    np.save(shorter, np.load(shorter)[:-1])
    (out / "wav" / f"{name}.wav").unlink()
    report = prepare_vocaset(raw.folder, out, progress=False)
    assert (report.n_written, report.n_kept) == (3, 9)
    assert os.stat(untouched).st_mtime_ns == before
    np.testing.assert_array_equal(np.load(broken), raw.expected(PEOPLE[0], "sentence21"))


def test_faulty_utterances_are_listed_and_the_others_converted(raw: Raw, tmp_path: Path) -> None:
    first, second = PEOPLE
    del raw.audio[first]["sentence21"]
    del raw.rows[first]["sentence22"]
    raw.rows[second]["sentence21"][0] = 10**6
    raw.audio[second]["sentence22"] = {"audio": None}
    raw.rows[second]["sentence22"] = {}
    del raw.rows[second]["sentence23"][10]
    raw.audio[first]["../../evil"] = raw.audio[first]["sentence23"]
    raw.audio[first]["x/evil"] = raw.audio[first]["sentence23"]
    raw.audio[".evil"] = {"sentence01": raw.audio[first]["sentence23"]}
    raw.rows["X"] = {"sentence01": {0: 0}}
    raw.audio["X"] = {"sentence01": {"audio": np.zeros(400, np.int16), "sample_rate": RATE}}
    raw.write()
    out = tmp_path / "out"
    report = prepare_vocaset(raw.folder, out, progress=False)
    text = "\n".join(report.problems)
    for expected in (
        f"{first}_sentence21: has vertices but no sound",
        f"{first}_sentence22: has sound but no vertices; it is audio-only",
        f"{second}_sentence21: names row 1000000",
        f"{second}_sentence22: has no audio or no sample rate",
        f"{second}_sentence22: has no frames",
        f"{second}_sentence23: lacks 1 frames",
        "/../evil' in raw_audio_fixed.pkl: cannot be a file name",
        "x/evil' in raw_audio_fixed.pkl: cannot be a file name",
        "'.evil_sentence01' in raw_audio_fixed.pkl: cannot be a file name",
        "X: has no template",
    ):
        assert expected in text, expected
    written = {path.stem for path in (out / "wav").iterdir()}
    assert written == {
        f"{first}_sentence22", f"{first}_sentence23", f"{second}_sentence21", f"{second}_sentence23", "X_sentence01"
    }  # fmt: skip
    assert not list(tmp_path.rglob("*evil*")) and (report.n_utterances, report.n_recorded) == (5, 3)


def test_numbers_that_cannot_be(raw: Raw, tmp_path: Path) -> None:
    """Beyond 64 bits, not finite, complex, and a row used over and over, which would write more than there is."""
    first, second = PEOPLE[:2]
    raw.rows[first]["sentence21"] = {0: 2**80}
    raw.rows[first]["sentence22"] = {0: float("inf")}
    raw.rows[second]["sentence21"] = dict.fromkeys(range(10**5), 0)
    raw.audio[first]["sentence23"]["sample_rate"] = np.complex64(22050)
    raw.audio[second]["sentence23"]["sample_rate"] = float("nan")
    raw.write()
    text = "\n".join(prepare_vocaset(raw.folder, tmp_path / "out", progress=False).problems)
    for expected in (
        f"{first}_sentence21: its frames are not numbered",
        f"{first}_sentence22: its frames are not numbered",
        f"{second}_sentence21: has 100000 frames, data_verts.npy",
        f"{first}_sentence23: has no audio or no sample rate",
        f"{second}_sentence23: has no audio or no sample rate",
    ):
        assert expected in text, text


@pytest.mark.parametrize(
    ("audio", "expected"),
    [
        (np.array([0.5, -1.0, 0.25], np.float32), [0.5, -1.0, 0.25]),
        (np.array([0.5, -1.0, 0.25], np.float64), [0.5, -1.0, 0.25]),
        (np.array([16384.0, -32768.0, 8192.0]), [0.5, -1.0, 0.25]),
        (np.array([[16384], [-32768], [8192]], np.int64), [0.5, -1.0, 0.25]),
        (np.array([2**30, -(2**31), 2**29], np.int32), [0.5, -1.0, 0.25]),
        (np.array([16384, -32768, 8192], ">i2"), [0.5, -1.0, 0.25]),
    ],
)
def test_sound_of_every_type_keeps_its_values(
    raw: Raw, tmp_path: Path, audio: np.ndarray, expected: list[float]
) -> None:
    raw.audio[PEOPLE[0]]["sentence21"]["audio"] = audio
    raw.write()
    prepare_vocaset(raw.folder, tmp_path / "out", progress=False)
    samples, _ = soundfile.read(tmp_path / "out" / "wav" / f"{PEOPLE[0]}_sentence21.wav")
    np.testing.assert_allclose(samples, expected, atol=1e-9)


def test_files_that_cannot_be_used(raw: Raw, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="nowhere: no such folder"):
        prepare_vocaset(tmp_path / "nowhere", out, progress=False)
    whole = (raw.folder / "subj_seq_to_idx.pkl").read_bytes()
    (raw.folder / "subj_seq_to_idx.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UserError, match=r"subj_seq_to_idx\.pkl: asks for os\.system"):
        prepare_vocaset(raw.folder, out, progress=False)
    (raw.folder / "subj_seq_to_idx.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(UserError, match=r"subj_seq_to_idx\.pkl: not of the form"):
        prepare_vocaset(raw.folder, out, progress=False)
    (raw.folder / "subj_seq_to_idx.pkl").write_bytes(whole)
    (raw.folder / "raw_audio_fixed.pkl").unlink()
    with pytest.raises(UserError, match=r"raw_audio_fixed\.pkl: no such file; it is part of VOCASET"):
        prepare_vocaset(raw.folder, out, progress=False)
    raw.templates = {person: np.zeros((V + 1, 3)) for person in PEOPLE}
    raw.write()
    with pytest.raises(UserError, match=rf"data_verts\.npy: has the shape .*the templates have {V + 1} vertices"):
        prepare_vocaset(raw.folder, out, progress=False)
    assert not out.exists()


def test_an_interrupted_write_leaves_no_half_file(raw: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    calls = []
    save = np.save

    def failing(file: Any, array: np.ndarray, **options: Any) -> None:
        calls.append(1)
        save(file, array, **options)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", failing)
    with pytest.raises(KeyboardInterrupt):
        prepare_vocaset(raw.folder, out, progress=False)
    monkeypatch.undo()
    assert len(list((out / "vertices_npy").iterdir())) == 2
    report = prepare_vocaset(raw.folder, out, progress=False)
    assert report.n_kept == 2 and report.n_recorded == 6
