"""Every algorithm in one table: a tiny run, resumed to the same numbers, its control, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from recipe_tools import dies_at, load_recipe
from tiny import make_tiny_corpus

from s2f_rl.errors import UserError
from s2f_rl.models.checkpoint import load_actor
from s2f_rl.runs import read_rows, without_times

# recipe -> overrides with which it is run, killed and resumed; together they meet every option with a state
ALGORITHMS = {
    "reinforce": ["reward.normalise=running"],
    "a2c": ["credit=window", "ema_decay=0.9"],
    "ppo": ["group_size=2", "minibatch_lanes=2", "kl=adaptive", "constraint=lve"],
    "ppo_kl": ["group_size=2", "minibatch_lanes=2", "reward.normalise=batch"],
    "rloo": ["group_size=2", "reward.cap=truth", "reward.normalise=running"],
    "grpo": ["group_size=4", "minibatch_lanes=2", "exploration=correlated", "kl=adaptive", "placebo=true"],
    "gdpo": ["group_size=2", "minibatch_lanes=2", "reward.cap=truth", "ema_decay=0.9"],
    "reward_gradient": ["constraint=lve", "reward.normalise=running"],
    "awr": ["critic=decoder", "replay.capacity=6", "minibatch_lanes=3"],
}
# further combinations: one run each
COMBINATIONS = [
    ("reinforce", ["critic=none", "group_size=2", "exploration=vertex"]),
    ("a2c", ["critic=none", "group_size=2", "supervised=none"]),
    ("ppo", ["critic=backbone", "group_size=1", "reward.normalise=running", "credit=window"]),
    ("ppo_kl", ["critic=decoder", "exploration=correlated", "supervised=teacher_forced", "kl=fixed"]),
    ("rloo", ["constraint=lve", "supervised=teacher_forced", "balance=none", "policy_weight=0.1", "style=random"]),
    ("rloo", ["exploration=vertex", "constraint=lve", "normalise_advantage=true"]),
    ("grpo", ["kl=none", "normalise_advantage=false", "exploration.learn_noise=true"]),
    (
        "reward_gradient",
        ["sampled=false", "train_output_map=true", "optimizer.output_lr_factor=0.03", "kl=fixed", "reward.stride=2"],
    ),
    ("reward_gradient", ["exploration=vertex", "supervised=none", "reward.cap=truth"]),
    ("reward_gradient", ["exploration=correlated", "max_frames=12"]),
    ("awr", ["group_size=2", "minibatch_lanes=2", "exploration=correlated", "supervised=teacher_forced"]),
    ("awr", ["critic=backbone", "group_size=1", "kl=adaptive", "constraint=lve"]),
]
# columns that whoever compares algorithms reads from every row
COMMON = ["reward", "lip_score", "real_score", "amplitude_mm", "noise_mm", "entropy", "sampled_amplitude_ratio",
          "batch_frames", "frames", "value_policy", "loss_policy", "grad_norm_policy", "time/collect_s",
          "time/reward_s", "time/advantage_s", "time/update_s"]  # fmt: skip


@pytest.fixture
def run(rl_overrides, tmp_path):
    def run(recipe, name, *options):
        load_recipe(recipe).run([*rl_overrides, f"root={tmp_path}", f"name={name}", "logger=none", *options])
        return read_rows(tmp_path / name / "metrics.jsonl")

    return run


def assert_equal(a, b, where):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for k in a:
            assert_equal(a[k], b[k], f"{where}[{k!r}]")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}[{i}]")
    else:
        assert a == b or a != a, where


def check_rows(rows):
    assert [row["iteration"] for row in rows] == list(range(len(rows)))
    assert math.isfinite(rows[0]["validation/lve"]) and rows[0]["frames"] == 0
    for row in rows[1:]:
        assert all(math.isfinite(row[column]) for column in COMMON), row
        assert row["grad_norm_policy"] > 0


@pytest.mark.parametrize("recipe", ALGORITHMS)
def test_resumes_to_the_same_numbers(recipe, run, tmp_path, monkeypatch):
    options = [*ALGORITHMS[recipe], "iterations=5", "evaluation.every=2"]
    unbroken = run(recipe, "unbroken", *options)
    check_rows(unbroken)
    assert len(unbroken) == 6
    with dies_at(3, monkeypatch):  # the last checkpoint is that of iteration 2
        run(recipe, "broken", *options)
    broken = run(recipe, "broken", *options, "resume=true")
    assert [without_times(row) for row in unbroken] == [without_times(row) for row in broken]
    for name in ("last.pt", "best.pt"):
        first, second = (torch.load(tmp_path / n / name, weights_only=True) for n in ("unbroken", "broken"))
        assert_equal(first, second, name)


@pytest.mark.parametrize(("recipe", "options"), COMBINATIONS)
def test_combinations(recipe, options, run):
    check_rows(run(recipe, "run", *options))


@pytest.mark.parametrize("recipe", ALGORITHMS)
def test_control(recipe, run, workshop, tmp_path):
    """control=true is policy_weight=0 to the last bit: the same data, and an update by the supervised term alone."""
    options = ["group_size=1" if recipe in ("a2c", "reinforce", "reward_gradient") else "group_size=2", "kl=none"]
    rows = {}
    for name, more in (("plain", []), ("control", ["control=true"]), ("weightless", ["policy_weight=0.0"])):
        rows[name] = run(recipe, name, *options, *more)
    assert [without_times(r) for r in rows["control"]] == [without_times(r) for r in rows["weightless"]]
    for key in ("reward", "batch_frames", "noise_mm", "amplitude_mm"):  # the first rollout
        assert rows["plain"][1][key] == pytest.approx(rows["control"][1][key], rel=1e-3)
    for row in rows["control"][1:]:
        assert row["loss_policy"] == 0 and row["loss_supervised"] > 0 and row["grad_norm_policy"] > 0
    assert rows["plain"][2]["validation/lve"] != rows["control"][2]["validation/lve"]
    # the supervised term moves the network; the output map stays as it is, unless it is given a rate
    run(recipe, "mapped", *options, "control=true", "optimizer.output_lr_factor=0.03")
    start, _ = load_actor(workshop / "runs" / "start")
    for name, moves in (("control", False), ("mapped", True)):
        after, _ = load_actor(tmp_path / name / "last.pt")
        assert not torch.equal(start.decoder.audio_feature_map.weight, after.decoder.audio_feature_map.weight)
        assert torch.equal(start.decoder.vertice_map_r.weight, after.decoder.vertice_map_r.weight) != moves


@pytest.mark.parametrize("recipe", ["rloo", "gdpo"])
def test_placebo(recipe, run):
    """The same first rollout, rewards and size of the gradient; another update."""
    plain, placebo = (run(recipe, name, "group_size=4", f"placebo={name}") for name in ("false", "true"))
    for column in ("reward", "lip_score", "real_score", "noise_mm", "amplitude_mm"):
        assert placebo[1][column] == plain[1][column]
    assert placebo[1]["grad_norm_policy"] != plain[1]["grad_norm_policy"]
    assert placebo[1]["validation/lve"] != plain[1]["validation/lve"]


@pytest.mark.parametrize("recipes", [("ppo", "ppo_kl"), ("a2c", "reinforce", "reward_gradient")])
def test_algorithms_of_one_schedule_share_a_control(recipes, run):
    """Without the policy gradient they do the same, with or without a critic, so one control serves all of them."""
    columns = ["reward", "noise_mm", "value_supervised", "validation/lve", "validation/real_score"]
    rows = [run(recipe, recipe, "group_size=2", "control=true", "optimizer.lr=1e-4") for recipe in recipes]
    for other in rows[1:]:
        assert [[row[c] for c in columns] for row in rows[0][1:]] == [[row[c] for c in columns] for row in other[1:]]


def test_control_stands_still_without_ground_truth(run, workshop, tmp_path):
    """No recorded face, so no supervised gradient: without the policy's nothing moves, and control=true is refused."""
    make_tiny_corpus(tmp_path / "silent", n_subjects=4, n_sentences=3, audio_only="all")
    for recipe in ALGORITHMS:
        options = ["group_size=2", "critic=none", "kl=none", "policy_weight=0.0", "evaluation.select=reward"]
        run(recipe, f"c_{recipe}", f"corpus.root={tmp_path / 'silent'}", *options)
        start, _ = load_actor(workshop / "runs" / "start")
        after, _ = load_actor(tmp_path / f"c_{recipe}" / "last.pt")
        assert_equal(start.decoder.state_dict(), after.decoder.state_dict(), recipe)
    with pytest.raises(UserError, match="control=true: no training utterance has vertices"):
        run("ppo", "control", f"corpus.root={tmp_path / 'silent'}", "control=true")


def test_adaptive_terms_are_logged(run):
    rows = run("ppo", "run", "kl=adaptive", "constraint=lve", "constraint.max_ratio=0.5", "iterations=3")
    # the limit is broken by half from the start: the multiplier grows by rate * (ratio / limit - 1)
    assert rows[1]["constraint_lve_ratio"] == pytest.approx(1.0, abs=0.05)
    multiplier = 1.0
    for row in rows[1:]:
        multiplier += 0.2 * (row["constraint_lve_ratio"] / 0.5 - 1)
        assert row["constraint_multiplier"] == pytest.approx(multiplier, rel=1e-6)
        assert row["loss_supervised"] == pytest.approx(multiplier * row["value_supervised"], rel=1e-4)
    # the KL is far below its target of 0.1: the weight falls by gain * 0.2
    assert [row["kl_weight"] for row in rows[1:]] == pytest.approx([0.05, 0.05 * 0.8, 0.05 * 0.8**2])


def test_a_run_goes_on_from_an_averaged_one(run, tmp_path, caplog):
    """last.pt holds the average that its row validates, and the moments that another run starts with."""
    options = ["group_size=2", "critic=none", "critic.coeff=0.5"]  # a coefficient without a critic counts nothing
    first = run("ppo", "first", *options, "ema_decay=0.5", "optimizer.lr=2e-3")
    assert "holds no moments" not in caplog.text
    second = run("ppo", "second", *options, f"start={tmp_path / 'first' / 'last.pt'}", "iterations=1")
    assert "holds no moments" not in caplog.text
    assert second[0]["validation/lve"] == pytest.approx(first[-1]["validation/lve"], rel=1e-5)
    content = torch.load(tmp_path / "first" / "last.pt", weights_only=True)
    torch.save({"actor": content["actor"]}, tmp_path / "bare.pt")
    run("ppo", "third", *options, f"start={tmp_path / 'bare.pt'}", "iterations=1")
    assert "optimizer.keep_moments=true, but start holds no moments" in caplog.text


def test_learned_noise_moves(run, tmp_path):
    """log sigma has a rate of its own, 50 times that of the network: it can follow within a run."""
    run("ppo", "run", "exploration.learn_noise=true", "iterations=1", "minibatch_lanes=4", "epochs=1")
    content = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    rates = [group["lr_factor"] for group in content["parts"]["optimizer"]["param_groups"]]
    assert rates == [1.0, 50.0]


@pytest.mark.parametrize("factor", [0.0, 0.03])
def test_the_output_map_is_left_alone_or_has_a_rate_of_its_own(factor, run, tmp_path, workshop):
    start, _ = load_actor(workshop / "runs" / "start")
    run("rloo", "run", f"optimizer.output_lr_factor={factor}", "iterations=1")
    content = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    rates = [group["lr_factor"] for group in content["parts"]["optimizer"]["param_groups"]]
    assert rates == ([1.0, factor] if factor else [1.0])
    after, _ = load_actor(tmp_path / "run" / "last.pt")
    moved = not torch.equal(start.decoder.vertice_map_r.weight, after.decoder.vertice_map_r.weight)
    assert moved == bool(factor)
    assert not torch.equal(start.decoder.vertice_map.weight, after.decoder.vertice_map.weight)


def test_reward_column_is_the_plain_reward(run):
    plain = run("rloo", "plain", "iterations=1")
    normalised = run("rloo", "normalised", "iterations=1", "reward.normalise=batch")
    assert plain[1]["reward"] == normalised[1]["reward"]
    assert plain[1]["value_policy"] != normalised[1]["value_policy"]


def test_output_map_trains_by_the_reward_on_demand_only(run, workshop, tmp_path):
    start, _ = load_actor(workshop / "runs" / "start")
    for flag in ("false", "true"):
        run(
            "reward_gradient",
            f"map_{flag}",
            "supervised=none",
            f"train_output_map={flag}",
            "optimizer.output_lr_factor=0.03",
        )
        after, _ = load_actor(tmp_path / f"map_{flag}" / "last.pt")
        moved = not torch.equal(start.decoder.vertice_map_r.weight, after.decoder.vertice_map_r.weight)
        assert moved == (flag == "true")


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("grpo", ["group_size=1"], "critic=none with group_size=1: nothing to compare a sample with; use group_size=4"),
        ("rloo", ["critic=decoder"], "critic=decoder: the algorithm of bad has no use for a critic"),
        ("grpo", ["critic=backbone"], "no use for a critic"),
        ("reward_gradient", ["critic=decoder"], "no use for a critic"),
        ("reward_gradient", ["credit=window"], "unknown key 'credit'"),
        (
            "reward_gradient",
            ["train_output_map=true", "optimizer.output_lr_factor=0"],
            "train_output_map=true needs a rate for the output map",
        ),
        ("awr", ["exploration=vertex"], "exploration=vertex: .* latent exploration only"),
        ("awr", ["replay.capacity=0"], "replay.capacity=0"),
        ("awr", ["updates=0"], "updates=0: at least 1"),
        ("awr", ["temperature=0"], "temperature=0"),
        ("reinforce", ["critic=none"], "critic=none with group_size=1"),
        ("a2c", ["critic=none"], "critic=none with group_size=1"),
        ("rloo", ["control=true", "supervised=none"], "control=true with supervised=none"),
        ("reward_gradient", ["control=true", "supervised=none"], "control=true with supervised=none"),
        ("reward_gradient", ["placebo=true"], "compares no samples of a group"),
        ("ppo", ["placebo=true", "critic=decoder"], "placebo=true needs the group as baseline"),
        ("rloo", ["placebo=true", "control=true"], "placebo=true with control=true"),
        ("awr", ["control=true", "supervised.weight=0"], "no control"),
        ("ppo", ["constraint=lve", "supervised=none"], "constraint=lve with supervised=none"),
        ("ppo", ["constraint=lve", "constraint.rate=0"], "constraint.rate=0: above 0"),
        ("ppo", ["kl=adaptive", "kl.target=0"], "kl.target=0"),
        ("ppo", ["kl.weight=0.1"], "unknown key 'kl.weight'"),
        ("ppo", ["kl=fixed", "kl.weight=-1"], "kl.weight=-1"),
        ("ppo", ["kl=fixed", "kl.kind=sometimes"], "kl.kind=sometimes"),
        ("ppo", ["critic=decoder", "critic.coeff=0"], "critic.coeff=0.*above 0, or critic=none"),
        ("ppo", ["evaluation.every=0"], "evaluation.every=0"),
        ("ppo", ["reward.weights.lip_score=0", "reward.weights.real_score=0"], "reward.weights: all are 0"),
        ("ppo", ["max_frames=4"], "max_frames=4: a scored clip has 5 frames"),
        ("ppo", ["clip_epsilon=1"], "clip_epsilon=1"),
        ("grpo", ["clip_epsilon=0"], "clip_epsilon=0"),
        ("ppo", ["ema_decay=1.5"], "ema_decay=1.5"),
        ("ppo", ["credit=none"], "credit=none: use discounted, window, around, utterance"),
        ("ppo", ["gamma=1.5"], "gamma=1.5"),
        ("ppo", ["minibatch_lanes=0"], "minibatch_lanes=0"),
        ("ppo", ["reward.normalise=always"], "reward.normalise=always"),
        ("ppo_kl", ["penalty.beta=0"], "penalty.beta=0"),
        ("ppo", ["policy_weight=0", "supervised=none"], "policy_weight=0 with supervised=none"),
    ],
)
def test_refusals(recipe, options, message, rl_overrides, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        load_recipe(recipe).run([*rl_overrides, f"root={tmp_path}", "name=bad", *options])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "bad").exists()


def test_constraint_needs_vertices(rl_overrides, tmp_path):
    make_tiny_corpus(tmp_path / "silent", n_subjects=4, n_sentences=3, audio_only="all")
    with pytest.raises(UserError, match="constraint=lve: no training utterance has vertices"):
        load_recipe("ppo").run(
            [*rl_overrides, f"root={tmp_path}", "name=bad", f"corpus.root={tmp_path / 'silent'}", "constraint=lve"]
        )
