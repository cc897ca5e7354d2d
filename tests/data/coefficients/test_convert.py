"""From somebody's recordings to a corpus."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

from s2f_rl.cli import main
from s2f_rl.data import FaceCorpus, check_corpus
from s2f_rl.data.coefficients.arkit import ARKIT
from s2f_rl.data.coefficients.convert import convert_coefficients
from s2f_rl.data.coefficients.livelink import write_live_link
from s2f_rl.errors import UserError
from tests.coefficient_corpora import rig_of

RNG = np.random.default_rng(0)


def sound(path, seconds=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * RNG.normal(size=int(16000 * seconds)).astype(np.float32), 16000)


def values(seconds=1.0, fps=60):
    t = np.arange(round(seconds * fps))[:, None] / fps
    return (0.5 + 0.4 * np.sin(8 * t + np.arange(52))).astype(np.float32)


@pytest.fixture
def takes(tmp_path):
    """Three takes of two speakers each, in a folder of their own."""
    for speaker in ("ann", "bob"):
        for k in range(3):
            take = tmp_path / "takes" / speaker / f"take{k}"
            take.mkdir(parents=True)
            write_live_link(take / f"Take{k}_iPhone.csv", ARKIT, values(), 60)
            sound(take / f"Take{k}.wav")
    return tmp_path / "takes"


def test_takes_of_an_app(takes, tmp_path):
    report = convert_coefficients(takes, tmp_path / "out")
    assert report.problems == [] and report.fps == 60 and len(report.written) == 6
    faults = check_corpus(tmp_path / "out")
    assert [fault.message[:12] for fault in faults] == ["no basis.npz"]
    corpora = {split: FaceCorpus(tmp_path / "out", split) for split in ("train", "validation", "test")}
    assert [len(corpus) for corpus in corpora.values()] == [2, 2, 2]
    corpus = corpora["train"]
    assert corpus.subjects == ["ann", "bob"] and corpus.fps == 30 and corpus.names[0] == "ann_sentence03"
    columns = [corpus.rig.names.index(name) for name in ARKIT]
    found = corpus["ann_sentence03"].coefficients[:, columns]
    np.testing.assert_allclose(found, values()[::2][: len(found)], rtol=0, atol=1e-6)


def test_names_that_are_ours_are_kept_and_rates_brought_together(tmp_path):
    for k, fps in ((7, 30), (8, 60), (9, 30)):
        np.save(tmp_path / f"ann_sentence{k:02d}.npy", values(fps=fps))
        sound(tmp_path / f"ann_sentence{k:02d}.wav")
    report = convert_coefficients(tmp_path, tmp_path.parent / f"{tmp_path.name}_out")
    assert sorted(report.written) == ["ann_sentence07", "ann_sentence08", "ann_sentence09"] and report.fps == 30
    assert "brought from 60 to 30 fps" in report.notes
    stored = np.load(report.root / "coefficients_npy" / "ann_sentence08.npy")
    np.testing.assert_allclose(stored, values(fps=60)[::2], rtol=0, atol=1e-6)
    about = json.loads((report.root / "corpus.json").read_text())
    assert about["frame_step"] == 1 and about["splits"]["train"]["sentences"] == [9, 9]


def test_beats_names_and_a_shape_that_some_lack(tmp_path):
    source = tmp_path / "beat"
    for k in range(3):
        frames = [{"weights": row.tolist(), "time": t / 60} for t, row in enumerate(values()[:, : 51 + (k == 0)])]
        source.mkdir(exist_ok=True)
        content = {"names": list(ARKIT[: 51 + (k == 0)]), "frames": frames}
        (source / f"1_wayne_0_{k}_{k}.json").write_text(json.dumps(content))
        sound(source / f"1_wayne_0_{k}_{k}.wav")
    report = convert_coefficients(source, tmp_path / "out")
    assert sorted(report.written) == [f"wayne_sentence0{k}" for k in (1, 2, 3)]
    assert (
        report.names == ARKIT
        and "tongueOut is taken for 0 where a recording lacks it (in 2 recordings)" in report.notes
    )


def test_a_face_goes_into_the_corpus(takes, tmp_path):
    basis = rig_of(RNG.normal(size=(40, 3)))
    basis.save(tmp_path / "basis.npz")
    with pytest.raises(UserError, match="basis.npz: has no shape eyeBlinkLeft"):
        convert_coefficients(takes, tmp_path / "out", basis=tmp_path / "basis.npz")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_read_is_left_out_and_told(takes, tmp_path, capsys):
    (takes / "ann" / "take0" / "Take0_iPhone.csv").write_text("Timecode,BlendShapeCount,JawOpen\n1,2,3\n")
    (takes / "ann" / "take1" / "Take1.wav").unlink()
    assert main(["coefficients", str(takes), str(tmp_path / "out"), "--subject", "zoe"]) == 0
    told = capsys.readouterr().out
    assert "4 recordings" in told and "row 2: '1' is no timecode" in told and "has no sound" in told
    assert main(["coefficients", str(takes), str(tmp_path / "out")]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_what_is_broken_off_leaves_nothing(takes, tmp_path, monkeypatch):
    written = []

    def break_off(path, array):
        written.append(path)
        if len(written) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("s2f_rl.data.coefficients.convert.atomic_save_npy", break_off)
    with pytest.raises(KeyboardInterrupt):
        convert_coefficients(takes, tmp_path / "out")
    assert len(written) == 2 and [each.name for each in tmp_path.iterdir()] == ["takes"]


@pytest.mark.parametrize("fps", [5, 240])
def test_a_rate_that_no_corpus_has(tmp_path, fps):
    np.save(tmp_path / "ann_sentence01.npy", values(fps=fps))
    sound(tmp_path / "ann_sentence01.wav")
    with pytest.raises(UserError, match=f"ann_sentence01.npy: has {fps} frames per second; 10 to 120 are animated"):
        convert_coefficients(tmp_path, tmp_path / "out", fps=fps)
    assert not (tmp_path / "out").exists()


def test_nothing_to_read(tmp_path):
    with pytest.raises(UserError, match="holds no recording"):
        convert_coefficients(tmp_path, tmp_path / "out")
    with pytest.raises(UserError, match="no such folder"):
        convert_coefficients(tmp_path / "absent", tmp_path / "out")
    np.save(tmp_path / "a.npy", values())
    sound(tmp_path / "a.wav")
    with pytest.raises(UserError, match="does not say who speaks"):
        convert_coefficients(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
