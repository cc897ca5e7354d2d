"""Runs whose audio encoder is large and frozen: it is in one file, linked from run to run, in no checkpoint."""

from __future__ import annotations

import pytest
import torch
from recipe_tools import load_recipe

from s2f_rl.errors import UserError
from s2f_rl.models.checkpoint import export_actor, load_actor
from s2f_rl.runs import RunFolder
from s2f_rl.training import setup


@pytest.fixture
def small_is_large(monkeypatch):
    monkeypatch.setattr(setup, "_LARGE_BYTES", 0)


@pytest.fixture
def ppo(rl_overrides, tmp_path, small_is_large):
    def run(name, *more):
        options = [*rl_overrides, "group_size=2", "minibatch_lanes=2", "ema_decay=0.9", "logger=none"]
        load_recipe("ppo").run([*options, f"root={tmp_path}", f"name={name}", *more])
        return tmp_path / name

    return run


def tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from tensors(each)


def stored_bytes(value):
    """Of every storage once, as a file holds them."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors(value)}.values())


def test_one_encoder_for_all(ppo, workshop):
    first = ppo("first")
    (encoder,) = first.glob("encoder-*.pt")
    for name in ("last.pt", "best.pt"):
        content = torch.load(first / name, weights_only=True)
        assert not any(key.startswith("audio_encoder.") for key in content["actor"]["state_dict"])
        assert not any(key.startswith("audio_encoder.") for key in content["moments"])
    start, ours = load_actor(workshop / "runs" / "start")[0], load_actor(first)[0]
    for key, value in start.audio_encoder.state_dict().items():
        assert torch.equal(value, ours.audio_encoder.state_dict()[key])

    second = ppo("second", f"start={first}")
    assert (second / encoder.name).samefile(encoder)


def test_last_holds_each_number_once(ppo):
    """The average and the moments are in it twice by name; the file has room for them once."""
    content = torch.load(ppo("run") / "last.pt", weights_only=True)
    parts = {key: value for key, value in content.items() if key not in ("actor", "moments")}
    rest = {key: value for key, value in content["actor"].items() if key != "state_dict"}
    frozen = [v for k, v in content["actor"]["state_dict"].items() if k.startswith("decoder.vertice_map_r")]
    once = stored_bytes({**parts, "rest": rest}) + stored_bytes(dict(enumerate(frozen)))
    assert stored_bytes(content) <= once
    average = parts["parts"]["average"]
    entry = {value.untyped_storage().data_ptr() for value in content["actor"]["state_dict"].values()}
    assert sum(t.untyped_storage().data_ptr() in entry for t in tensors(average)) >= len(average) - 2


def test_resumes_with_it(ppo, tmp_path):
    unbroken = ppo("unbroken")
    broken = ppo("broken", "iterations=1", "optimizer.lr=3e-4")
    ppo("broken", "resume=true")
    assert len(list(broken.glob("encoder-*.pt"))) == 1
    content = [torch.load(run / "last.pt", weights_only=True) for run in (unbroken, broken)]
    assert content[0]["shared"] == content[1]["shared"]


def test_killed_before_the_first_checkpoint(ppo, tmp_path, monkeypatch):
    """The encoder is there and nothing else: the same command begins anew."""
    save = RunFolder.save_checkpoint
    monkeypatch.setattr(RunFolder, "save_checkpoint", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ppo("run")
    assert len(list((tmp_path / "run").glob("*.pt"))) == 1
    monkeypatch.setattr(RunFolder, "save_checkpoint", save)
    assert (ppo("run") / "last.pt").exists()


def test_passed_on(ppo, tmp_path):
    run = ppo("run")
    (tmp_path / "alone.pt").write_bytes((run / "best.pt").read_bytes())
    with pytest.raises(UserError, match="alone.pt: needs encoder-"):
        load_actor(tmp_path / "alone.pt")
    export_actor(run, tmp_path / "out.pt")
    (run / next(run.glob("encoder-*.pt")).name).unlink()
    with pytest.raises(UserError, match="best.pt: needs encoder-"):
        load_actor(run)
    actor, about = load_actor(tmp_path / "out.pt")
    assert about["templates"] and about["moments"] is None and not actor.training


def test_supervised_with_a_frozen_encoder(workshop, tmp_path, small_is_large):
    options = [f"corpus.root={workshop / 'corpus'}", f"root={tmp_path}", "name=run", "iterations=2", "logger=none",
               "evaluation.every=1", "batch_size=2", "actor.audio.width=16", "actor.feature_dim=16",
               "train_encoder=false", f"corpus.cache={tmp_path / 'cache'}"]  # fmt: skip
    load_recipe("supervised").run([*options])
    content = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    for state in (content["actor"]["state_dict"], content["parts"]["actor"]):
        assert state and not any(key.startswith("audio_encoder.") for key in state)
    load_recipe("supervised").run([*options, "resume=true", "iterations=3"])
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["iteration"] == 3
