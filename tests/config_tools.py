"""Configs of the recipes with every choice of their groups, the keys of a schema, a config that watches its reading."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from omegaconf import OmegaConf

from s2f_rl.runs.configs import compose_config, finish_config, opened
from s2f_rl.runs.schema import keys_of
from s2f_rl.schemas import SCHEMAS

CONF = Path(__file__).resolve().parents[1] / "recipes" / "conf"
NEEDS = {"critic": ["group_size=4"], "actor=speech": ["actor.audio.pretrained=a"],
         **{f"actor=codetalker{each}": ["actor.codebook=a"] for each in ("", "_mel", "_wav2vec2")}}  # fmt: skip
"""What must be given beside some choices of a group."""
MANDATORY = {"start": "start=a", "checkpoint": "checkpoint=c"}


def must_be_given(recipe: str) -> list[str]:
    """Overrides without which a recipe's config is not complete."""
    given = [text for key, text in MANDATORY.items() if key in OmegaConf.missing_keys(compose_config(CONF, recipe))]
    return given + (["reward.folder=b"] if hasattr(SCHEMAS[recipe], "baselines") else [])  # that, or parts of a reward


@functools.cache
def composed(recipe: str, *choices: str) -> dict[str, Any]:
    """A recipe's config, checked, with what must be given and with other choices of its groups; not to be changed."""
    overrides = opened([*must_be_given(recipe), *choices], SCHEMAS[recipe])
    cfg = compose_config(CONF, recipe, overrides)
    return OmegaConf.to_container(finish_config(cfg, CONF, recipe, overrides, SCHEMAS[recipe]))  # type: ignore


def groups(recipe: str) -> dict[str, list[str]]:
    """The config groups of a recipe and what can be chosen in each."""
    found: dict[str, list[str]] = {}
    todo = [CONF / f"{recipe}.yaml"]
    while todo:
        for item in yaml.safe_load(todo.pop().read_text()).get("defaults", []):
            if isinstance(item, str) and item != "_self_":
                todo.append(CONF / f"{item.lstrip('/')}.yaml")
            elif isinstance(item, dict):
                group = next(iter(item)).removeprefix("override ").lstrip("/")
                found[group] = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    return found


def variants(recipe: str) -> Iterator[tuple[str, ...]]:
    """Overrides with which every choice of every group is met once, and the experiment."""
    yield ()
    algorithm = SCHEMAS[recipe]
    for group, options in groups(recipe).items():
        for option in options:
            fits = group != "critic" or "critic" in algorithm.baselines or option == "none"
            fits = fits and (group != "parallel" or hasattr(algorithm, "baselines") or option in ("none", "ddp"))
            fits = fits and (group != "exploration" or option != "vertex" or "vertex" in algorithm.explorations)
            if fits:
                choice = f"{group}={option}"
                yield (choice, *NEEDS.get(group, NEEDS.get(choice, [])))
    if recipe == "a2c":
        yield ("+experiment=original",)


def schema_keys(schema: Any, place: str = "") -> Iterator[tuple[str, Any, str]]:
    """(dotted key, its type, its meaning) of a schema and of the groups in it."""
    for option in (schema, *get_args(schema)):
        if not (isinstance(option, type) and is_dataclass(option)):
            continue
        for field in fields(option):
            hint = keys_of(option)[field.name]
            yield f"{place}{field.name}", hint, field.metadata["meaning"]
            yield from schema_keys(hint, f"{place}{field.name}.")


class Recorder(Mapping[str, Any]):
    """A config that remembers which of its values were asked for."""

    def __init__(self, content: Mapping[str, Any], seen: set[str], place: str = "") -> None:
        self.content, self.seen, self.place = content, seen, place

    def __getitem__(self, key: str) -> Any:
        value = self.content[key]
        if isinstance(value, Mapping):
            return Recorder(value, self.seen, f"{self.place}{key}.")
        self.seen.add(f"{self.place}{key}")
        return value

    def __getattr__(self, key: str) -> Any:
        if key not in self.content:
            raise AttributeError(key)
        return self[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)
