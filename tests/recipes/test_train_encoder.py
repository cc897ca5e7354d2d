"""``train_encoder=true`` from the command line: resumed, its control, moments, workers, what goes on from it."""

from __future__ import annotations

import copy
import multiprocessing

import pytest
import torch
from config_tools import composed
from recipe_tools import dies_at, load_recipe

from s2f_rl.errors import UserError
from s2f_rl.losses import ReinforceLoss, WeightedLoss
from s2f_rl.models.audio_encoders import MelAudioEncoder
from s2f_rl.models.checkpoint import load_actor
from s2f_rl.runs import read_rows, without_times
from s2f_rl.training import make_collector, prepare_rl, setup

RECIPES = {
    "ppo": ["group_size=2", "minibatch_lanes=2", "kl=adaptive", "constraint=lve", "ema_decay=0.5"],
    "awr": ["critic=decoder", "replay.capacity=6", "minibatch_lanes=3", "max_frames=12"],
    "reward_gradient": ["optimizer.encoder_lr_factor=0.5"],
}


@pytest.fixture
def run(rl_overrides, tmp_path):
    def run(recipe, name, *options):
        common = [*rl_overrides, "train_encoder=true", f"root={tmp_path}", f"name={name}", "logger=none"]
        load_recipe(recipe).run([*common, *options])
        return [without_times(row) for row in read_rows(tmp_path / name / "metrics.jsonl")]

    return run


@pytest.fixture
def parts_of(rl_overrides):
    def parts_of(*options):
        config = composed("rloo", *rl_overrides, "group_size=2", "train_encoder=true", *options)
        return prepare_rl(config, torch.device("cpu")), config

    return parts_of


def encoder_of(path):
    return load_actor(path)[0].audio_encoder.state_dict()


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("recipe", RECIPES)
def test_resumes_to_the_same_numbers(recipe, run, workshop, tmp_path, monkeypatch, caplog):
    options = [*RECIPES[recipe], "iterations=4", "evaluation.every=2"]
    unbroken = run(recipe, "unbroken", *options)
    assert "holds no moments" not in caplog.text
    with dies_at(3, monkeypatch):
        run(recipe, "broken", *options)
    assert run(recipe, "broken", *options, "resume=true") == unbroken
    last = [torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("unbroken", "broken")]
    assert equal(*(content["parts"]["policy"] for content in last))
    assert equal(*(content["actor"]["state_dict"] for content in last))
    start, after = encoder_of(workshop / "runs" / "start"), encoder_of(tmp_path / "broken" / "last.pt")
    assert all(not torch.equal(start[key], after[key]) for key in start)
    average = list(last[0]["parts"]["average"].values())  # what was validated holds the averaged encoder
    assert all(any(torch.equal(value, each) for each in average) for value in after.values())
    rates = {group["lr_factor"] for group in last[0]["parts"]["optimizer"]["param_groups"]}
    assert (0.5 in rates) == (recipe == "reward_gradient")


def test_control_and_the_next_run(run, tmp_path, workshop, caplog):
    """The control trains the encoder as well; last.pt holds what another run starts from, moments included."""
    for name, more in (("treated", []), ("control", ["control=true"])):
        rows = run("rloo", name, "group_size=2", *more)
        assert rows[0]["validation/lve"] != rows[-1]["validation/lve"]
    start, control = workshop / "runs" / "start", tmp_path / "control" / "last.pt"
    assert not equal(encoder_of(start), encoder_of(control))
    assert not equal(encoder_of(tmp_path / "treated" / "last.pt"), encoder_of(control))
    after = run("rloo", "next", "group_size=2", f"start={control}", "iterations=1")
    assert after[0]["validation/lve"] == pytest.approx(rows[-1]["validation/lve"], rel=1e-5)
    assert "holds no moments" not in caplog.text


def test_moments_of_a_large_encoder_are_in_last_alone(run, tmp_path, workshop, monkeypatch, caplog):
    monkeypatch.setattr(setup, "_LARGE_BYTES", 0)
    run("rloo", "large", "group_size=2")
    for name, there in (("best.pt", False), ("last.pt", True)):
        moments = torch.load(tmp_path / "large" / name, weights_only=True)["moments"]
        assert any(key.startswith("audio_encoder.") for key in moments) == there
        caplog.clear()
        run("rloo", f"after_{name}", "group_size=2", f"start={tmp_path / 'large' / name}", "iterations=1")
        assert ("start holds no moments of the audio encoder" in caplog.text) != there


def test_moments_carry_over(parts_of, workshop):
    parts, _ = parts_of()
    loss = WeightedLoss({"policy": (ReinforceLoss(parts.policy.actor_module), 1.0)}, hearing=parts.hearing)
    optimizer = parts.make_optimizer(loss)
    saved = torch.load(workshop / "runs" / "start" / "best.pt", weights_only=True)["moments"]
    for name, p in parts.start.actor.audio_encoder.named_parameters():
        assert torch.equal(optimizer.state[p]["exp_avg_sq"], saved[f"audio_encoder.{name}"]["exp_avg_sq"])


def test_off_by_default(parts_of):
    parts, _ = parts_of("train_encoder=false")
    assert parts.hearing is None and parts.policy.encoder is None
    assert not any(p.requires_grad for p in parts.start.actor.audio_encoder.parameters())


def test_a_loss_that_does_not_hear(parts_of):
    """Such as a recipe of one's own, copied before."""
    parts, _ = parts_of()
    with pytest.raises(UserError, match="train_encoder=true: the loss .*hearing=parts.hearing"):
        parts.make_optimizer(WeightedLoss({"policy": (ReinforceLoss(parts.policy.actor_module), 1.0)}))


def test_nothing_that_trains(run, monkeypatch, tmp_path):
    monkeypatch.setattr(MelAudioEncoder, "set_trainable", lambda self, train: self.requires_grad_(False))
    with pytest.raises(UserError, match="train_encoder=true: nothing trains"):
        run("rloo", "run", "group_size=2")
    assert not (tmp_path / "run").exists()


def test_workers_hear_with_the_weights_of_now(parts_of, monkeypatch):
    fork = multiprocessing.get_context("fork")  # no imports to wait for
    monkeypatch.setattr("torchrl.collectors._multi_base._get_mp_ctx", lambda: fork)
    parts, config = parts_of("parallel=workers", "parallel.workers=2")
    with make_collector(config, parts) as collector:
        for _ in range(2):
            batch = collector.next()
            torch.testing.assert_close(batch["audio"], parts.heard(batch)["audio"].detach())
            with torch.no_grad():
                parts.hearing.encoder.norms[-1].weight.mul_(2.0)
        # those of another policy, as where workers do not share the memory of this one
        sent = copy.deepcopy(parts.policy)
        with torch.no_grad():
            for p in sent.encoder:
                p.mul_(1.5)
        collector._workers.update_policy_weights_(sent)
        monkeypatch.setattr(collector, "_send_weights", lambda workers: None)
        batch = collector.next()
        parts.policy.load_state_dict(sent.state_dict())
        torch.testing.assert_close(batch["audio"], parts.heard(batch)["audio"].detach())
