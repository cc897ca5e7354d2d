"""`s2f-rl score` on hostile folders, after a kill, and without a corpus."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from s2f_rl.data import FaceCorpus, mel_clips
from s2f_rl.data.audio import read_wav, resample
from s2f_rl.errors import UserError
from s2f_rl.evaluation import score as module
from s2f_rl.evaluation.partial_rows import PartialRows
from s2f_rl.evaluation.score import score_folder
from s2f_rl.evaluation.speech import WavFolder
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from s2f_rl.rewards.judge.judge import Judge
from tests.tiny import make_tiny_corpus

N = 40  # vertices
ZOE = "Zo\u00eb"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("score")
    torch.manual_seed(0)
    model = RewardModel(SpeechMeshTransformer(3 * N, width=16, depth=1, n_heads=2), ScoreHead(16, 16, 8))
    torch.nn.init.normal_(model.head.value.weight)
    model.save(folder / "reward")
    make_tiny_corpus(folder / "corpus", n_subjects=3, n_sentences=2)
    return folder


@pytest.fixture
def meshes(root: Path, tmp_path: Path) -> Path:
    """Two motions of one utterance and one of another."""
    corpus = FaceCorpus(root / "corpus", split="all")
    folder = tmp_path / "meshes"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, scale in (("S0_sentence01_condition_S1", 1), ("S0_sentence01", 2), ("S2_sentence02", 1)):
        motion = corpus[name.split("_cond")[0]].vertices.numpy()
        np.save(folder / f"{name}.npy", (motion + rng.normal(0, 1e-3 * scale, motion.shape)).astype(np.float32))
    return folder


def score(root: Path, meshes: Any, out: Path, **options: Any) -> list[dict[str, Any]]:
    return score_folder(meshes, root / "corpus", root / "reward", out, progress=False, **options)


def assert_same(row: dict[str, Any], motion: np.ndarray, clips: torch.Tensor, model: RewardModel) -> None:
    """Against one clip at a time."""
    found = []
    for i in range(min(len(clips), len(motion) - 4)):
        part = torch.from_numpy(motion[i : i + 5]).float()
        if torch.isfinite(part).all():
            with torch.no_grad():
                mesh, audio = model.backbone(part[None], clips[i][None, None])
                found.append([float(s) for s in model.head(audio, mesh)])
    assert row["clips"] == len(found) > 0
    for key, value in zip(("lip_score", "real_score", "value"), np.mean(found, axis=0), strict=True):
        assert row[key] == pytest.approx(value, abs=1e-5)


class TestNumbers:
    def test_judge_against_whole_sequences(self, root: Path, meshes: Path, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setattr(module, "_READ_FRAMES", 2)  # windows across the pieces that are read
        torch.manual_seed(0)
        judge = Judge(torch.randn(5, 3 * N), torch.zeros(3 * N), 8, 6).frozen()
        judge.save(tmp_path / "judge")
        corpus = FaceCorpus(root / "corpus", split="all")
        rows = score_folder(meshes, root / "corpus", tmp_path / "judge", tmp_path / "o.csv", progress=False)
        for row in rows:
            motion, clips = np.load(meshes / row["file"]), corpus[row["utterance"]].mel_clips
            found = judge.score(motion, clips[: len(motion) - 4])
            assert row["clips"] == int(found["score_mask"].sum()) and set(row) == {
                "file", "utterance", "lip_score", "real_score", "clips",
            }  # fmt: skip
            for name in ("lip_score", "real_score"):
                mean = float(found[name][found["score_mask"]].mean())
                assert row[name] == pytest.approx(mean, abs=1e-5, nan_ok=True)
        assert max(row["clips"] for row in rows) > 2

    @pytest.mark.parametrize("batch", [1, 2, 8])
    def test_against_the_plain_loop(self, root: Path, meshes: Path, tmp_path: Path, batch: int, monkeypatch) -> None:
        monkeypatch.setattr(module, "_READ_FRAMES", 7)  # clips across the pieces that are read
        broken = np.load(meshes / "S2_sentence02.npy")
        broken[6, 3] = np.nan
        np.save(meshes / "S2_sentence02.npy", broken)
        corpus, model = FaceCorpus(root / "corpus", split="all"), RewardModel.load(root / "reward")
        rows = score(root, meshes, tmp_path / "o.csv", batch=batch)
        assert [row["file"] for row in rows] == sorted(p.name for p in meshes.iterdir())
        for row in rows:
            assert_same(row, np.load(meshes / row["file"]), corpus[row["utterance"]].mel_clips, model)
        with open(tmp_path / "o.csv", newline="", encoding="utf-8") as file:
            assert [r["file"] for r in csv.DictReader(file)] == [row["file"] for row in rows]
        assert sorted(p.name for p in tmp_path.iterdir()) == ["meshes", "o.csv"]

    def test_types_of_numbers(self, root: Path, meshes: Path, tmp_path: Path) -> None:
        motion = np.load(meshes / "S0_sentence01.npy")
        one = score(root, meshes / "S0_sentence01.npy", tmp_path / "o.csv")
        np.save(meshes / "S0_sentence01.npy", np.asfortranarray(motion.astype(np.float64)).reshape(-1, N, 3))
        assert score(root, meshes / "S0_sentence01.npy", tmp_path / "o.csv")[0] == pytest.approx(one[0], abs=1e-6)

    def test_same_name_in_two_folders(self, root: Path, meshes: Path, tmp_path: Path) -> None:
        for name in ("a", "b"):
            (meshes / name).mkdir()
            source = meshes / f"S0_sentence01{'' if name == 'a' else '_condition_S1'}.npy"
            shutil.move(source, meshes / name / "S0_sentence01.npy")
        (meshes / ".hidden.npy").write_bytes(b"")
        rows = score(root, meshes, tmp_path / "o.csv")
        assert [row["file"] for row in rows] == ["S2_sentence02.npy", "a/S0_sentence01.npy", "b/S0_sentence01.npy"]
        assert rows[1]["lip_score"] != rows[2]["lip_score"]
        files = [meshes / "a" / "S0_sentence01.npy", meshes / "b" / "S0_sentence01.npy"]
        again = score(root, files, tmp_path / "p.csv")
        assert [row["file"] for row in again] == [p.as_posix() for p in files]

    def test_a_long_sequence_is_not_read_whole(self, root: Path, meshes: Path, tmp_path: Path) -> None:
        """A sparse file of 2.4 GB: only the frames that have speech are touched."""
        path = meshes / "S0_sentence01.npy"
        motion = np.load(path)
        short = score(root, path, tmp_path / "o.csv")[0]
        long = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(5_000_000, 3 * N))
        long[: len(motion)] = motion
        del long
        row = score(root, path, tmp_path / "o.csv")[0]
        extra = row["clips"] - short["clips"]  # the speech may go on for a frame or two
        assert 0 <= extra <= 4 and path.stat().st_size > 2e9
        if extra == 0:
            assert row == pytest.approx(short, abs=1e-6)

    def test_another_frame_rate_is_told(self, root: Path, tmp_path: Path, caplog) -> None:
        stored = root / "corpus" / "vertices_npy" / "S0_sentence01.npy"  # 60 frames a second
        with caplog.at_level(logging.WARNING):
            score(root, stored, tmp_path / "o.csv")
        assert "check the frame rate" in caplog.text


class TestHostile:
    @pytest.fixture
    def never(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def scored(*_: Any) -> None:
            raise AssertionError("a sequence was scored before all were checked")

        monkeypatch.setattr(module, "_score", scored)

    def break_file(self, path: Path, how: str) -> None:
        motion = np.zeros((30, 3 * N), dtype=np.float32)
        if how == "truncated":
            np.save(path, motion)
            path.write_bytes(path.read_bytes()[:-100])
        elif how == "objects":
            np.save(path, np.array([{}], dtype=object), allow_pickle=True)
        elif how == "width":
            np.save(path, motion[:, :-3])
        elif how == "no frame":
            np.save(path, motion[:0])
        elif how == "one row":
            np.save(path, motion[0])
        elif how == "words":
            np.save(path, np.array(["a"]))
        elif how == "empty":
            path.write_bytes(b"")
        elif how == "folder":
            path.mkdir()
        elif how == "link":
            path.symlink_to("nowhere")

    @pytest.mark.parametrize(
        "how", ["truncated", "objects", "width", "no frame", "one row", "words", "empty", "folder", "link"]
    )
    def test_files(self, root: Path, meshes: Path, tmp_path: Path, how: str, never: None) -> None:
        path = meshes / "S2_sentence01.npy"
        self.break_file(path, how)
        with pytest.raises(UserError) as caught:
            score(root, meshes, tmp_path / "o.csv")
        line = str(caught.value)
        assert str(path) in line and "\n" not in line and (";" in line or "expected" in line)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["meshes"]

    def test_names(self, root: Path, meshes: Path, tmp_path: Path, never: None) -> None:
        motion = (meshes / "S2_sentence02.npy").read_bytes()
        (meshes / "Zo\u00eb_sentence01.npy").write_bytes(motion)
        with pytest.raises(UserError, match="Zo\u00eb_sentence01"):
            score(root, meshes, tmp_path / "o.csv")
        (meshes / "Zo\u00eb_sentence01.npy").unlink()
        try:
            Path(os.fsdecode(bytes(meshes) + b"/S2_sentence02_condition_\xff.npy")).write_bytes(motion)
        except OSError:
            return  # this file system has no such names
        with pytest.raises(UserError, match="not UTF-8"):
            score(root, meshes, tmp_path / "o.csv")

    def test_speech(self, root: Path, meshes: Path, tmp_path: Path, never: None) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(root / "corpus", copy)
        (copy / "wav" / "S0_sentence01.wav").write_bytes(b"RIFF")
        with pytest.raises(UserError, match=r"S0_sentence01\.wav"):
            score_folder(meshes, copy, root / "reward", tmp_path / "o.csv", progress=False)

    def test_out(self, root: Path, meshes: Path, tmp_path: Path, never: None) -> None:
        (tmp_path / "file").write_text("")
        for out in (tmp_path / "file" / "o.csv", tmp_path):
            with pytest.raises(UserError, match=r"writable|is a folder"):
                score(root, meshes, out)

    def test_arguments(self, root: Path, meshes: Path, tmp_path: Path) -> None:
        out = tmp_path / "o.csv"
        for arguments, options, message in (
            ((meshes, None), {}, "one of"),
            ((meshes, root / "corpus"), {"wavs": meshes}, "one of"),
            ((meshes, root / "corpus"), {"fps": 30.0}, "fps"),
            ((meshes, None), {"wavs": root / "corpus" / "wav", "fps": 0.0}, "fps"),
            ((meshes, None), {"wavs": meshes}, "no .wav"),
            ((meshes, None), {"wavs": meshes / "absent"}, "no such folder"),
            (([meshes, meshes / "S0_sentence01.npy"], root / "corpus"), {}, "is a folder"),
        ):
            with pytest.raises(UserError, match=message):
                score_folder(*arguments, root / "reward", out, progress=False, **options)


class TestGoingOn:
    def interrupted(self, root: Path, meshes: Path, out: Path, monkeypatch, after: int) -> None:
        real, calls = module._score, []

        def stop(*arguments: Any) -> Any:
            if len(calls) == after:
                raise KeyboardInterrupt
            calls.append(1)
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(module, "_score", stop)
            with pytest.raises(KeyboardInterrupt):
                score(root, meshes, out, batch=1)

    def counted(self, monkeypatch) -> list[str]:
        real, names = module._score, []

        def count(jobs: Any, *rest: Any) -> Any:
            names.extend(job.name for job in jobs)
            return real(jobs, *rest)

        monkeypatch.setattr(module, "_score", count)
        return names

    def test_finished_rows_are_kept(self, root: Path, meshes: Path, tmp_path: Path, monkeypatch) -> None:
        whole = score(root, meshes, tmp_path / "whole.csv")
        out = tmp_path / "o.csv"
        self.interrupted(root, meshes, out, monkeypatch, after=2)
        part = out.with_name("o.csv.part")
        assert not out.exists() and len(part.read_text().splitlines()) == 3
        part.write_text(part.read_text() + '["S2_sentence02.npy 1 2 3", {"fi')  # a kill in the middle of a line
        names = self.counted(monkeypatch)
        for row, expected in zip(score(root, meshes, out), whole, strict=True):
            assert row == pytest.approx(expected, abs=1e-6)
        assert names == ["S2_sentence02.npy"] and not part.exists()
        assert (tmp_path / "whole.csv").read_text().splitlines()[0] == out.read_text().splitlines()[0]

    def test_nothing_old_is_kept(self, root: Path, meshes: Path, tmp_path: Path, monkeypatch) -> None:
        """A mesh written anew, another reward, and a part file of anybody's are scored again."""
        out = tmp_path / "o.csv"
        self.interrupted(root, meshes, out, monkeypatch, after=2)
        np.save(meshes / "S0_sentence01.npy", np.load(meshes / "S0_sentence01.npy") + 1e-3)
        names = self.counted(monkeypatch)
        score(root, meshes, out)
        assert sorted(names) == ["S0_sentence01.npy", "S2_sentence02.npy"]
        self.interrupted(root, meshes, out, monkeypatch, after=2)
        part = out.with_name("o.csv.part")
        about, *lines = part.read_text().splitlines()
        part.write_text("\n".join([json.dumps(json.loads(about) | {"reward": "another"}), *lines]))
        names.clear()
        score(root, meshes, out)
        assert len(names) == 3
        for content in (b"", b"\xff\xfe", b"[]\n", json.dumps({"reward": "other"}).encode() + b"\n"):
            names.clear()
            out.with_name("o.csv.part").write_bytes(content)
            score(root, meshes, out)
            assert len(names) == 3

    def test_a_kill_while_it_begins_again_loses_nothing(self, tmp_path: Path, monkeypatch) -> None:
        about = {"reward": "a"}
        with pytest.raises(KeyboardInterrupt), PartialRows(tmp_path / "o.csv", about) as rows:
            rows.add("one", {"value": 1})
            raise KeyboardInterrupt
        before = (tmp_path / "o.csv.part").read_bytes()

        def kill(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("os.replace", kill)
            PartialRows(tmp_path / "o.csv", about)
        assert (tmp_path / "o.csv.part").read_bytes() == before
        with PartialRows(tmp_path / "o.csv", about) as rows:
            assert rows.found == {"one": {"value": 1}}

    def test_a_first_failure_leaves_nothing(self, root: Path, meshes: Path, tmp_path: Path, monkeypatch) -> None:
        self.interrupted(root, meshes, tmp_path / "o.csv", monkeypatch, after=0)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["meshes"]


class TestWavFolder:
    def test_equal_to_the_corpus(self, root: Path, meshes: Path, tmp_path: Path) -> None:
        with_corpus = score(root, meshes, tmp_path / "a.csv")
        wavs = root / "corpus" / "wav"
        alone = score_folder(meshes, None, root / "reward", tmp_path / "b.csv", wavs=wavs, progress=False)
        for a, b in zip(with_corpus, alone, strict=True):
            assert a == pytest.approx(b, abs=1e-6)

    def test_suffixes_in_upper_case_and_half_a_file(self, root: Path, meshes: Path, tmp_path: Path) -> None:
        shutil.copytree(root / "corpus", tmp_path / "corpus")
        wavs = tmp_path / "corpus" / "wav"
        for path in wavs.iterdir():
            path.rename(path.with_suffix(".WAV"))
        expected = score(root, meshes, tmp_path / "a.csv")
        for speech in ({"wavs": wavs, "corpus_root": None}, {"corpus_root": tmp_path / "corpus"}):
            rows = score_folder(meshes, reward=root / "reward", out=tmp_path / "b.csv", progress=False, **speech)
            for a, b in zip(expected, rows, strict=True):
                assert a == pytest.approx(b, abs=1e-6)
            (tmp_path / "b.csv").unlink()
        content = (wavs / "S2_sentence02.WAV").read_bytes()
        (wavs / "S2_sentence02.WAV").write_bytes(content[: len(content) // 2])
        for speech in ({"wavs": wavs, "corpus_root": None}, {"corpus_root": tmp_path / "corpus"}):
            with pytest.raises(UserError, match=r"S2_sentence02\.WAV: truncated, \d+ samples"):
                score_folder(meshes, reward=root / "reward", out=tmp_path / "b.csv", progress=False, **speech)
        assert not (tmp_path / "b.csv").exists()

    def test_frame_rate(self, root: Path, meshes: Path, tmp_path: Path) -> None:
        wavs = root / "corpus" / "wav"
        waveform, rate = read_wav(wavs / "S0_sentence01.wav")
        folder = WavFolder(wavs, fps=25.0)
        index = folder.names.index("S0_sentence01")
        expected = mel_clips(resample(waveform, rate, 16000))
        assert torch.equal(folder[index].mel_clips, expected)
        assert WavFolder(wavs, "biwi").fps == 25 and WavFolder(wavs).fps == 30
        assert abs(folder.n_frames(index) - len(waveform) / rate * 25) < 3
        path = meshes / "S0_sentence01.npy"
        (row,) = score_folder(path, None, root / "reward", tmp_path / "o.csv", wavs=wavs, fps=25.0, progress=False)
        assert_same(row, np.load(path), expected, RewardModel.load(root / "reward"))

    def test_accents_in_two_spellings(self, root: Path, meshes: Path, tmp_path: Path) -> None:
        wavs, folder = tmp_path / "wavs", tmp_path / "named"
        wavs.mkdir()
        folder.mkdir()
        shutil.copy(root / "corpus" / "wav" / "S0_sentence01.wav", wavs / "Zo\u00eb.wav")
        shutil.copy(meshes / "S0_sentence01.npy", folder / f"{unicodedata.normalize('NFD', ZOE)}.npy")
        (row,) = score_folder(folder, None, root / "reward", tmp_path / "o.csv", wavs=wavs, progress=False)
        assert row["clips"] > 0
