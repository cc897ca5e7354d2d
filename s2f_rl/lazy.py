"""Packages that offer names without loading where they live: a name is imported when it is first asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from s2f_rl.moved import old_name


def lazy_exports(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package whose public names live in its modules.

    The package states the same names in ``__all__`` and, for type checkers, imports them under ``TYPE_CHECKING``; a
    test holds the three together. The modules are attributes too.

    Args:
        package: ``__name__`` of the package.
        homes: public name -> module below the package, e.g. ``{"FaceCorpus": "corpus"}``.

    Example:
        >>> __getattr__, __dir__ = lazy_exports(__name__, {"FaceCorpus": "corpus"})  # doctest: +SKIP
    """

    def get(name: str) -> Any:
        if name in homes:
            return getattr(import_module(f"{package}.{homes[name]}"), name)
        if name in homes.values():
            return import_module(f"{package}.{name}")
        return old_name(package, name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, names
