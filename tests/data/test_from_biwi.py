"""The BIWI converter on a small corpus of the published form."""

from __future__ import annotations

import io
import os
import shutil
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from s2f_rl.data import FaceCorpus, check_corpus, prepare_biwi
from s2f_rl.errors import UserError

V = 26
RATE = 44100


def _face() -> tuple[np.ndarray, np.ndarray]:
    """A ring of points in millimetres about 200 mm across, and triangles."""
    angle = 2 * np.pi * np.arange(V - 1) / (V - 1)
    ring = np.column_stack([100 * np.cos(angle), 110 * np.sin(angle), 20 * np.cos(2 * angle)])
    faces = np.array([[0, 1 + k, 1 + (k + 1) % (V - 1)] for k in range(V - 1)])
    return np.concatenate([[[0.0, 0.0, 60.0]], ring]) + [5, -7, 900], faces


def _vl(frame: np.ndarray) -> bytes:
    return struct.pack("<I", len(frame)) + frame.astype("<f4").tobytes()


def _area(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Surface area by Heron's formula, triangle by triangle."""
    total = 0.0
    for a, b, c in vertices[faces]:
        sides = np.linalg.norm(a - b), np.linalg.norm(b - c), np.linalg.norm(c - a)
        s = sum(sides) / 2
        total += np.sqrt(s * (s - sides[0]) * (s - sides[1]) * (s - sides[2]))
    return total


def _published(frame: np.ndarray, faces: np.ndarray) -> np.ndarray:
    turned = np.stack([frame[:, 0], -frame[:, 1], -frame[:, 2]], axis=1)
    return (turned - turned.mean(axis=0)) / np.sqrt(_area(turned, faces))


class Raw:
    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        self.folder = folder
        self.face, self.faces = _face()
        (folder / "rigid_scans").mkdir(parents=True)
        (folder / "audio").mkdir()
        self.frames: dict[str, np.ndarray] = {}
        obj = "".join(f"v {x} {y} {z}\n" for x, y, z in self.face)
        obj += "".join(f"f {a + 1}/1 {b + 1}/1 {c + 1}/1\n" for a, b, c in self.faces)
        for subject in ("F2", "M1"):
            (folder / "rigid_scans" / f"{subject}.obj").write_text(obj)
            for sentence in ("e01", "e37", "02"):
                n = int(rng.integers(20, 30))
                self.frames[f"{subject}_{sentence}"] = self.face + 3 * rng.normal(size=(n, V, 3))
                self._write_frames(subject, sentence)
                sound = (0.1 * rng.normal(size=int(n / 25 * RATE))).astype(np.float32)
                soundfile.write(folder / "audio" / f"{subject}_{sentence}_cut.wav", sound, RATE, subtype="PCM_16")

    def _write_frames(self, subject: str, sentence: str) -> None:
        frames = self.frames[f"{subject}_{sentence}"]
        path = self.folder / "faces" / subject / sentence
        if subject == "F2":  # unpacked
            path.mkdir(parents=True)
            for t, frame in enumerate(frames, start=1):
                (path / f"frame_{t:03d}.vl").write_bytes(_vl(frame))
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path.with_name(f"{sentence}.tar"), "w") as archive:
            for t, frame in reversed(list(enumerate(frames, start=1))):
                member = tarfile.TarInfo(f"{sentence}/frame_{t}.vl")
                member.size = len(_vl(frame))
                archive.addfile(member, io.BytesIO(_vl(frame)))


@pytest.fixture
def raw(tmp_path: Path) -> Raw:
    return Raw(tmp_path / "raw")


def test_the_published_preprocessing(raw: Raw, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = prepare_biwi(raw.folder, out, n_vertices=V, progress=False)
    assert (report.n_utterances, report.n_recorded, report.problems) == (4, 4, [])
    for name in ("F2_e01", "M1_e37"):
        expected = np.stack([_published(frame.astype(np.float32), raw.faces) for frame in raw.frames[name]])
        written = np.load(out / "vertices_npy" / f"{name}.npy")
        np.testing.assert_allclose(written.reshape(expected.shape), expected, atol=2e-6)
        source = (raw.folder / "audio" / f"{name}_cut.wav").read_bytes()
        assert (out / "wav" / f"{name}.wav").read_bytes() == source
    corpus = FaceCorpus(out)
    assert corpus.names == ["F2_e01"] and FaceCorpus(out, "test_seen").names == ["F2_e37"]
    assert FaceCorpus(out, "test").names == ["M1_e37"] and len(corpus.subjects) == 6
    assert (corpus.topology, corpus.fps) == ("biwi", 25)
    metres = np.sqrt(_area(raw.face, raw.faces)) / 1000
    in_metres = metres * _published(raw.face, raw.faces).reshape(-1)
    np.testing.assert_allclose(corpus[0].template.numpy(), in_metres, atol=1e-6)
    assert corpus.metres_per_unit == pytest.approx(metres, rel=1e-9)
    assert corpus.metadata["metres_per_unit_by_subject"]["F2"] == pytest.approx(metres, rel=1e-9)
    assert corpus.faces is not None and corpus.faces.tolist() == raw.faces.tolist()
    assert not check_corpus(out).has_errors


def test_metres(raw: Raw, tmp_path: Path) -> None:
    prepare_biwi(raw.folder, tmp_path, units="metres", n_vertices=V, progress=False)
    frame = raw.frames["F2_e01"][3] * [1, -1, -1] / 1000
    written = np.load(tmp_path / "vertices_npy" / "F2_e01.npy")[3].reshape(-1, 3)
    np.testing.assert_allclose(written, frame - frame.mean(axis=0), atol=1e-7)
    corpus = FaceCorpus(tmp_path)
    assert corpus.metres_per_unit == 1.0 and corpus.metadata["units"] == "metres"


def test_the_neutral_recordings(raw: Raw, tmp_path: Path) -> None:
    assert prepare_biwi(raw.folder, tmp_path / "n", sequences="neutral", n_vertices=V, progress=False).n_utterances == 2
    assert prepare_biwi(raw.folder, tmp_path / "a", sequences="all", n_vertices=V, progress=False).n_utterances == 6
    assert FaceCorpus(tmp_path / "n").names == ["F2_02"]
    assert FaceCorpus(tmp_path / "a").names == ["F2_e01"]  # as FaceFormer: the emotional ones where there are both


def test_a_second_run_keeps_what_is_complete(raw: Raw, tmp_path: Path) -> None:
    prepare_biwi(raw.folder, tmp_path, n_vertices=V, progress=False)
    path = tmp_path / "vertices_npy" / "M1_e01.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    report = prepare_biwi(raw.folder, tmp_path, n_vertices=V, progress=False)
    assert (report.n_written, report.n_kept) == (1, 7) and path.read_bytes() == whole


def test_faulty_sequences_are_listed_and_the_others_converted(raw: Raw, tmp_path: Path) -> None:
    faces = raw.folder / "faces"
    (faces / "F2" / "e01" / "frame_005.vl").unlink()
    (faces / "F2" / "e37" / "frame_003.vl").write_bytes(b"\x1a\x00\x00\x00short")
    (faces / "M1" / "e01.tar").write_bytes(b"no archive")
    (raw.folder / "audio" / "M1_e37_cut.wav").unlink()
    (faces / "F9" / "e01").mkdir(parents=True)
    (faces / "F9" / "e01" / "frame_001.vl").write_bytes(_vl(raw.face))
    report = prepare_biwi(raw.folder, tmp_path / "out", n_vertices=V, progress=False)
    text = "\n".join(report.problems)
    for expected in (
        "F2_e01: lacks 1 frames",
        "F2_e37: ",
        "frame_003.vl: 26 vertices in 9 bytes",
        "e01.tar: holds no readable .vl frames",
        "M1_e37: has no sound",
        "F9_e01: has no template",
    ):
        assert expected in text, expected
    corpus = FaceCorpus(tmp_path / "out", "all")
    assert corpus.names == ["F2_e01", "F2_e37"] and corpus["F2_e37"].vertices is None


def test_a_template_in_another_pose_is_told(raw: Raw, tmp_path: Path) -> None:
    path = raw.folder / "rigid_scans" / "F2.obj"
    turned = raw.face * [1, -1, -1]
    lines = [f"v {x} {y} {z}\n" for x, y, z in turned] + [line + "\n" for line in path.read_text().splitlines()[V:]]
    path.write_text("".join(lines))
    report = prepare_biwi(raw.folder, tmp_path, n_vertices=V, progress=False)
    assert [p for p in report.problems if "F2_e01: its first frame lies far from rigid_scans/F2.obj" in p]
    assert not any("M1" in problem for problem in report.problems)


def test_sound_of_a_video(raw: Raw, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    (raw.folder / "videos").mkdir()
    wav = raw.folder / "audio" / "F2_e01_cut.wav"
    with av.open(str(raw.folder / "videos" / "F2_e01.flv"), "w") as video, av.open(str(wav)) as sound:
        stream = video.add_stream("aac", rate=RATE, layout="mono")
        for frame in sound.decode(audio=0):
            video.mux(stream.encode(frame))
        video.mux(stream.encode(None))
    samples, _ = soundfile.read(wav)
    wav.unlink()
    prepare_biwi(raw.folder, tmp_path / "out", n_vertices=V, progress=False)
    decoded, rate = soundfile.read(tmp_path / "out" / "wav" / "F2_e01.wav")
    assert rate == RATE and abs(len(decoded) - len(samples)) < 4096
    assert decoded.std() == pytest.approx(samples.std(), rel=0.3)


def test_other_sets_are_refused(raw: Raw, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match=f"F2.obj: has {V} vertices where B3D.AC.2 has 23370.*Kinect head pose"):
        prepare_biwi(raw.folder, out, progress=False)
    kinect = tmp_path / "hpdb"
    (kinect / "01").mkdir(parents=True)
    (kinect / "01.obj").write_text("v 0 0 0\n")
    (kinect / "01" / "frame_00003_pose.txt").write_text("1 0 0")
    with pytest.raises(UserError, match="BIWI Kinect head pose set, which has no speech"):
        prepare_biwi(kinect, out, progress=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="rigid_scans: holds no subject's template; unpack the scans"):
        prepare_biwi(tmp_path / "empty", out, progress=False)
    for options, match in (({"units": "feet"}, "published, metres"), ({"sequences": "x"}, "emotional, neutral, all")):
        with pytest.raises(UserError, match=match):
            prepare_biwi(raw.folder, out, n_vertices=V, progress=False, **options)
    assert not out.exists()


def test_other_units_are_refused(raw: Raw, tmp_path: Path) -> None:
    for path in (raw.folder / "rigid_scans").iterdir():
        rows = path.read_text().splitlines()
        words = [row.split() for row in rows]
        path.write_text(
            "\n".join(
                " ".join([w[0], *(str(float(x) / 1000) for x in w[1:])]) if w[0] == "v" else r
                for w, r in zip(words, rows, strict=True)
            )
        )
    with pytest.raises(UserError, match=r"size is 0\.\d+ where about 185 mm"):
        prepare_biwi(raw.folder, tmp_path / "out", n_vertices=V, progress=False)


def _headed(size: int, frames: int = 3) -> bytes:
    """An archive whose second member states ``size`` in base 256, as archives beyond 8 GB do."""
    blocks = b""
    for number in range(1, frames + 1):
        member = tarfile.TarInfo(f"e01/frame_{number:03}.vl")
        block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
        if number == 2:
            sign = b"\x80" if size >= 0 else b"\xff"
            block[124:136] = sign + size.to_bytes(11, "big", signed=True)
            block[148:156] = b"        "
            block[148:156] = b"%06o\0 " % sum(block)
        blocks += bytes(block)
    return blocks + bytes(1024)


@pytest.mark.parametrize("kind", ["pipe", "endless", "circle", "nowhere", "socket folder", "huge"])
def test_frames_that_are_no_files(raw: Raw, kind: str, tmp_path: Path) -> None:
    """One line each; the other sentences are converted."""
    path = raw.folder / "faces" / "F2" / "e01" / "frame_001.vl"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket folder":
        path.mkdir()
    elif kind == "huge":
        path.touch()
        os.truncate(path, 2**40)
    else:
        path.symlink_to({"endless": "/dev/zero", "circle": path.name, "nowhere": "absent"}[kind])
    report = prepare_biwi(raw.folder, tmp_path / "out", n_vertices=V, progress=False)
    (line,) = [problem for problem in report.problems if "F2_e01" in problem]
    assert "frame_001.vl: " in line and line.endswith("audio-only")
    assert not (tmp_path / "out" / "vertices_npy" / "F2_e01.npy").exists()
    assert (tmp_path / "out" / "vertices_npy" / "M1_e01.npy").exists()


@pytest.mark.parametrize("kind", ["pipe", "endless", "circle", "negative size", "large size", "long number"])
def test_archives_that_are_none(raw: Raw, kind: str, tmp_path: Path) -> None:
    path = raw.folder / "faces" / "F2" / "e01.tar"
    shutil.rmtree(raw.folder / "faces" / "F2" / "e01")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind in ("endless", "circle"):
        path.symlink_to({"endless": "/dev/zero", "circle": path.name}[kind])
    elif kind == "long number":
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            archive.addfile(tarfile.TarInfo(f"e01/frame_{'7' * 5000}.vl"))
    else:
        path.write_bytes(_headed(-1024 if kind == "negative size" else 2**60))
    report = prepare_biwi(raw.folder, tmp_path / "out", n_vertices=V, progress=False)
    lines = [problem for problem in report.problems if "e01.tar" in problem and "F2" in problem]
    assert len(lines) == 1 and len(lines[0]) < 1000
    assert (tmp_path / "out" / "vertices_npy" / "M1_e01.npy").exists()
