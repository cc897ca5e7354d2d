"""Names of utterances, whatever the case of the suffix."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from s2f_rl.data import FaceCorpus
from s2f_rl.data.check import check_corpus
from s2f_rl.data.listing import list_names, list_sounds
from s2f_rl.errors import UserError
from s2f_rl.evaluation.speech import WavFolder
from tests.tiny import make_tiny_corpus


def test_sounds(tmp_path: Path) -> None:
    for name in ("b.WAV", "a.wav", "c.Wav", "d.mp3", "._a.wav", ".hidden.wav", "e.f.wav", "wav"):
        (tmp_path / name).touch()
    assert list(list_sounds(tmp_path)) == ["a", "b", "c", "e.f"]
    assert list_sounds(tmp_path)["b"] == tmp_path / "b.WAV"
    assert list_names(tmp_path, ".mp3") == {"d"}
    assert list_sounds(tmp_path / "absent") == {} and list_names(tmp_path / "absent", ".npy") == set()


def test_two_files_of_one_name(tmp_path: Path) -> None:
    for name in ("a.wav", "a.WAV"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"a\.wav: differs from a\.WAV only in case; rename or remove one of them"):
        list_sounds(tmp_path)


class TestCorpus:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return make_tiny_corpus(tmp_path / "corpus")

    def test_suffixes_in_upper_case(self, root: Path) -> None:
        def content(utterance):
            return [utterance.name, *(x.numpy() for x in (utterance.waveform, utterance.mel_clips, utterance.vertices))]

        before = [content(utterance) for utterance in FaceCorpus(root, "all")]
        folder = [WavFolder(root / "wav").n_frames(i) for i in range(6)]
        for k, path in enumerate(sorted((root / "wav").iterdir())):
            path.rename(path.with_suffix((".WAV", ".Wav")[k % 2]))
        after = [content(utterance) for utterance in FaceCorpus(root, "all")]
        for old, new in zip(before, after, strict=True):
            assert old[0] == new[0]
            for a, b in zip(old[1:], new[1:], strict=True):
                np.testing.assert_array_equal(a, b)
        assert list(check_corpus(root)) == [] and check_corpus(root).counts.seconds > 3
        assert [WavFolder(root / "wav").n_frames(i) for i in range(6)] == folder

    def test_two_of_one_name_are_refused_and_found(self, root: Path) -> None:
        shutil.copy(root / "wav" / "S1_sentence01.wav", root / "wav" / "S1_sentence01.WAV")
        with pytest.raises(UserError, match="only in case"):
            FaceCorpus(root)
        with pytest.raises(UserError, match="only in case"):
            WavFolder(root / "wav")
        faults = check_corpus(root)
        assert [(f.severity, f.file) for f in faults] == [
            ("error", "wav/S1_sentence01.WAV"),
            ("error", "wav/S1_sentence01.wav"),
        ]
        assert all("differs from another only in case" in fault.message for fault in faults)

    def test_half_a_file_is_refused_wherever_it_is_opened(self, root: Path) -> None:
        path = root / "wav" / "S0_sentence01.wav"
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        utterance = FaceCorpus(root)["S0_sentence01"]
        for look in ("n_frames", "waveform", "waveform_raw", "mel_clips", "vertices"):
            with pytest.raises(UserError, match=r"S0_sentence01\.wav: truncated, \d+ samples where its header states"):
                getattr(utterance, look)
        with pytest.raises(UserError, match="truncated"):
            WavFolder(root / "wav").n_frames(0)
        (fault,) = check_corpus(root)
        assert (fault.severity, fault.file) == ("error", "wav/S0_sentence01.wav") and "truncated" in fault.message
