"""Names of kinds (of actors, of rewards) and where their classes live; nothing is imported before it is asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoints, entry_points
from typing import Generic, TypeVar

from s2f_rl.errors import UserError

T = TypeVar("T")


class Registry(Generic[T]):
    """Kinds by name: our own, those of installed packages, those that were registered, and import paths.

    A name is looked up in this order: registered here (:meth:`register`), one of ours, an entry point of an installed
    package in the group ``s2f_rl.<what>`` (``actors``, ``rewards``). A *person* may name ``package.module:Name``, which
    imports that module (also from the current folder); a *file* may not, since reading a file must never run code.

    Args:
        what: plural, for messages and the group of the entry points, e.g. ``"actors"``.
        homes: name -> ``"package.module:Name"``.

    Example:
        >>> ACTORS = Registry("actors", {"faceformer": "s2f_rl.models.faceformer:FaceFormer"})
        >>> ACTORS.named_by_person("my_package.actor:MyActor")            # doctest: +SKIP
    """

    def __init__(self, what: str, homes: Mapping[str, str]) -> None:
        self.what = what
        self._homes = dict(homes)
        self._added: dict[str, T] = {}

    def register(self, name: str, kind: T) -> T:
        """Add a kind for this process. Returns it. Raises UserError where another has the name."""
        if self._added.get(name, kind) is not kind or name in self._homes:
            raise UserError(f"{name}: there is one of the {self.what} of this name; choose another")
        self._added[name] = kind
        return kind

    def names(self) -> list[str]:
        """What can be asked for by name, sorted."""
        return sorted({*self._homes, *self._added, *(point.name for point in self._points())})

    def named_by_file(self, name: object, where: str) -> T:
        """The kind that a file names; ``where``: the file, for the message. Raises UserError where it is not known."""
        try:
            found = self._find(name) if isinstance(name, str) else None
        except UserError as error:
            raise UserError(f"{where}: its kind is {error}") from error
        if found is None:
            raise UserError(
                f"{where}: its kind is {str(name)[:80]!r}, which none of the known {self.what} has "
                f"({', '.join(self.names())}); install the package that brings it, or name its class yourself, as "
                "package.module:Name"
            )
        return found

    def named_by_person(self, name: str) -> T:
        """The kind that a person names in a config or a call, import paths included. Raises UserError."""
        found = self._find(name)
        if found is not None:
            return found
        if ":" not in name:
            raise UserError(
                f"{name}: not one of the {self.what} ({', '.join(self.names())}); name your own as package.module:Name"
            )
        if os.getcwd() not in sys.path:  # a script's own folder is there, the one that a person stands in is not
            sys.path.append(os.getcwd())
        return self._imported(name)

    def _find(self, name: str) -> T | None:
        if name in self._added:
            return self._added[name]
        if name in self._homes:
            return self._imported(self._homes[name])
        point = next((point for point in self._points() if point.name == name), None)
        try:
            return None if point is None else point.load()
        except (Exception, SystemExit) as error:
            raise UserError(
                f"{name}: cannot be imported from the package that brings it ({_reason(error)}); mend or uninstall that"
            ) from error

    def _points(self) -> EntryPoints:
        return entry_points(group=f"s2f_rl.{self.what}")

    def _imported(self, path: str) -> T:
        module, _, name = path.partition(":")
        try:
            return getattr(import_module(module), name)
        except (Exception, SystemExit) as error:  # its code may raise anything, or be a script that leaves
            raise UserError(
                f"{path}: cannot be imported ({_reason(error)}); it must be package.module:Name of a module that "
                "imports without an error"
            ) from error


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, (ImportError, AttributeError)) else f"{type(error).__name__}: {error}"
