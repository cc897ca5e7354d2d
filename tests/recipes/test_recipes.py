"""One tiny command for every recipe and option, in one table; the outputs that users rely on."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import torch
from recipe_tools import load_recipe
from tiny import make_tiny_corpus

from s2f_rl.errors import UserError
from s2f_rl.models.checkpoint import load_actor
from s2f_rl.rewards import RewardModel
from s2f_rl.runs import read_rows

RL_COMMANDS = {
    "ppo": ("ppo", ["group_size=2", "minibatch_lanes=2"]),
    "ppo control": ("ppo", ["group_size=2", "control=true"]),
    "ppo critic": ("ppo", ["critic=decoder", "group_size=1", "minibatch_lanes=3", "epochs=1"]),
    "ppo correlated": ("ppo", ["exploration=correlated", "group_size=4", "supervised=teacher_forced"]),
    "ppo vertex": ("ppo", ["exploration=vertex", "group_size=2", "balance=none"]),
    "ppo kl ema": ("ppo", ["kl=fixed", "kl.weight=0.1", "ema_decay=0.5", "exploration.learn_noise=true", "style=all"]),
    "ppo alone": ("ppo", ["supervised=none", "reward.cap=null", "reward.stride=2", "max_frames=12"]),
    "a2c": ("a2c", []),
    "a2c control": ("a2c", ["control=true"]),
    "a2c original": ("a2c", ["+experiment=original"]),
}


@pytest.mark.parametrize("command", RL_COMMANDS)
def test_rl(command, rl_overrides, tmp_path):
    recipe, options = RL_COMMANDS[command]
    values = load_recipe(recipe).run([*rl_overrides, f"root={tmp_path}", "name=run", *options])
    assert all(math.isfinite(values[k]) for k in ("lve", "mve", "fdd", "lip_score", "real_score", "amplitude_ratio"))
    folder = tmp_path / "run"
    rows = read_rows(folder / "metrics.jsonl")
    assert [row["iteration"] for row in rows] == [0, 1, 2]
    assert rows[2]["frames"] == rows[1]["batch_frames"] + rows[2]["batch_frames"]
    for row in rows[1:]:
        assert math.isfinite(row["value_policy"]) and math.isfinite(row["reward"])
        assert row["grad_norm_policy"] > 0
        if "control" in command:
            assert row["loss_policy"] == 0 and row["loss_supervised"] > 0
        elif "original" not in command and "none" not in " ".join(options):
            assert row["loss_policy"] != 0
        if recipe == "ppo" and row["iteration"] == 1 and "epochs=1" in options:
            assert row["policy_ESS"] <= 1 + 1e-5
    for name in ("best.pt", "last.pt"):
        actor, about = load_actor(folder / name)
        assert about["subjects"] == ["S0", "S1"] and actor.n_vertices == 40
    assert (folder / "best_head.pt").exists() == (recipe == "a2c" or "critic=decoder" in options)
    assert (folder / "config.yaml").exists()


def test_control_differs_from_ppo_by_the_policy_gradient_alone(rl_overrides, tmp_path):
    """Same rollouts in the first iteration, same start, another update."""
    rows = {}
    for control in ("false", "true"):
        load_recipe("ppo").run([*rl_overrides, f"root={tmp_path}", f"name=c{control}", f"control={control}"])
        rows[control] = read_rows(tmp_path / f"c{control}" / "metrics.jsonl")
    for key in ("reward", "batch_frames", "noise_mm", "validation/lve"):
        first = 0 if key.startswith("validation") else 1
        assert rows["false"][first][key] == pytest.approx(rows["true"][first][key], rel=1e-3)
    assert rows["false"][2]["validation/lve"] != rows["true"][2]["validation/lve"]


def test_policy_gradient_leaves_the_audio_encoder_alone(workshop, rl_overrides, tmp_path):
    load_recipe("ppo").run([*rl_overrides, f"root={tmp_path}", "name=run"])
    before = load_actor(workshop / "runs" / "start")[0].audio_encoder.state_dict()
    after = load_actor(tmp_path / "run" / "last.pt")[0].audio_encoder.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_original_trains_a_copy_of_the_value_branch(workshop, rl_overrides, tmp_path):
    load_recipe("a2c").run([*rl_overrides, f"root={tmp_path}", "name=run", "+experiment=original"])
    head = torch.load(tmp_path / "run" / "best_head.pt", weights_only=True)["head"]
    frozen = RewardModel.load(workshop / "reward").head.state_dict()
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert rows[1]["value_policy_critic"] > rows[2]["value_policy_critic"] * 0.5 > 0
    for name, value in frozen.items():
        if not name.startswith("value"):
            assert torch.equal(head[f"head.{name}"], value)


@pytest.mark.parametrize("mode", ["autoregressive", "teacher_forced"])
def test_supervised_learns(workshop, tmp_path, mode):
    values = load_recipe("supervised").run(
        [
            f"corpus.root={workshop / 'corpus'}", f"root={tmp_path}", "name=s", f"mode={mode}", "iterations=30",
            "evaluation.every=15", "actor.audio.width=16", "actor.feature_dim=16", "optimizer.lr=3e-3",
            "ema_decay=0.9", "lip_weight=1.0", "velocity_weight=0.5", "max_frames=20", "logger=none",
            f"reward.folder={workshop / 'reward'}", "actor.dropout=0.0",
        ]
    )  # fmt: skip
    losses = [row["loss_position_mm2"] for row in read_rows(tmp_path / "s" / "metrics.jsonl")]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3])
    assert {"lve", "fdd", "lip_score", "real_score"} <= set(values)


def test_wav2vec2_actor(workshop, tmp_path):
    """A small random wav2vec2: the published path without a download."""
    load_recipe("supervised").run(
        [
            f"corpus.root={workshop / 'corpus'}", f"root={tmp_path}", "name=w", "actor=wav2vec2", "iterations=2",
            "evaluation.every=1", "actor.feature_dim=16", "batch_size=1", "actor.audio.pretrained=null", "logger=none",
            "+actor.audio.config={hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16,"
            " conv_dim: [8,8,8,8,8,8,8], num_conv_pos_embeddings: 8, num_conv_pos_embedding_groups: 2}",
        ]
    )  # fmt: skip
    actor, _ = load_actor(tmp_path / "w")
    assert actor.audio_encoder.kind == "wav2vec2" and actor.audio_encoder.width == 16


def test_evaluate(workshop, tmp_path):
    summary = load_recipe("evaluate").run(
        [
            f"checkpoint={workshop / 'runs' / 'start'}", f"corpus.root={workshop / 'corpus'}", f"out={tmp_path}",
            f"reward_folder={workshop / 'reward'}", f"judge_folder={workshop / 'judge'}", "progress=false",
        ]
    )  # fmt: skip
    with open(tmp_path / "sequences.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    utterances = {row["utterance"] for row in rows}
    assert {row["condition"] for row in rows} == {"S0", "S1", "mean"}
    assert len(rows) == 3 * len(utterances) == summary["sequences"]
    assert all(row["subject"] == "S3" for row in rows)
    stored = json.loads((tmp_path / "summary.json").read_text())
    for kind, chosen in (("style_dependent", {"S0", "S1"}), ("style_independent", {"mean"})):
        for column in ("lve", "mve", "fdd", "lip_score", "judge_real_score"):
            values = [float(row[column]) for row in rows if row["condition"] in chosen]
            assert stored[kind][column] == pytest.approx(np.mean(values))
    assert stored["definitions"]["lve"]["unit"] == "m^2" and len(stored["reward_models"]) == 2
    name = sorted(utterances)[0]
    motions = [np.load(tmp_path / "predictions" / f"{name}_condition_{s}.npy") for s in ("S0", "S1", "mean")]
    np.testing.assert_allclose(motions[2], (motions[0] + motions[1]) / 2, atol=1e-6)


def test_judge_must_be_another_model(workshop, tmp_path):
    with pytest.raises(UserError, match="are the same"):
        load_recipe("evaluate").run(
            [
                f"checkpoint={workshop / 'runs' / 'start'}", f"corpus.root={workshop / 'corpus'}", f"out={tmp_path}",
                f"reward_folder={workshop / 'reward'}", f"judge_folder={workshop / 'reward'}",
            ]
        )  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("ppo", ["group_size=1"], "critic=none with group_size=1"),
        ("ppo", ["control=true", "supervised=none"], "no control"),
        ("ppo", ["lanes=3", "group_size=2"], "group_size=2 must divide"),
        ("ppo", ["start=nowhere/best.pt"], "nowhere/best.pt"),
        ("ppo", ["reward.folder=nowhere"], "nowhere"),
        ("ppo", ["corpus.root=nowhere"], "corpus.root=nowhere"),
        ("ppo", ["itertions=3"], "itertions"),
        ("a2c", ["critic=none"], "critic=none"),
        ("a2c", ["exploration=sideways"], "sideways"),
    ],
)
def test_mistakes(recipe, options, message, rl_overrides, tmp_path):
    with pytest.raises(UserError, match=message):
        load_recipe(recipe).run([*rl_overrides, f"root={tmp_path}", "name=bad", *options])
    assert not (tmp_path / "bad" / "last.pt").exists()


@pytest.mark.parametrize("supervised", ["none", "on_policy"])
def test_audio_alone(workshop, rl_overrides, tmp_path, supervised):
    """Speech and templates, not one recorded face: the policy still learns from the reward."""
    make_tiny_corpus(tmp_path / "silent_film", n_subjects=4, n_sentences=3, audio_only="all")
    values = load_recipe("ppo").run(
        [*rl_overrides, f"root={tmp_path}", "name=run", f"corpus.root={tmp_path / 'silent_film'}",
         f"supervised={supervised}"]
    )  # fmt: skip
    assert "lve" not in values and math.isfinite(values["lip_score"])
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert rows[1]["grad_norm_policy"] > 0 and rows[1]["loss_policy"] != 0
    assert rows[1].get("supervised_supervised_frames", 0) == 0
    start, _ = load_actor(workshop / "runs" / "start")
    tuned, _ = load_actor(tmp_path / "run" / "last.pt")
    assert not torch.equal(start.decoder.layer.linear1.weight, tuned.decoder.layer.linear1.weight)
    assert torch.equal(start.decoder.vertice_map_r.weight, tuned.decoder.vertice_map_r.weight)
