"""Recipes are scripts: import them from their files, as the demo does."""

from __future__ import annotations

from s2f_rl.runs import load_recipe
from s2f_rl.runs.recipes import recipes_folder

RECIPES = recipes_folder()

__all__ = ["RECIPES", "load_recipe"]
