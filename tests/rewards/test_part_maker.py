"""What a person may name as a kind of reward that is none: one line, with the key."""

from __future__ import annotations

import sys  # noqa: F401 (named by a type below)
from typing import Any

import pytest

from s2f_rl.errors import UserError
from s2f_rl.rewards import Reward
from s2f_rl.rewards.registry import build_part, part_maker
from s2f_rl.runs import load_recipe


def greedy(corpus: object, device: object, **options: object) -> None:
    """Takes any option."""


def alone() -> None:
    """Takes nothing."""


class OddHints(Reward):
    """Its types mean something to a type checker only."""

    score_names = ("a",)

    def __init__(self, corpus: object, device: object, x: int = 1, y: int = 2) -> None: ...


class WithoutInit(Reward):
    """Derives from what has no constructor."""

    score_names = ("a",)


OddHints.__init__.__annotations__.update(x="sys.nothing", y="not a type(")


class Nameless(Reward):
    """Does not say what its scores are called."""

    def __init__(self, corpus: object, device: object) -> None: ...


VALUE = 3


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        ("builtins:dict", {}, "is no reward"),
        ("builtins:int", {}, "is no reward"),
        (f"{__name__}:VALUE", {}, "is no reward"),
        ("json:dumps", {}, r"cannot be made from corpus, device and its options \(too many positional"),
        (f"{__name__}:alone", {}, "cannot be made from corpus, device and its options"),
        (f"{__name__}:WithoutInit", {}, "cannot be made; give it an __init__"),
        (f"{__name__}:greedy", {"corpus": "x"}, "cannot be made from .*multiple values for argument 'corpus'"),
        (f"{__name__}:greedy", {"device": "x"}, "cannot be made from .*multiple values for argument 'device'"),
    ],
)
def test_refused(kind: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=rf"^reward\.parts\.a\.kind={kind}: {told}"):
        part_maker(kind, options, "reward.parts.a")


def test_made_without_names_of_scores() -> None:
    corpus: Any = None
    with pytest.raises(UserError, match=r"^reward\.parts\.kind=.*:Nameless: names no scores; give it score_names"):
        build_part(f"{__name__}:Nameless", {}, corpus)


def test_what_can_be_made() -> None:
    assert part_maker(f"{__name__}:greedy", {"x": 1}, "reward.parts.a") is greedy


def test_configs() -> None:
    """Types that cannot be looked up are not checked; no weight is a weight of 1; all parts may be given at once."""
    given = ["corpus.root=corpus", "start=start", "reward.folder=null"]
    rloo = load_recipe("rloo")
    part = f"{{kind: '{__name__}:OddHints', x: 3}}"
    assert rloo.compose([*given, f"reward.parts.a={part}"]).reward.parts.a.x == 3
    assert rloo.compose([*given, "reward.parts={a: {kind: closure, weight: null}}"]).reward.parts.a.weight is None
    with pytest.raises(UserError, match=r"reward\.weights: all are 0"):
        rloo.compose([*given, "reward.parts={a: {kind: closure, weight: 0}}"])
    for wrong, told in {
        "{a: 3}": r"reward\.parts\.a=3: expected a group of keys",
        "{1: {kind: closure}}": r"reward\.parts\.1=1: expected a text",
        "{a: {kind: null}}": r"reward\.parts\.a\.kind=null: expected a text",
    }.items():
        with pytest.raises(UserError, match=told):
            rloo.compose([*given, f"reward.parts={wrong}"])
