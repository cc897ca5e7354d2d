"""What checkpoints share is in one file, and comes back bit by bit; whatever is wrong with the pair is told."""

from __future__ import annotations

import shutil

import pytest
import torch

from s2f_rl.data.shared_tensors import load_whole, share_tensors, without_shared
from s2f_rl.data.tensor_files import save_tensors
from s2f_rl.errors import UserError


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    return {"a.weight": torch.randn(5, 3, generator=generator), "b": torch.arange(4)}


@pytest.fixture
def content(tensors):
    """As a run writes it: the encoder in the actor's entry and in the state, beside tensors of their own."""
    encoder = {f"audio_encoder.{name}": tensor.clone() for name, tensor in tensors.items()}
    return {
        "actor": {"state_dict": {"w": torch.ones(2), **encoder}, "kind": "faceformer"},
        "parts": {"policy": {"core": {**encoder}, "w": torch.ones(2)}},
        "moments": {"audio_encoder.b": {"step": torch.tensor(1.0)}},
    }


@pytest.fixture
def saved(tmp_path, tensors, content):
    shared = share_tensors(tmp_path, "encoder", tensors)
    save_tensors(tmp_path / "last.pt", without_shared(content, shared))
    return tmp_path / "last.pt"


def assert_equal(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other)
    else:
        assert one == other


def test_comes_back(saved, content):
    assert len(list(saved.parent.glob("encoder-*.pt"))) == 1
    alone = torch.load(saved, weights_only=True)
    assert set(alone["actor"]["state_dict"]) == {"w"} and alone["parts"]["policy"]["core"] == {}
    assert_equal(load_whole(saved), content)


def test_what_differs_stays(tmp_path, tensors, content):
    content["actor"]["state_dict"]["audio_encoder.a.weight"][0, 0] += 1e-6
    del content["parts"]["policy"]["core"]["audio_encoder.b"]
    shared = share_tensors(tmp_path, "encoder", tensors)
    assert_equal(without_shared(content, shared), content)


def test_linked_where_it_is(saved, tensors):
    other = saved.parent / "other"
    other.mkdir()
    shared = share_tensors(other, "encoder", tensors, near=saved.parent)
    assert (other / shared.file).samefile(saved.parent / shared.file)


def test_a_damaged_neighbour_is_not_linked(saved, tensors):
    other = saved.parent / "other"
    other.mkdir()
    (file,) = saved.parent.glob("encoder-*.pt")
    torch.save({"a.weight": torch.zeros(5, 3), "b": torch.arange(4)}, file)
    shared = share_tensors(other, "encoder", tensors, near=saved.parent)
    assert torch.equal(torch.load(other / shared.file, weights_only=True)["a.weight"], tensors["a.weight"])


def test_a_link_to_a_checkpoint_finds_it(saved, content, tmp_path_factory):
    link = tmp_path_factory.mktemp("elsewhere") / "best.pt"
    link.symlink_to(saved)
    assert_equal(load_whole(link), content)


def test_moved_alone(saved, tmp_path_factory):
    alone = tmp_path_factory.mktemp("alone") / "last.pt"
    shutil.copy(saved, alone)
    with pytest.raises(UserError, match="needs encoder-.*copy that file.*s2f-rl export"):
        load_whole(alone)


def test_another_encoder(saved):
    (file,) = saved.parent.glob("encoder-*.pt")
    torch.save({"a.weight": torch.zeros(5, 3), "b": torch.arange(4)}, file)
    with pytest.raises(UserError, match="not the file that .*last.pt was written with"):
        load_whole(saved)


@pytest.mark.parametrize(
    "about",
    [
        {"file": "../../etc/encoder-0123456789abcdef.pt", "hash": "0", "places": []},
        {"file": "encoder-0123456789abcdef.pt", "hash": "0", "places": [{"at": ["nowhere"], "prefix": ""}]},
        {"file": "encoder-0123456789abcdef.pt", "hash": "0", "places": [{"at": 3, "prefix": ""}]},
        {
            "file": "encoder-0123456789abcdef.pt",
            "hash": "0",
            "places": [{"at": [], "prefix": f"{k}"} for k in range(17)],
        },
        {"file": "encoder-0123456789abcdef.pt"},
        7,
    ],
)
def test_hostile_entries(tmp_path, about):
    save_tensors(tmp_path / "last.pt", {"shared": about})
    with pytest.raises(UserError, match="'shared' names no file beside it"):
        load_whole(tmp_path / "last.pt")
