"""Every single key of every recipe, set to values that are none: one line that names the key, before anything opens."""

from __future__ import annotations

import copy
import math
import re
import sys
from collections.abc import Mapping
from typing import Annotated, Any, get_args, get_origin

import pytest
from config_tools import CONF, composed, variants

from s2f_rl.errors import UserError
from s2f_rl.runs.main import Recipe
from s2f_rl.runs.overrides import as_overrides, flat
from s2f_rl.runs.schema import Choice, accepts, hint_at, read
from s2f_rl.schemas import SCHEMAS

VALUES: list[Any] = [-1, 0, -0.5, 1.5, math.nan, math.inf, -math.inf, 10**30, 1e30, None, True, 1, "abc", "", "a\nb",
                     [], [{}], {"abc": 1}, {}]  # fmt: skip
# written down a second time, by hand: what 0 and null mean something for
ZERO = {
    "seed", "style", "final_lr", "output_lr_factor", "weight_decay", "warmup", "warmup_iterations", "velocity_weight",
    "lip_weight", "feature_weight", "dropout", "ema_decay", "correlation", "coeff", "weight", "policy_weight", "gamma",
    "gae_lambda", "listening.iterations", "gain_db", "equaliser_db", "noise_db", "steps", "hold", "on_base",
    "identity_spread", "style_spread", "voice_spread", "capture_noise_mm", "draw_threads",
    "cpus_per_worker", "gpus_per_worker", "substituted", "boundary_noise_s", "style_left_out", "errors", "neighbours",
    "invented_voices", "quantisation_weight",
    "lip_score", "real_score",  # of reward.weights, one of them
    "info_nce", "predict", "rank", "pooled", "hardening", "classify", "value", "sync",  # of weights
    "extra_closure", "frame_drop", "missing_closure", "wrong_utterance", "frame_hold", "wrong_speaker",
    "constant_offset", "max_closure_drop",
}  # fmt: skip
NULL = {
    "topology", "cache", "logger", "max_frames", "ema_decay", "max_grad_norm", "max_lve_ratio", "cap", "backbone",
    "corruptions", "leave_out", "policy", "policy_samples", "register", "utterances", "utterance", "out",
    "reward_folder", "judge_folder", "pretrained", "actor.kind", "measures", "checkpoint_minutes", "evaluation.styles",
    "address", "max_closure_drop", "phones", "unrecorded_share", "credit",
    "redraw_after", "feedback_window",
}  # fmt: skip
HUGE = {"max_lve_ratio"}  # infinity: no limit
RATES = {"lr", "final_lr"}  # one that is too large is told by the guard of the steps


MANDATORY = ["start=x", "reward.folder=x"]
OPEN = {"demo": ("supervised", "reward", "judge", "rl")}


def named(key: str, names: set[str]) -> bool:
    return key.rsplit(".", 1)[-1] in names or ".".join(key.split(".")[-2:]) in names


def is_choice(hint: Any) -> bool:
    rules = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return any(isinstance(rule, Choice) for rule in rules) or any(is_choice(each) for each in get_args(hint))


def is_bad(key: str, hint: Any, value: Any) -> bool:
    """The obvious rules, apart from the ranges in the schema."""
    if value is None:
        return not named(key, NULL) and key != "reward.folder"
    if isinstance(value, bool):
        return not accepts(hint, bool)
    if isinstance(value, (int, float)):
        if not accepts(hint, float) and (not accepts(hint, int) or isinstance(value, float)):
            return True
        if value == math.inf and named(key, HUGE):
            return False
        return not 0 <= value < (math.inf if named(key, RATES) else 1e29) or (value == 0 and not named(key, ZERO))
    if isinstance(value, str):
        return value != "abc" or not accepts(hint, str) or is_choice(hint) or key.endswith("device")
    if isinstance(value, dict):
        return not accepts(hint, dict)
    return True


def leaves(recipe: str) -> dict[str, dict[str, Any]]:
    """Every key, with a config that has it."""
    found: dict[str, dict[str, Any]] = {}
    for choices in variants(recipe):
        config = composed(recipe, *choices)
        for key in flat(config):
            found.setdefault(key, config)
    return found


def changed(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(config)
    *groups, last = key.split(".")
    place = config
    for group in groups:
        place = place[group]
    place[last] = value
    return config


@pytest.mark.parametrize("recipe", SCHEMAS)
def test_bad_values(recipe: str) -> None:
    schema, accepted = SCHEMAS[recipe], []
    for key, config in leaves(recipe).items():
        read(schema, config)
        for value in VALUES:
            if not is_bad(key, hint_at(schema, key), value):
                continue
            try:
                read(schema, changed(config, key, value))
            except UserError as error:
                assert key in str(error) and len(str(error).splitlines()) == 1 and len(str(error)) < 700, (key, value)
            else:
                accepted.append((key, value))
    assert accepted == []


@pytest.mark.parametrize("recipe", SCHEMAS)
def test_groups_are_groups_and_keys_cannot_be_taken_away(recipe: str) -> None:
    config = composed(recipe)
    for group in [key for key, value in config.items() if isinstance(value, Mapping)]:
        for value in (3, None, True, "abc", []):
            with pytest.raises(UserError, match=f"{group}(=|:).*expected|{group} is empty"):
                read(SCHEMAS[recipe], changed(config, group, value))
    for key in flat(config):
        *groups, last = key.split(".")
        parent = ".".join(groups)
        is_open = bool(groups) and accepts(hint_at(SCHEMAS[recipe], parent), dict)
        if is_open or key.split(".")[0] in OPEN.get(recipe, ()):
            continue
        less = copy.deepcopy(config)
        place = less
        for group in groups:
            place = place[group]
        del place[last]
        with pytest.raises(UserError, match=f"{key}"):
            read(SCHEMAS[recipe], less)


@pytest.mark.parametrize("recipe", SCHEMAS)
def test_on_the_command_line(recipe: str) -> None:
    """The same through Hydra, one value for each key: text that is no choice, no number and no path."""
    shared = set(leaves("ppo")) if recipe not in ("ppo", "demo") else set()
    main = Recipe(lambda cfg: pytest.fail("started"), recipe, CONF, SCHEMAS[recipe])
    given = MANDATORY if hasattr(SCHEMAS[recipe], "baselines") else ["checkpoint=x"] if recipe == "evaluate" else []
    for key, value in flat(composed(recipe)).items():
        if key in shared:
            continue
        bad = {bool: 2, list: 3}.get(type(value), "a\nb")
        with pytest.raises(UserError) as caught:
            main.run([*given, *as_overrides({key: bad})])
        assert key in str(caught.value) and "\n" not in str(caught.value)


CASES = {
    "turns the gradient round": ("ppo", "optimizer.max_grad_norm=-1", "optimizer.max_grad_norm=-1: above 0"),
    "an average that never moves": ("ppo", "ema_decay=1", "ema_decay=1: at least 0 and below 1"),
    "nothing to do": ("rloo", "iterations=0", "iterations=0: at least 1"),
    "less than nothing": ("supervised", "iterations=-1", "iterations=-1: at least 1"),
    "a guard that never holds": ("a2c", "evaluation.max_lve_ratio=nan", "evaluation.max_lve_ratio=nan: expected"),
    "no reward": ("grpo", "reward.scale=0", "reward.scale=0: above 0"),
    "merged into nothing": ("awr", "reward.weights={}", "reward.weights={}: changes nothing"),
    "a whole number as text": ("ppo", "seed='3'", "seed='3': expected a whole number"),
    "a whole number with a point": ("judge", "iterations=3.0", "iterations=3.0: expected a whole number"),
    "a seed that numpy would wrap": ("reward", "seed=4294967296", "seed=4294967296: at least 0 and at most 4294967295"),
    "a number beyond doubles": ("ppo", "optimizer.lr=1e400", "optimizer.lr=1e400: expected a finite number"),
    "a number beyond 64 bits": ("ppo", f"lanes={10**30}", f"lanes={10**30}: at least 1 and at most 65536"),
    "5000 digits": ("ppo", f"lanes={'9' * 5000}", "ppo: Exceeds the limit"),
    "a group name that is absolute": ("ppo", "name=/tmp/x", "name=/tmp/x: not a run name"),
    "a name that leaves its root": ("ppo", "name=a/../../b", "name=a/../../b: not a run name"),
    "a name of two lines": ("ppo", "name='a\nb'", "name='a\\nb': not a run name"),
    "a name that paints": ("ppo", "name='\x1b[31mred'", "name='\\x1b[31mred': not a run name"),
    "a long name": ("ppo", f"name={'x' * 256}", "not a run name"),
    "an unknown key by force": ("ppo", "+optimizer.beta=0.9", "unknown key 'optimizer.beta'"),
    "by more force": ("ppo", "++lane=3", "unknown key 'lane'; did you mean lanes?"),
    "a group of another recipe": ("ppo", "+actor=mel", "unknown key 'actor.feature_dim'"),
    "a needed key taken away": ("ppo", "~lanes", "lanes: missing"),
    "a needed group taken away": ("ppo", "~optimizer", "optimizer: missing"),
    "groups of four in ten lanes": ("ppo", "lanes=10", "group_size=4 must divide lanes=10"),
    "fewer lanes than a group": ("ppo", "lanes=2", "group_size=4 must divide lanes=2"),
    "lanes that workers cannot share": ("ppo", "parallel=workers parallel.workers=3", "parallel.workers=3: each plays"),
    "workers of what does not collect": ("supervised", "parallel=workers", "parallel.kind=workers: use none or ddp"),
    "a rate that rises": ("ppo", "optimizer.lr=1e-6", "optimizer.final_lr=1e-05: above optimizer.lr=1e-06"),
    "through an interpolation": ("ppo", "lanes=${group_size}x", "lanes="),
    "two sources": ("reward", "policy_samples=a policy=b", "policy and policy_samples both say"),
    "listening only": ("reward", "iterations=900", "iterations=900: the first 900 only listen"),
    "a stage's key": ("demo", "supervised.iterations=0", "supervised.iterations=0: at least 1"),
    "a stage's group, as a list": ("demo", "rl=[1]", "rl=[1]: expected a group of keys"),
    "an unknown key of a stage": ("demo", "rl.lane=3", "unknown key 'rl.lane'; did you mean rl.lanes?"),
}


@pytest.mark.parametrize("case", CASES)
def test_cases(case: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """As a user meets them: exit code 2 and one line, and the recipe's own code has not begun."""
    recipe, overrides, expected = CASES[case]
    main = Recipe(lambda cfg: pytest.fail("started"), recipe, CONF, SCHEMAS[recipe])
    given = MANDATORY if hasattr(SCHEMAS[recipe], "baselines") else []
    more = [overrides] if "'" in overrides else overrides.split(" ")
    monkeypatch.setattr(sys, "argv", [f"{recipe}.py", *given, *more])
    with pytest.raises(SystemExit) as left:
        main()
    seen = capfd.readouterr()
    assert left.value.code == 2 and seen.out == ""
    assert len(seen.err.splitlines()) == 1 and expected in seen.err


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        (
            "ppo",
            ["name=bench/seed1", "optimizer.max_grad_norm=null", "evaluation.max_lve_ratio=null", "logger=null"],
        ),
        ("ppo", ["name=007", "optimizer.lr=1", "style=3", "evaluation.conditions=[0,2]", "minibatch_lanes=64"]),
        ("ppo", ["evaluation.every=1000", "evaluation.max_lve_ratio=inf", "corpus.topology=null", "seed=4294967295"]),
        ("supervised", ["warmup_iterations=5000", "corpus.root=a b/c", "logger=[csv,tensorboard]"]),
        ("reward", ["clips.emphasis.jitter=2", "backbone=x", "iterations=10", "optimizer.warmup=500"]),
        ("demo", ["supervised.iterations=5", "reward.weights.rank=2", "judge.seed=3", "rl.critic=decoder"]),
        ("demo", ["rl.kl=adaptive", "rl.gamma=0.2", "film.utterance=x", "supervised={iterations:5}"]),
    ],
)
def test_what_makes_sense_is_taken(recipe: str, overrides: list[str]) -> None:
    config = flat(composed(recipe, *overrides))
    for key, value in (each.split("=", 1) for each in overrides):
        if key in config:
            assert re.sub("[][' ]", "", str(config[key])) in (re.sub("[][ ]", "", value), "None"), key
