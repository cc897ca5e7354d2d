"""The content of a corpus as hashes: what changes them, what does not, and what is read for them."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s2f_rl.data import FaceCorpus
from s2f_rl.data import content as module
from s2f_rl.data.content import STORE, corpus_content
from s2f_rl.errors import UserError
from tests.tiny import make_tiny_corpus

UTTERANCE = "S0_sentence01"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = make_tiny_corpus(tmp_path / "corpus", n_subjects=4, n_sentences=2)
    (root / "phones").mkdir()
    (root / "phones" / f"{UTTERANCE}.json").write_text("[]")
    return root


def content(root: Path, **options: Any) -> dict[str, str]:
    return corpus_content([FaceCorpus(root, split) for split in ("train", "validation")], **options)


def later(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """An hour later, so that the files are old enough to be remembered; the list of those that are read from now on."""
    now = time.time_ns() + 3600 * 10**9
    monkeypatch.setattr(module.time, "time_ns", lambda: now)
    read: list[Path] = []
    hash_file = module._hash_file
    monkeypatch.setattr(module, "_hash_file", lambda file: (read.append(file), hash_file(file))[1])
    return read


def reverse_motion(root: Path) -> None:
    path = root / "vertices_npy" / f"{UTTERANCE}.npy"
    stat = path.stat()
    np.save(path, np.load(path)[::-1])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a careful copy would set it
    assert path.stat().st_size == stat.st_size


def change_a_middle_byte(root: Path) -> None:
    path = root / "wav" / f"{UTTERANCE}.wav"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def change_description(root: Path) -> None:
    description = json.loads((root / "corpus.json").read_text())
    description["training_subjects"].reverse()
    (root / "corpus.json").write_text(json.dumps(description))


def append(path: str) -> Any:
    def change(root: Path) -> None:
        with open(root / path, "ab") as file:
            file.write(b" ")

    return change


CHANGES = {
    "vertices_npy": reverse_motion,
    "wav": change_a_middle_byte,
    "description": change_description,
    "templates": append("templates.pkl"),
    "regions": append("FLAME_masks.pkl"),
    "faces": append("faces.npy"),
    "phones": append(f"phones/{UTTERANCE}.json"),
}


class TestContent:
    @pytest.mark.parametrize("part", CHANGES)
    def test_a_change_shows_in_its_part_alone(self, root: Path, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
        later(monkeypatch)
        before = content(root)
        assert (root / STORE).exists()
        CHANGES[part](root)
        after = content(root)
        assert [key for key in before if before[key] != after[key]] == [part]

    def test_another_utterance(self, root: Path) -> None:
        before = content(root)
        for folder, suffix in (("wav", "wav"), ("vertices_npy", "npy")):
            shutil.move(root / folder / f"S1_sentence02.{suffix}", root / folder / f"S1_sentence01.{suffix}")
        after = content(root)
        assert {key for key in before if before[key] != after[key]} == {"utterances", "wav", "vertices_npy"}

    def test_what_no_training_reads_may_change(self, root: Path) -> None:
        before = content(root)
        change_test = root / "wav" / "S3_sentence01.wav"  # a test speaker
        change_test.write_bytes(change_test.read_bytes() + b" ")
        description = json.loads((root / "corpus.json").read_text())
        description["splits"]["mine"] = {"subjects": ["S3"], "sentences": [1, 1]}
        (root / "corpus.json").write_text(json.dumps(description, indent=4, sort_keys=True))
        (root / "transcripts.json").write_text("{}")
        [corpus[0].mel_clips for corpus in [FaceCorpus(root)]]  # writes its clips
        assert content(root) == before

    def test_a_copy_elsewhere_is_the_same(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        later(monkeypatch)
        before = content(root)
        shutil.copytree(root, root.parent / "moved", copy_function=shutil.copyfile)
        assert content(root.parent / "moved") == before

    def test_files_are_read_once(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        read = later(monkeypatch)
        before = content(root)
        assert len(read) == 4 + 1 + 6 + 6  # templates, masks, landmarks, faces; phones; sound; motion
        read.clear()
        assert content(root) == before and read == []
        touched = root / "wav" / f"{UTTERANCE}.wav"
        os.utime(touched)
        assert content(root) == before and read == [touched]

    def test_a_fresh_file_is_not_remembered(self, root: Path) -> None:
        """It could change again within one tick of the file system's clock, and nothing would tell."""
        content(root)
        assert not (root / STORE).exists()

    def test_where_the_corpus_cannot_be_written(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = later(monkeypatch)
        (root / STORE).mkdir()  # root can write everywhere, but not over a folder
        (tmp_path / "run").mkdir()
        before = content(root, spare=tmp_path / "run")
        assert (tmp_path / "run" / STORE).is_file()
        read.clear()
        assert content(root, spare=tmp_path / "run") == before and read == []

    @pytest.mark.parametrize("store", ["", "[1]", '{"wav/S0_sentence01.wav": 3}', '{"wav/S0_sentence01.wav": [1, 2]}'])
    def test_a_broken_store_is_no_store(self, root: Path, store: str) -> None:
        before = content(root)
        (root / STORE).write_text(store)
        assert content(root) == before

    def test_a_missing_file_is_named(self, root: Path) -> None:
        corpora = [FaceCorpus(root, "train")]
        (root / "wav" / f"{UTTERANCE}.wav").unlink()
        with pytest.raises(UserError, match=UTTERANCE):
            corpus_content(corpora)
