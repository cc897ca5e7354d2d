"""``check`` on what other programs and editors write: byte order marks, coefficients, a description that is no JSON."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from s2f_rl.data import FaceCorpus, check_corpus, format_faults
from s2f_rl.data.templates import looks_like_coefficients
from s2f_rl.errors import UserError
from tests.tiny import make_tiny_corpus


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """30 fps in metres, where a corpus without description is 60 fps; a subject called as nobody in VOCASET."""
    root = make_tiny_corpus(tmp_path / "corpus", n_subjects=2, topology="vocaset")
    text = (
        (root / "corpus.json")
        .read_text()
        .replace('"stored_fps": 60', '"stored_fps": 30')
        .replace('step": 2', 'step": 1')
    )
    (root / "corpus.json").write_text(text)
    for path in (root / "vertices_npy").iterdir():
        np.save(path, np.load(path)[::2])
    (root / "regions").mkdir()
    (root / "regions" / "lve.txt").write_text("0, 1, 2\n")
    return root


def test_byte_order_marks_change_nothing(root: Path) -> None:
    (root / "FLAME_masks.pkl").unlink()
    before = check_corpus(root)
    expected = FaceCorpus(root, "all").regions["lips"].tolist()
    for name in ("corpus.json", "landmarks.json", "regions/lve.txt"):
        path = root / name
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    after = check_corpus(root)
    assert list(after) == list(before) and not after.has_errors, format_faults(after)
    assert FaceCorpus(root, "all").regions["lips"].tolist() == expected == [0, 1, 2]


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe{\x00}\x00", b'{"format": 7}', b"[" * 10**5])
def test_a_description_that_cannot_be_read_hides_nothing_and_blames_nobody(root: Path, content: bytes) -> None:
    """No utterance is at another rate, in other units or in no split for it; other faults are still found."""
    (root / "corpus.json").write_bytes(content)
    faults = check_corpus(root)
    assert [fault.file for fault in faults] == ["corpus.json"], format_faults(faults)
    (root / "wav" / "S0_sentence01.wav").write_bytes(b"x")
    assert [fault.file for fault in check_corpus(root)] == ["corpus.json", "wav/S0_sentence01.wav"]


@pytest.mark.parametrize("n", [51, 52, 61, 103])
@pytest.mark.parametrize("where", ["both", "vertices"])
def test_coefficients_are_called_so_once(root: Path, n: int, where: str) -> None:
    for path in (root / "vertices_npy").iterdir():
        np.save(path, np.random.default_rng(0).random((len(np.load(path)), n)).astype(np.float32))
    if where == "both":
        (root / "faces.npy").unlink()
        (root / "templates.pkl").write_bytes(pickle.dumps({s: np.zeros(n, np.float32) for s in ("S0", "S1")}))
    faults = check_corpus(root)
    (fault,) = faults
    assert f"{n} numbers, which look like blendshape coefficients: only vertices are animated" in fault.message
    assert fault.file == ("templates.pkl" if where == "both" else "vertices_npy/S0_sentence01.npy")
    assert where == "both" or "(and 3 other files)" in fault.message
    with pytest.raises(UserError, match=f"{n} numbers, which look like blendshape coefficients"):
        FaceCorpus(root, "all")


def test_meshes_are_no_coefficients() -> None:
    for shape in ((72,), (120,), (15069,), (70110,), (17, 3), (5023, 3), (402,), (4,), ()):
        assert not looks_like_coefficients(shape), shape
    for shape in ((10,), (51,), (52,), (55,), (61,), (100,), (253,)):
        assert looks_like_coefficients(shape), shape


def test_names_cannot_speak_to_the_terminal(root: Path) -> None:
    for name in ("\x1b[2J_sentence01", "two\nlines_sentence01", "\u202eevil_sentence01", "\udcff_sentence01"):
        (root / "wav" / f"{name}.wav").write_bytes(b"x")
    report = format_faults(check_corpus(root))
    assert all(line.isprintable() for line in report.splitlines()) and "\\x1b[2J_sentence01" in report
    assert sum("cannot be read as sound" in line for line in report.splitlines()) == 4
