"""The schemas and the YAML files say the same: every key has a type, a range and a meaning, and is somewhere."""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin

import pytest
from config_tools import CONF, composed, schema_keys, variants

from benchmarks.harness.matrix import SUITES, open_suite, suite_names
from benchmarks.harness.schema import Suite
from s2f_rl.runs.overrides import as_overrides, flat
from s2f_rl.runs.schema import Range, accepts, hint_at
from s2f_rl.schemas import SCHEMAS

# keys that no YAML has because they may be left out; the comment of a YAML names them
ADDED = {"actor.audio.config", "kl.weight"}
EMPTY = {"reward.parts"}  # groups that are empty unless something is put into them


def limited(hint: Any) -> bool:
    """Whether every number and every text that a type is made of has a range, a choice or a rule."""
    if get_origin(hint) is Annotated:
        rules = get_args(hint)[1:]
        return bool(rules) and (get_args(hint)[0] not in (int, float) or any(isinstance(r, Range) for r in rules))
    if get_origin(hint) is dict and get_args(hint)[1] is Any:  # handed on to others, who check it
        return True
    if get_origin(hint) is dict:
        return get_args(hint)[1] == list[Any] or limited(get_args(hint)[1])
    return hint not in (int, float, str, Any) and all(limited(each) for each in get_args(hint))


@pytest.mark.parametrize("recipe", SCHEMAS)
class TestRecipes:
    def test_every_key_of_the_yaml_is_in_the_schema_and_the_other_way_round(self, recipe: str) -> None:
        schema = SCHEMAS[recipe]
        known = {key for key, _, _ in schema_keys(schema)}
        found: set[str] = set()
        for choices in variants(recipe):
            for key in flat(composed(recipe, *choices)):
                parts = key.split(".")
                open_at = [n for n in range(1, len(parts)) if accepts(hint_at(schema, ".".join(parts[:n])), dict)]
                key = ".".join(parts[: open_at[0]]) if open_at else key
                found |= {".".join(key.split(".")[: n + 1]) for n in range(key.count(".") + 1)}
        assert found - known == set()
        assert known - found - ADDED - EMPTY == set()

    def test_every_key_has_a_range_and_a_meaning(self, recipe: str) -> None:
        for key, hint, meaning in schema_keys(SCHEMAS[recipe]):
            assert limited(hint), f"{key}: a number without range, or a text without rule"
            assert len(meaning) > 3 and meaning == meaning.strip() and not meaning.endswith("."), key

    def test_every_key_can_be_overridden(self, recipe: str) -> None:
        config = composed(recipe)
        assert composed(recipe, *as_overrides(config)) == config
        for choices in variants(recipe) if recipe in ("ppo", "supervised") else ():
            group = choices[0].split("=")[0] if choices else None
            if group in (chosen := composed(recipe, *choices)):
                assert composed(recipe, *choices, *as_overrides({group: chosen[group]})) == chosen

    def test_the_yaml_is_that_of_a_recipe(self, recipe: str) -> None:
        assert (CONF / f"{recipe}.yaml").is_file()


def test_every_recipe_has_a_schema() -> None:
    assert sorted(SCHEMAS) == sorted(path.stem for path in CONF.glob("*.yaml"))


def test_keys_that_may_be_added_are_named_in_a_yaml() -> None:
    text = "".join(path.read_text() for path in CONF.rglob("*.yaml"))
    assert all(f"+{key}=" in text or key == "kl.weight" for key in ADDED)


@pytest.mark.parametrize("name", suite_names())
def test_every_key_of_a_suite_is_in_its_schema(name: str) -> None:
    suite = open_suite([f"suite={name}"])
    known = {key for key, _, _ in schema_keys(Suite)}
    assert set(suite) == {key for key in known if "." not in key}
    for key, hint, meaning in schema_keys(Suite):
        assert limited(hint) or key in ("variants", "controls", "setup"), key
        assert len(meaning) > 3, key
    skipped = {"controls", "variants"}  # with dots in their keys
    if any("." in own for stage in suite["setup"].values() for own in stage["overrides"]):
        skipped.add("setup")
    plain = {key: value for key, value in suite.items() if key not in skipped}
    assert open_suite([f"suite={name}", *as_overrides(plain)]) == suite
    assert (SUITES / f"{name}.yaml").is_file()
