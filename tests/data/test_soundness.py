"""Files of tensors whose numbers are not whole: every loader refuses them in one line."""

from __future__ import annotations

import math
import zipfile

import pytest
import torch

from s2f_rl.data.soundness import float_weights, not_finite, require_checksums
from s2f_rl.data.tensor_files import load_tensors, save_safetensors, save_tensors
from s2f_rl.errors import NotFinite, UserError
from s2f_rl.models import FaceFormer, MelAudioEncoder
from s2f_rl.models.checkpoint import actor_payload, load_actor
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from s2f_rl.rewards.judge.judge import Judge
from s2f_rl.runs import TrainingState
from s2f_rl.runs.checkpoints import load_checkpoint


def write_actor(folder):
    torch.manual_seed(0)
    actor = FaceFormer(MelAudioEncoder(width=8), 8, feature_dim=8, n_subjects=2)
    torch.save({"actor": actor_payload(actor, ["a", "b"])}, folder / "best.pt")
    return folder / "best.pt", "decoder.vertice_map.weight"


def write_reward(folder):
    torch.manual_seed(0)
    RewardModel(SpeechMeshTransformer(24, width=8, depth=1, n_heads=2), ScoreHead(8, 8, 8)).save(folder)
    return folder / "model_loss.pth", "encoder.patch_embed.weight"


def write_head(folder):
    write_reward(folder)
    return folder / "v4_best.pt", "trunk.mesh.weight"


def write_judge(folder):
    Judge(torch.randn(6, 24), torch.zeros(24), width=8, hidden=8).save(folder)
    return folder / "judge.pt", "mesh.embed.weight"


def write_run(folder):
    net = torch.nn.Linear(3, 4)
    optimizer = torch.optim.Adam(net.parameters())
    save_tensors(folder / "last.pt", TrainingState(net=net, optimizer=optimizer).state_dict())
    return folder / "last.pt", "weight"


def resume(folder):
    net = torch.nn.Linear(3, 4)
    state = TrainingState(net=net, optimizer=torch.optim.Adam(net.parameters()))
    state.load_state_dict(load_checkpoint(folder / "last.pt"))
    return net


LOADERS = {
    "actor": (write_actor, lambda folder: load_actor(folder)[0]),
    "reward": (write_reward, RewardModel.load),
    "head": (write_head, RewardModel.load),
    "judge": (write_judge, Judge.load),
    "run": (write_run, resume),
}


def change(path, name, how):
    """Replace the tensor ``name``, wherever it is, by ``how`` of it."""

    def changed(value):
        return {k: how(v) if k == name else changed(v) for k, v in value.items()} if isinstance(value, dict) else value

    content = torch.load(path, weights_only=True)
    torch.save(changed(content), path)


def first_is(value):
    def how(weight):
        weight = weight.clone()
        weight.view(-1)[0] = value
        return weight

    return how


WRONG = {
    "nan": first_is(math.nan),
    "inf": first_is(-math.inf),
    "whole numbers": lambda weight: (100 * weight).long(),
    "truth values": lambda weight: weight > 0,
    "complex": lambda weight: weight + 1j,
    "too large": lambda weight: first_is(1e300)(weight.double()),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("loader", LOADERS)
def test_weights_that_are_not_sound(loader, wrong, tmp_path):
    write, load = LOADERS[loader]
    path, name = write(tmp_path)
    load(tmp_path)
    change(path, name, WRONG[wrong])
    with pytest.raises(UserError, match=name) as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("loader", LOADERS)
def test_a_flipped_bit(loader, tmp_path):
    """In the middle of the largest tensor, where nothing but the checksum can notice it."""
    write, load = LOADERS[loader]
    path, _ = write(tmp_path)
    with zipfile.ZipFile(path) as file:
        largest = max(file.infolist(), key=lambda part: part.file_size)
        weights = file.read(largest)
    content = path.read_bytes()
    at = content.index(weights) + len(weights) // 2
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(UserError, match=rf"{path.name}: is damaged \(the checksum of .* is wrong\); copy it again"):
        load(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("loader", [name for name in LOADERS if name != "run"])
def test_other_precisions_are_converted(loader, dtype, tmp_path):
    write, load = LOADERS[loader]
    path, name = write(tmp_path)
    before = load(tmp_path).state_dict()
    change(path, name, lambda weight: weight.to(dtype))
    after = load(tmp_path).state_dict()
    (own,) = (key for key in before if key == name or key.endswith("." + name) and before[key].ndim == 2)
    assert after[own].dtype == torch.float32
    assert torch.equal(after[own], before[own].to(dtype).float())
    assert all(torch.equal(after[key], before[key]) for key in before if key != own)


@pytest.mark.parametrize("save", [save_tensors, save_safetensors])
def test_nothing_of_the_kind_is_written(save, tmp_path):
    path = tmp_path / ("a.pt" if save is save_tensors else "a.safetensors")
    save(path, {"w": torch.ones(2)})
    before = path.read_bytes()
    with pytest.raises(NotFinite, match="'w' is not finite"):
        save(path, {"w": torch.tensor([1.0, math.nan])})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_safetensors_are_looked_at_too(tmp_path):
    from safetensors.torch import save_file

    save_file({"fine": torch.ones(2), "broken": torch.tensor([1.0, math.inf])}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"a.safetensors: 'broken' holds NaN or infinite values"):
        load_tensors(tmp_path / "a.safetensors")


def test_first_that_is_not_finite():
    fine = {"a": [torch.ones(2), torch.ones(2, dtype=torch.int64)], "b": (None, 1.0, math.nan, "x")}
    assert not_finite(fine) is None
    assert not_finite({**fine, "c": {"d": [torch.tensor(math.nan)]}}) == "'d'"
    assert not_finite(torch.tensor([1 + 1j * math.inf])) == "a tensor"
    assert not_finite(torch.tensor([1.0, math.nan]).to(torch.float8_e5m2)) == "a tensor"


def test_whole_numbers_stay_whole_numbers():
    wanted = {"count": torch.zeros((), dtype=torch.int64)}
    assert float_weights({"count": torch.tensor(3), "more": 1}, wanted, "x") == {"count": torch.tensor(3), "more": 1}
    with pytest.raises(UserError, match="x: 'count' holds float32, expected dense int64"):
        float_weights({"count": torch.tensor(3.5)}, wanted, "x")


def test_files_without_checksums_pass(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    require_checksums(tmp_path / "old.pt")
    assert torch.equal(load_tensors(tmp_path / "old.pt")["w"], torch.ones(2))
