"""Typed schemas of configs: what every key may be, in one place, checked before anything is opened.

A schema is a dataclass (those of the recipes: :mod:`s2f_rl.schemas`): the type of a field says what the value may be,
:func:`key` what it means, and a method ``rules`` what must hold between values. With ``more: ClassVar = True`` a group
may hold further keys, for a class of the user's own to judge.

Example:
    >>> @dataclass
    ... class Optimizer:
    ...     lr: Positive = key("rate of Adam")
    ...     final_lr: Positive = key("rate of the last iteration")
    ...
    ...     def rules(self) -> None:
    ...         if self.final_lr > self.lr:
    ...             raise UserError("optimizer.final_lr: at most optimizer.lr")
    >>> read(Optimizer, {"lr": 0.1, "final_lr": 0.01}).lr
    0.1
    >>> read(Optimizer, {"lr": -1, "final_lr": 0.01})
    Traceback (most recent call last):
    s2f_rl.errors.UserError: lr=-1: above 0
"""

from __future__ import annotations

import difflib
import functools
import math
import types
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, NoReturn, Union, get_args, get_origin, get_type_hints

from s2f_rl.errors import UserError
from s2f_rl.runs.folder import name_problem

MANY = 10**9  # no count of anything here comes near it
_UNIONS = (Union, types.UnionType)
_KINDS: dict[Any, tuple[Any, str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "a text"),
    list: ((list,), "a list, for example [a,b]"),
    dict: ((Mapping,), "a group of keys; set one of its keys"),
    type(None): ((type(None),), "null"),
}


def key(meaning: str, **more: Any) -> Any:
    """A field of a schema: what the key means. ``default``: for one that may be left out."""
    return field(kw_only=True, metadata={"meaning": meaning}, **more)


@dataclass(frozen=True)
class Range:
    """Rule for finite numbers: from ``least`` or ``above`` to ``most`` or ``below``.

    ``infinite`` lets +inf through. ``note``: what to say as well; ``words``: what to say instead.
    """

    least: float | None = None
    most: float = MANY
    above: float | None = None
    below: float | None = None
    note: str = ""
    words: str = ""
    infinite: bool = False

    def __call__(self, value: float) -> str | None:
        if isinstance(value, float) and not math.isfinite(value):
            return None if self.infinite and value == math.inf else "expected a finite number"
        low = self.least is None or value >= self.least
        high = value <= self.most if self.below is None else value < self.below
        if low and high and (self.above is None or value > self.above):
            return None
        if self.words:
            return self.words
        words = [] if self.least is None else [f"at least {self.least}"]
        words += [] if self.above is None else [f"above {self.above}"]
        words += [] if self.below is None else [f"below {self.below}"]
        words += [f"at most {self.most}"] if self.below is None and (self.most != MANY or not high) else []
        return " and ".join(words) + (f"; {self.note}" if self.note else "")


class Choice:
    """Rule for texts: one of ``names``; ``note``: what to say as well."""

    def __init__(self, *names: str, note: str = "") -> None:
        self.names, self.note = names, note

    def __call__(self, value: str) -> str | None:
        return None if value in self.names else f"use {self.listed}{self.note}"

    @property
    def listed(self) -> str:
        """The names in words."""
        return (" or " if len(self.names) < 4 else ", ").join(self.names)


@dataclass(frozen=True)
class PartOf:
    """Rule for a group that holds any of another schema's keys: the settings of a stage that a recipe runs."""

    schema: type


def _text_problem(value: str) -> str | None:
    if not value.strip():
        return "empty; give a name or a path"
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in value):
        return "holds a line break or a control character; give a name or a path without"
    if len(value.encode()) > 4000 or any(len(part.encode()) > 255 for part in PurePosixPath(value).parts):
        return "too long for a name or a path"
    return None


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
Size = Annotated[int, Range(1, 2**16)]  # of a layer or a batch: what memory could hold
Seed = Annotated[int, Range(0, 2**32 - 1)]  # what numpy, torch and Python all take
Positive = Annotated[float, Range(above=0)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
BelowOne = Annotated[float, Range(0, below=1)]
Text = Annotated[str, _text_problem]  # a name or a path
RunName = Annotated[str, name_problem]


@functools.cache
def keys_of(schema: type) -> dict[str, Any]:
    """The keys of a schema and their types, in order."""
    hints = get_type_hints(schema, include_extras=True)
    return {each.name: hints[each.name] for each in fields(schema)}


def like(default: object) -> Any:
    """What stands for a schema where there is none: the types of the defaults; null replaces anything."""
    if isinstance(default, Mapping):
        return {str(name): like(value) for name, value in default.items()}
    kinds: dict[type, Any] = {bool: bool, int: int, float: float, str: str | list[Any], list: list[Any]}
    return kinds[type(default)] | None if type(default) in kinds else Any


def hint_at(schema: object, dotted: str) -> Any:
    """The type of a key such as ``optimizer.lr``; None where the schema has no such key."""
    for name in dotted.split("."):
        found = None
        for option in (schema, *get_args(schema)):
            option = option.schema if isinstance(option, PartOf) else option
            if _is_group(option):
                found = (keys_of(option) if isinstance(option, type) else option).get(name, found)
            elif get_origin(option) is dict:
                found = get_args(option)[1]
        schema = found
    return schema


def accepts(hint: object, kind: type) -> bool:
    """Whether a type, or one of the types that it is made of, is ``kind``."""
    return kind in (hint, get_origin(hint)) or any(
        accepts(part, kind) for part in get_args(hint) if get_origin(hint) is not list
    )


def read(schema: object, config: object, typed: Mapping[str, str] | None = None, place: str = "") -> Any:
    """The config as an instance of its schema.

    Args:
        schema: a dataclass, or what :func:`like` returns; of a single value its type.
        config: plain values, every interpolation resolved.
        typed: dotted key -> the value as the user wrote it, to be quoted.
        place: dotted key under which the config stands in a larger one.

    Raises:
        UserError: one line for the first key that is unknown, missing, of another type or out of range, or for values
            that contradict each other.
    """
    return _Reader(typed or {}).read(schema, config, place)


class _Reader:
    def __init__(self, typed: Mapping[str, str]) -> None:
        self.typed = typed

    def group(self, schema: Any, value: Mapping[str, object], place: str, partial: bool = False) -> Any:
        prefix = f"{place}." if place else ""
        known = schema if isinstance(schema, dict) else keys_of(schema)
        for name in value:
            if name not in known and not isinstance(schema, dict) and not getattr(schema, "more", False):
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f"did you mean {prefix}{near[0]}? " if near else ""
                raise UserError(f"unknown key '{prefix}{name}'; {hint}--cfg job lists all keys")
        optional = set() if isinstance(schema, dict) else {f.name for f in fields(schema) if f.default is None}
        found = {}
        for name, hint in known.items():
            if name in value:
                # a stage's group may be chosen by its name: critic=decoder
                chosen = partial and isinstance(value[name], str) and _is_group(_options(hint)[0])
                found[name] = None if chosen else self.read(hint, value[name], f"{prefix}{name}", partial)
            elif name not in optional and not partial and not isinstance(schema, dict):
                raise UserError(f"{prefix}{name}: missing; give {prefix}{name}=... and take nothing away with ~")
        if partial or isinstance(schema, dict):
            return found
        made = schema(**found)
        if hasattr(made, "rules"):
            made.rules()
        return made

    def read(self, hint: object, value: Any, place: str, partial: bool = False) -> Any:
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Annotated:
            made = self.read(arguments[0], value, place)
            for rule in arguments[1:]:
                if isinstance(rule, PartOf):
                    self.group(rule.schema, value, place, partial=True)
                elif wrong := rule(value):
                    self.refuse(place, value, wrong)
            return made
        if origin in _UNIONS:
            return self._one_of(_options(hint), value, place, partial, type(None) in arguments)
        if _is_group(hint):
            if not isinstance(value, Mapping):
                self.refuse(place, value, f"expected {_KINDS[dict][1]}")
            return self.group(hint, value, place, partial)
        kinds, words = _KINDS.get(origin or hint, ((object,), ""))
        if not isinstance(value, kinds) or (isinstance(value, bool) and hint in (int, float)):
            self.refuse(place, value, f"expected {words}")
        if origin is list and not value and arguments[0] is not Any:
            raise UserError(f"{place} is empty; give at least one")
        if origin is list:
            return [self.read(arguments[0], each, f"{place}[{k}]") for k, each in enumerate(value)]
        if origin is dict:
            for name in value:
                self.read(arguments[0], name, f"{place}.{name}")
            return {name: self.read(arguments[1], each, f"{place}.{name}") for name, each in value.items()}
        return value

    def _one_of(self, options: list[Any], value: object, place: str, partial: bool, null: bool) -> object:
        if value is None and null:
            return None
        if _is_group(options[0]) and len(options) > 1:  # a choice of groups, by kind
            kind = value.get("kind") if isinstance(value, Mapping) else None
            kinds = {name: option for option in options for name in _kinds(option)}
            own = next((option for option in options if not _kinds(option)), None)  # whose kind is a name of one's own
            if isinstance(value, Mapping) and str(kind) not in kinds and not partial and own is None:
                self.refuse(f"{place}.kind", kind, f"use {' or '.join(kinds)}")
            options = [kinds.get(str(kind), own or options[-1])]
        refusals = []
        for option in options:
            try:
                return self.read(option, value, place, partial)
            except UserError as error:
                refusals.append((accepts(option, type(value)), error))
        if len(refusals) > 1 and (isinstance(value, str) or not any(fits for fits, _ in refusals)):
            verb = "use" if isinstance(value, str) else "expected"
            self.refuse(place, value, f"{verb} {' or '.join(_words(option) for option in options)}")
        raise max(refusals, key=lambda each: each[0])[1]

    def refuse(self, place: str, value: object, words: str) -> NoReturn:
        raise UserError(f"{place}={shown(self.typed.get(place, value))}: {words}")


def shown(value: object) -> str:
    """A value as it is written on the command line, in one line of at most 80 letters."""
    text = {None: "null", True: "true", False: "false"}.get(value, "") if isinstance(value, (bool, type(None))) else ""
    text = text or str(value)
    text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} letters)"


def _is_group(hint: object) -> bool:
    """Whether a type is a schema: a dataclass, or what :func:`like` makes of a mapping."""
    return isinstance(hint, dict) or (isinstance(hint, type) and is_dataclass(hint))


def _options(hint: object) -> list[object]:
    """The types that a union is made of, without null; of another type that type alone."""
    return [each for each in get_args(hint) if each is not type(None)] if get_origin(hint) in _UNIONS else [hint]


def _kinds(schema: type) -> tuple[str, ...]:
    """The kinds that a group is for; none if a rule of its own says."""
    rule = get_args(keys_of(schema)["kind"])[-1]
    return tuple(rule.names) if isinstance(rule, Choice) else ()


def _words(hint: object) -> str:
    """What a type takes, in words."""
    for rule in get_args(hint)[1:] if get_origin(hint) is Annotated else ():
        if isinstance(rule, Choice):
            return rule.listed
    base = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return _KINDS[get_origin(base) or base][1]
