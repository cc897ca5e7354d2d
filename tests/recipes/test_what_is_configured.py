"""Every key of every config is read by its recipe: a key that no code reads would lie to whoever sets it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from config_tools import Recorder, composed
from omegaconf import OmegaConf
from recipe_tools import load_recipe
from tiny import make_tiny_corpus

from s2f_rl.errors import UserError
from s2f_rl.rewards.articulation.lessons import LessonSampler
from s2f_rl.rewards.judge import Judge, StretchSampler
from s2f_rl.rewards.training.adversaries import Hardening
from s2f_rl.rewards.training.clips import ClipSampler
from s2f_rl.rewards.training.speech_augmentation import SpeechAugmentation
from s2f_rl.runs import Recipe
from s2f_rl.runs.overrides import flat
from s2f_rl.runs.schema import keys_of
from s2f_rl.schemas import SCHEMAS
from tests.rewards.articulation.speaking import speaking_corpus

# read from the command line, or for the name of a job of a sweep, by Hydra's surroundings
ELSEWHERE = {"debug", "name"}

SMALL = {
    "supervised": ["mode=autoregressive", "batch_size=2", "actor.audio.width=16", "actor.feature_dim=16"],
    "reward": ["iterations=2", "listening.iterations=1", "evaluation.utterances=1", "reward_model.width=16",
               "reward_model.n_heads=2", "clips.n_stretches=2", "clips.n_windows=2", "listening.recordings=2",
               "listening.clips=2", "hardening.steps=1", "motion_directions=6", "rough_directions=3"],
    "judge": ["iterations=1", "evaluation.utterances=1", "judge_model.width=16", "judge_model.hidden=16",
              "stretches.n_stretches=2", "stretches.n_corruptions=1", "motion_directions=6", "rough_directions=3"],
    "articulation": ["batch_size=2", "width=8", "depth=2", "evaluation.utterances=1"],
    "codebook": ["codebook_model.width=8", "codebook_model.code_width=4", "codebook_model.codes_per_frame=2",
                 "codebook_model.n_layers=1", "batch_size=2", "evaluation.utterances=1"],
    "listener": ["utterances=6", "batch_size=2", "batch_frames=30", "recogniser.width=8", "recogniser.n_layers=1"],
    "rl": ["lanes=4", "group_size=2", "kl=adaptive", "constraint=lve", "train_encoder=true"],
}  # fmt: skip


def unread(main: Recipe, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Keys of a config that a run of the recipe does not ask for; the copy in the run folder counts as no reading."""
    seen: set[str] = set()
    monkeypatch.setattr("s2f_rl.runs.folder._plain_config", lambda config: dict(config.content))
    for module in ("parts", "parallel"):
        monkeypatch.setattr(f"s2f_rl.training.{module}.plain", lambda config: config)
    main.function(Recorder(content, seen))
    return set(flat(content)) - seen - ELSEWHERE


def rl_options(recipe: str, workshop: Path) -> list[str]:
    options = [f"start={workshop / 'runs' / 'start'}", f"reward.folder={workshop / 'reward'}", *SMALL["rl"]]
    options += ["critic=decoder"] if "critic" in SCHEMAS[recipe].baselines else []
    return options + (["minibatch_lanes=2"] if "minibatch_lanes" in keys_of(SCHEMAS[recipe]) else [])


@pytest.mark.parametrize("recipe", [name for name in SCHEMAS if name != "demo"])
def test_what_is_configured_is_used(
    recipe: str, workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, corpus = load_recipe(recipe), workshop / "corpus"
    if recipe in ("reward", "judge"):  # whose utterances are as long as a judge's window
        corpus = make_tiny_corpus(tmp_path / "corpus", 5, 3, 45, seconds=(1.2, 1.8))
    if recipe == "articulation":
        corpus = speaking_corpus(tmp_path / "corpus")
    options = [f"corpus.root={corpus}", "device=cpu", "progress=false", *SMALL.get(recipe, [])]
    if recipe == "listener":
        pytest.importorskip("espeakng_loader")
        options = [each for each in options if not each.startswith("corpus.")]
    if recipe == "evaluate":
        options += [f"checkpoint={workshop / 'runs' / 'start'}", f"out={tmp_path}"]
    else:
        options += [f"root={tmp_path}", "logger=none", "iterations=2"]
    if hasattr(SCHEMAS[recipe], "baselines"):
        content = OmegaConf.to_container(main.compose([*options, *rl_options(recipe, workshop)]))
        # an algorithm without a critic asks for the kind of the group alone, and refuses any other than none
        without = {"critic.coeff", "optimizer.critic_lr_factor"}
        left = unread(main, content, monkeypatch)  # type: ignore[arg-type]
        assert left == set() if "critic" in SCHEMAS[recipe].baselines else left <= without
        return
    content = OmegaConf.to_container(main.compose(options))
    uncached = (
        "reward",
        "judge",
        "articulation",
        "codebook",
    )  # the first asks for it where there is a policy, the others never
    left = {"corpus.cache"} if recipe in uncached else set()
    assert unread(main, content, monkeypatch) - {"parallel.kind"} == left  # which is read before the recipe begins
    if recipe != "judge":
        return
    with pytest.raises(UserError, match="corpus.cache=x: this recipe keeps audio features in memory"):
        main.compose([*options, "corpus.cache=x"])  # what it does not read cannot be set either


@pytest.mark.parametrize(
    "recipe, group, takes",
    [
        ("reward", "clips", ClipSampler),
        ("reward", "speech", SpeechAugmentation),
        ("reward", "hardening", Hardening),
        ("judge", "stretches", StretchSampler),
        ("judge", "judge_model", Judge.of),
        ("articulation", "mistakes", LessonSampler),
    ],
)
def test_a_number_of_a_recipe_stands_in_its_yaml_alone(recipe: str, group: str, takes: Any) -> None:
    """What only a recipe makes has no defaults of its own: of two numbers one would be the wrong one."""
    given = composed(recipe)[group].keys() & inspect.signature(takes).parameters.keys()
    assert len(given) > 1
    assert [key for key in given if inspect.signature(takes).parameters[key].default is not inspect._empty] == []


def test_a_key_that_nobody_reads_is_found(workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main = load_recipe("a2c")
    options = [f"corpus.root={workshop / 'corpus'}", f"root={tmp_path}", "logger=none", "progress=false"]
    content: Any = OmegaConf.to_container(main.compose([*options, "iterations=2", *rl_options("a2c", workshop)]))
    content["optimizer"]["beta"] = 0.9
    content["width"] = 3
    assert unread(main, content, monkeypatch) == {"optimizer.beta", "width"}
