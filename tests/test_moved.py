"""The old names of modules that moved: the same objects, with a warning."""

from __future__ import annotations

import importlib
import sys

import pytest

from s2f_rl.moved import MOVED


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


def test_other_names_stay_unknown() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("s2f_rl.rewards.nothing")
