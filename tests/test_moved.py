"""The old names of modules that moved: the same objects, with a warning."""

from __future__ import annotations

import importlib
import sys

import pytest

from s2f_rl.moved import MOVED, NAMES


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_name_is_the_new_module(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    importlib.import_module("s2f_rl.rewards")
    new = importlib.import_module(MOVED[old])
    spec = new.__spec__
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(FutureWarning, match=f"{old} is now {MOVED[old]}"):
        module = importlib.import_module(old)
    assert module is new and new.__spec__ is spec
    assert MOVED[old] not in MOVED


@pytest.mark.parametrize("module, name", [(module, name) for module in sorted(NAMES) for name in sorted(NAMES[module])])
def test_a_name_that_left_its_module(module: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    importlib.import_module("s2f_rl.rewards")
    monkeypatch.delitem(sys.modules, module if module in MOVED else "", raising=False)
    home, _, now = NAMES[module][name].partition(":")
    with pytest.warns(FutureWarning, match=f"{module}(.{name})? is now "):
        old = getattr(importlib.import_module(module), name)
    assert old is getattr(importlib.import_module(home), now)


def test_other_names_stay_unknown() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("s2f_rl.rewards.nothing")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(importlib.import_module("s2f_rl.rewards.motion"), "nothing")  # noqa: B009 (mypy knows that it fails)
