"""Files of others: what is no regular file, what is too large, what editors save."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from s2f_rl.data.annotations import read_phones
from s2f_rl.data.description import read_description
from s2f_rl.data.files import load_json, load_npy, load_npz, load_plain_pickle
from s2f_rl.data.glb_files import read_glb
from s2f_rl.data.mesh_files import read_obj, read_ply_faces
from s2f_rl.data.regions import read_index_list
from s2f_rl.data.regular_files import open_file, read_bytes, read_text, require_file
from s2f_rl.data.tensor_files import load_tensors
from s2f_rl.data.transcripts import find_transcripts
from s2f_rl.errors import UserError


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


SPECIAL: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "is a named pipe where a file is expected"),
    "endless device": (lambda path: path.symlink_to("/dev/zero"), "is a device where a file is expected"),
    "empty device": (lambda path: path.symlink_to("/dev/null"), "is a device where a file is expected"),
    "socket": (_socket, "is a socket where a file is expected"),
    "folder": (Path.mkdir, "is a folder where a file is expected"),
    "circle": (lambda path: path.symlink_to(path), "is a link that leads in a circle"),
    "nowhere": (lambda path: path.symlink_to(path.with_name("absent")), "is a link that leads nowhere"),
    "missing": (lambda path: None, "no such file"),
}
READERS: list[Callable[[Path], object]] = [
    require_file, open_file, read_bytes, read_text, load_json, load_npy, load_npz, load_plain_pickle, load_tensors,
    read_obj, read_ply_faces, read_glb, read_index_list, lambda path: find_transcripts(path, ["a"]),
]  # fmt: skip


@pytest.mark.parametrize("kind", SPECIAL)
def test_no_reader_waits_or_never_ends(kind: str, tmp_path: Path) -> None:
    make, message = SPECIAL[kind]
    make(tmp_path / "x")
    for read in READERS:
        if kind == "folder" and read is READERS[-1]:
            continue  # transcripts may lie in a folder
        with pytest.raises(UserError, match=rf"/x: {message}"):
            read(tmp_path / "x")


def test_optional_files_that_lead_nowhere_are_told(tmp_path: Path) -> None:
    for name in ("corpus.json", "phones.json"):
        (tmp_path / name).symlink_to(tmp_path / name)
    with pytest.raises(UserError, match=r"corpus\.json: is a link that leads in a circle"):
        read_description(tmp_path)
    with pytest.raises(UserError, match=r"phones\.json: is a link"):
        read_phones(tmp_path / "phones.json")


def test_links_to_files_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"content")
    (tmp_path / "link").symlink_to("real")
    assert read_bytes(tmp_path / "link") == b"content" and require_file(tmp_path / "link") == tmp_path / "link"


def test_sizes_are_checked_before_reading(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    os.truncate(tmp_path / "x", 2**40)  # takes no room on disk
    for read in (read_bytes, read_text, load_json, read_obj, read_ply_faces, read_index_list):
        with pytest.raises(UserError, match="has 1099511627776 bytes, more than such a file can have"):
            read(tmp_path / "x")
    assert read_bytes(__file__, largest=10**6).startswith(b'"""Files of others')


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_what_editors_save(mark: bytes, end: bytes, tmp_path: Path) -> None:
    def saved(text: str, name: str) -> Path:
        (tmp_path / name).write_bytes(mark + text.encode().replace(b"\n", end))
        return tmp_path / name

    assert read_text(saved("a\nä\n", "a.txt")) == "a\nä\n"
    assert load_json(saved('{"a":\n [1, "ä"]}\n', "a.json")) == {"a": [1, "ä"]}
    assert read_index_list(saved("1, 2\n3\n", "lve.txt")) == [1, 2, 3]
    assert read_phones(saved('[["P", 0,\n 0.5]]', "phones.json")) == [("P", 0.0, 0.5)]
    assert find_transcripts(saved("name,text\na,hello\n", "t.csv"), ["a"]) == {"a": "hello"}
    assert find_transcripts(saved("a\thello\n", "t.txt"), ["a"]) == {"a": "hello"}
    if end != b"\r":
        vertices, faces = read_obj(saved("v 0 0 0\n\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "a.obj"))
        assert vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]] and faces.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_other_encodings_are_named(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes('{"ä": 1}'.encode(encoding))
    with pytest.raises(UserError, match=r"a\.json: not readable as JSON \((it is UTF-16|byte 2 belongs)"):
        load_json(tmp_path / "a.json")
    with pytest.raises(UserError, match="is not text in UTF-8"):
        read_index_list(tmp_path / "a.json")


@pytest.mark.parametrize("phone", ['"P", 0, 86401', '"P", 0, 1e300', '"P", -1, 1', '"P", NaN, 1', '"P", 2, 1'])
def test_times_of_phones_that_cannot_be(phone: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(f"[[{phone}]]")
    with pytest.raises(UserError, match=r"a\.json: not a list of \[phone, start, end\] in seconds"):
        read_phones(tmp_path / "a.json")


@pytest.mark.parametrize("number", ["9" * 5000, "9" * 20, "1" + "0" * 400])
def test_numbers_beyond_64_bits(number: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(f'[["P", 0, {number}]]')
    with pytest.raises(UserError, match=rf"a whole number of {len(number)} digits"):
        read_phones(tmp_path / "a.json")
    (tmp_path / "lve.txt").write_text(f"1, {number}")
    with pytest.raises(UserError, match="not a list of vertex numbers"):
        read_index_list(tmp_path / "lve.txt")


def test_packed_arrays(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", a=np.arange(1000), b=np.array(2.5))
    assert load_npz(tmp_path / "a.npz")["a"].tolist() == list(range(1000)) and load_npz(tmp_path / "a.npz")["b"] == 2.5
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(10**7))
    with pytest.raises(UserError, match=r"bomb\.npz: would unpack to more than \d+ bytes"):
        load_npz(tmp_path / "bomb.npz")
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    with pytest.raises(UserError, match=r"objects\.npz: a: holds Python objects"):
        load_npz(tmp_path / "objects.npz")
    (tmp_path / "no.npz").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(UserError, match=r"no\.npz: not a readable npz file"):
        load_npz(tmp_path / "no.npz")
