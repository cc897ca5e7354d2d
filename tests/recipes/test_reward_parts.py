"""Rewards of several parts in recipes: any score, resumed to the same numbers, and what is refused."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch
from recipe_tools import dies_at, load_recipe

from s2f_rl.errors import UserError
from s2f_rl.rewards import Reward
from s2f_rl.runs import read_rows, without_times

MOVES = f"{{kind: '{__name__}:Moves', weight: 0.1}}"
CLOSURE = "{kind: closure, weight: 0.3}"
UNHEARD = "{kind: closure, weights: {closure_score: 0, open_score: 0}}"


class Moves(Reward):
    """How far the first vertex is from where it was two frames ago; it looks back and has no gradient."""

    score_names = ("moves_score",)
    look_back = 2
    differentiable = False

    def __init__(self, corpus, device="cpu", scale_mm: float = 1.0, file: str | None = None):
        self.scale_m = scale_mm / 1e3
        self.read = "" if file is None else Path(file).read_text()

    def score_motion(self, vertices, prepared, frame_mask, stride=1, first_frame=None):
        moved = (vertices[:, 2:, :3] - vertices[:, :-2, :3]).norm(dim=-1) / self.scale_m
        score = torch.nn.functional.pad(moved / (1 + moved), (2, 0))
        return {"moves_score": (score, frame_mask)}


class Silent(Moves):
    """Has nothing to say of any frame."""

    def score_motion(self, vertices, prepared, frame_mask, stride=1, first_frame=None):
        return {"moves_score": (vertices[..., 0], frame_mask & False)}


@pytest.fixture
def place(workshop, tmp_path):
    """The workshop's corpus with phones: a /p/ in every utterance."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for entry in (workshop / "corpus").iterdir():
        (corpus / entry.name).symlink_to(entry)
    (corpus / "phones").mkdir()
    for wav in (corpus / "wav").glob("*.wav"):
        phones = [["sil", 0.0, 0.1], ["aa", 0.1, 0.25], ["p", 0.25, 0.4], ["aa", 0.4, 0.55]]
        (corpus / "phones" / f"{wav.stem}.json").write_text(json.dumps(phones))
    return tmp_path


@pytest.fixture
def run(rl_overrides, place):
    def run(recipe, name, *options):
        given = [*rl_overrides, f"corpus.root={place / 'corpus'}", f"root={place}", f"name={name}", "logger=none"]
        load_recipe(recipe).run([*given, *options])
        return read_rows(place / name / "metrics.jsonl")

    return run


def test_a_batch_without_scores_is_told_once(run, caplog):
    part = f"reward.parts.silent={{kind: '{__name__}:Silent'}}"
    rows = run("rloo", "run", part, "reward.folder=null", "group_size=2", "evaluation.select=lve")
    assert len(rows) == 3 and rows[-1]["reward"] is None
    assert sum("no frame of the batch has a score" in record.message for record in caplog.records) == 1


def test_parts_are_logged_validated_and_resumed(run, monkeypatch):
    options = [f"reward.parts.closure={CLOSURE}", f"reward.parts.moves={MOVES}", "reward.normalise=running",
               "reward.cap=truth", "group_size=2", "iterations=4", "evaluation.every=2"]  # fmt: skip
    unbroken = run("rloo", "unbroken", *options)
    scores = ["lip_score", "real_score", "closure_score", "open_score", "moves_score"]
    for row in unbroken[1:]:
        assert all(0 < row[score] <= 1 for score in scores)
    assert all(math.isfinite(unbroken[-1][f"validation/{score}"]) for score in scores)
    with dies_at(3, monkeypatch):
        run("rloo", "broken", *options)
    broken = run("rloo", "broken", *options, "resume=true")
    assert [without_times(row) for row in unbroken] == [without_times(row) for row in broken]


def test_a_reward_without_the_perceptual_one(run):
    rows = run("rloo", "run", "reward.folder=null", f"reward.parts={{moves: {MOVES}}}", "group_size=2")
    assert "lip_score" not in rows[1] and rows[1]["reward"] == pytest.approx(0.1 * rows[1]["moves_score"], rel=1e-5)
    assert rows[0]["validation/moves_score"] > 0


def test_the_short_form_and_one_part_are_the_same(run, workshop):
    short = run("ppo", "short", "group_size=2", "reward.weights.real_score=0.5", "minibatch_lanes=2")
    part = f"{{kind: perceptual, folder: {workshop / 'reward'}, weights: {{real_score: 0.5}}}}"
    parts = run("ppo", "parts", "group_size=2", "reward.folder=null", f"reward.parts.p={part}", "minibatch_lanes=2")
    assert [without_times(row) for row in short] == [without_times(row) for row in parts]


def test_a_changed_part_is_not_resumed(run, place):
    (place / "file").write_text("before")
    part = f"reward.parts.moves={{kind: '{__name__}:Hashed', file: '{place / 'file'}'}}"
    options = [part, "group_size=2"]
    run("rloo", "run", *options)
    run("rloo", "run", *options, "iterations=3", "resume=true")
    (place / "file").write_text("after")
    with pytest.raises(UserError, match="the content of reward.parts.moves.* has changed"):
        run("rloo", "run", *options, "iterations=4", "resume=true")


class Hashed(Moves):
    """The same with what it read in its hash."""

    def content_hash(self):
        return hashlib.sha256(self.read.encode()).hexdigest()


@pytest.mark.parametrize(
    ("recipe", "options"),
    [("reward_gradient", []), ("ppo", ["critic=backbone", "group_size=1"]), ("awr", ["group_size=2"])],
)
def test_the_closure_reward_in_other_recipes(recipe, options, run):
    rows = run(recipe, "run", f"reward.parts.closure={CLOSURE}", *options)
    assert all(math.isfinite(row["closure_score"]) and row["grad_norm_policy"] > 0 for row in rows[1:])


@pytest.mark.parametrize(
    ("recipe", "options", "expected"),
    [
        ("reward_gradient", [f"reward.parts.moves={MOVES}"], "reward.parts.moves: .* cannot be differentiated"),
        ("rloo", ["reward.parts.c={kind: closures}"], "reward.parts.c.kind=closures: not one of the rewards"),
        ("rloo", ["reward.parts.c={kind: closure, softnes_mm: 1}"], "unknown key 'reward.parts.c.softnes_mm'; use"),
        ("rloo", ["reward.parts.c={kind: closure, softness_mm: wide}"], "reward.parts.c.softness_mm=wide: expected"),
        ("rloo", ["reward.parts.c={kind: closure, weight: -1}"], "reward.parts.c.weight=-1: at least 0"),
        ("rloo", ["reward.parts.c={kind: closure, weights: {lip: 1}}"], "weights.lip: unknown score, use closure"),
        ("rloo", ["reward.parts.c={weight: 1}"], "reward.parts.c.kind: missing"),
        ("rloo", ["reward.parts.c={kind: perceptual}"], "reward.parts.c.folder: missing"),
        ("rloo", ["reward.parts.c={kind: 'nowhere:Reward'}"], "reward.parts.c.kind=nowhere:Reward: cannot"),
        ("rloo", ["reward.folder=null"], "reward.folder must be given, .* or a part: reward.parts.NAME.kind="),
        ("rloo", ["reward.parts.perceptual={kind: closure}"], "reward.parts.perceptual: that is the name of"),
        ("ppo", ["reward.folder=null", f"reward.parts.m={MOVES}", "critic=backbone"], "no part .* critic=decoder"),
        ("gdpo", ["reward.folder=null", f"reward.parts.c={UNHEARD}"], "the weights of all scores are 0"),
    ],
)  # fmt: skip
def test_refused(recipe, options, expected, run):
    with pytest.raises(UserError, match=expected) as caught:
        run(recipe, "run", *options)
    assert "\n" not in str(caught.value)


def test_a_corpus_without_phones_names_the_remedy(run, workshop):
    with pytest.raises(UserError, match="no utterance has phone timings.*s2f-rl align"):
        run("rloo", "run", f"corpus.root={workshop / 'corpus'}", f"reward.parts.closure={CLOSURE}")
