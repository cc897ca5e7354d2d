"""Recipes are scripts: import them from their files, as the demo does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from s2f_rl.runs import MetricsRows, load_recipe
from s2f_rl.runs.recipes import recipes_folder

RECIPES = recipes_folder()

__all__ = ["RECIPES", "dies_at", "load_recipe"]


class Killed(BaseException):
    """As a kill is, no exception that a recipe could handle."""


@contextmanager
def dies_at(iteration: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What runs within is killed when it has written the row of an iteration."""
    append = MetricsRows.append

    def dies(self, values, reached, *args, **kwargs):
        row = append(self, values, reached, *args, **kwargs)
        if reached == iteration:
            raise Killed
        return row

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(MetricsRows, "append", dies)
        yield
