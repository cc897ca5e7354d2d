"""Checkpoints that would hang, allocate or overrun before a tensor is looked at."""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from s2f_rl.data.tensor_files import load_tensors, save_tensors
from s2f_rl.errors import UserError
from tests.data.test_bounded_pickle import BOMBS

CONTENT: dict[str, Any] = {
    "model": OrderedDict(weight=torch.arange(6.0).reshape(2, 3), half=torch.ones(2, dtype=torch.bfloat16)),
    "parameter": torch.nn.Parameter(torch.zeros(2)),
    "numbers": [1, 2.5, True, None, (3, "x"), {4}, b"bytes", 1 - 2j],
    "size": torch.Size([2, 3]),
    "kind": torch.float64,
    "device": torch.device("cpu"),
    7: {"step": torch.tensor(3)},
}
CONTENT["tied"] = CONTENT["model"]["weight"]


STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x00"


def _rewrite(path: Path, change: Any, compression: int = zipfile.ZIP_STORED) -> Path:
    """Put ``change(entries)`` [(name, bytes)] in place of a zip's entries."""
    with zipfile.ZipFile(path) as archive:
        entries = change([(entry.filename, archive.read(entry)) for entry in archive.infolist()])
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def _with_pickle(path: Path, program: bytes) -> Path:
    torch.save({"a": torch.zeros(3)}, path)
    return _rewrite(path, lambda entries: [(n, program if n.endswith("data.pkl") else c) for n, c in entries])


@pytest.mark.parametrize("new_format", [True, False])
def test_plain_content_comes_back(new_format: bool, tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    state = module.state_dict()  # with the attribute _metadata
    torch.save({**CONTENT, "state": state}, tmp_path / "a.pt", _use_new_zipfile_serialization=new_format)
    loaded = load_tensors(tmp_path / "a.pt")
    assert torch.equal(loaded["model"]["weight"], CONTENT["model"]["weight"])
    assert torch.equal(loaded["tied"], CONTENT["tied"]) and loaded[7]["step"] == 3
    assert loaded["numbers"] == CONTENT["numbers"] and loaded["kind"] == torch.float64
    assert all(torch.equal(loaded["state"][name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("name", BOMBS)
def test_shared_parts_do_not_multiply(name: str, tmp_path: Path) -> None:
    path = _with_pickle(tmp_path / "a.pt", b"\x80\x02" + BOMBS[name])
    with pytest.raises(
        UserError, match=r"a\.pt: cannot be read as a checkpoint.*\((repeats shared|names something|calls)"
    ):
        load_tensors(path)


@pytest.mark.parametrize(
    ("program", "match"),
    [
        (b"c__builtin__\nbytearray\n\x8a\x06" + b"\xff" * 5 + b"\x00\x85R.", "calls __builtin__.bytearray"),
        (b"ctorch\nFloatStorage\nJ\xff\xff\xff\x7f\x85R.", "calls torch.FloatStorage"),
        (b"ctorch\nTensor\nJ\xff\xff\xff\x7f\x85\x81.", "makes an object"),
        (b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n)R.", "calls torch._utils._rebuild_meta"),
        (b"cposix\nsystem\nX\x01\x00\x00\x00x\x85R.", "calls posix.system"),
        (b"ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x01sb.", "sets attributes"),
        (b"]q\x00h\x00a.", "holds itself"),
        (STORAGE + b"0X\x03\x00\x00\x00cpuJ\xff\xff\xff\x7ftQ.", "numbers in storage '0', which"),
        (STORAGE + b"9X\x03\x00\x00\x00cpuK\x01tQ.", "numbers in storage '9', which"),
        (b"X\x01\x00\x00\x00aQ.", "refers to a storage in an unknown way"),
        (b"\x8a\x14" + b"\x7f" * 20 + b".", "a whole number of 20 bytes"),
        (b"]" * 500 + b"a" * 499 + b".", "nests containers"),
    ],
)
def test_programs_that_checkpoints_do_not_need(program: bytes, match: str, tmp_path: Path) -> None:
    path = _with_pickle(tmp_path / "a.pt", b"\x80\x02" + program)
    with pytest.raises(UserError, match=match):
        load_tensors(path)


def test_zips_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"

    def refused(match: str) -> None:
        with pytest.raises(UserError, match=rf"a\.pt: cannot be read as a checkpoint.*{match}"):
            load_tensors(path)

    def fresh() -> Path:
        save_tensors(path, {"a": torch.zeros(1000)})
        return path

    _rewrite(fresh(), lambda entries: [*entries, ("a/data/9", bytes(10**8))], zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 200_000
    refused("it is compressed")
    _rewrite(fresh(), lambda entries: [*entries, (entries[0][0].upper(), b"\x80\x02N.")])
    refused("two files of one name")
    with zipfile.ZipFile(fresh(), "a") as archive:
        archive.comment = b"more"
    refused("it goes on after its end")
    content = bytearray(fresh().read_bytes())
    at = content.rindex(b"PK\x01\x02")  # the last entry of the table: its sizes, as stored and as unpacked
    content[at + 20 : at + 28] = (2**31).to_bytes(4, "little") * 2
    path.write_bytes(content)
    refused("would unpack to more than it holds")
    for start in (b"", b"text", b"\x93NUMPY", b"ustar" * 200):
        path.write_bytes(start)
        refused("begins as no checkpoint does")


def test_one_tensor_under_many_names(tmp_path: Path) -> None:
    """A megabyte that a reader of state dicts would copy a thousand times."""
    tensor = torch.zeros(2**18)
    torch.save({f"name{k}": tensor for k in range(1000)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="states more numbers than the file holds"):
        load_tensors(tmp_path / "a.pt")


def test_the_format_before_2020_states_its_storages(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    size = b"X\x03\x00\x00\x00cpuq\x06K\x03"
    assert content.count(size) == 1
    path.write_bytes(content.replace(size, size[:-2] + b"J\xff\xff\xff\x7f"))
    with pytest.raises(UserError, match="states 2147483647 numbers in storage"):
        load_tensors(path)


@pytest.mark.parametrize("length", [1, 64, 500, 5000])
def test_a_checkpoint_with_a_piece_cut_out(length: int, tmp_path: Path) -> None:
    """The table of contents is whole, but its places lie before the beginning of the file or on other bytes."""
    path = tmp_path / "a.pt"
    torch.save({"weight": torch.randn(40, 40), "bias": torch.randn(40)}, path)
    whole = path.read_bytes()
    for start in (0, 30, len(whole) // 2):
        path.write_bytes(whole[:start] + whole[start + length :])
        with pytest.raises(UserError) as caught:
            load_tensors(path)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
