"""Values as Hydra overrides: what a recipe that runs other recipes hands on."""

from __future__ import annotations

import re
from collections.abc import Mapping


def flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """A nested mapping with dotted keys, in order.

    Example:
        >>> flat({"iterations": 60, "evaluation": {"every": 20}})
        {'iterations': 60, 'evaluation.every': 20}
    """
    found: dict[str, object] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def as_overrides(*layers: Mapping[str, object]) -> list[str]:
    """Nested mappings as Hydra overrides; of the same key the last layer's value holds.

    Example:
        >>> as_overrides({"iterations": 60, "evaluation": {"every": 20}}, {"iterations": 6, "name": "a b"})
        ['iterations=6', 'evaluation.every=20', "name='a b'"]
    """
    merged: dict[str, object] = {}
    for layer in layers:
        merged |= flat(layer)
    return [f"{key}={literal(value)}" for key, value in merged.items()]


def literal(value: object) -> str:
    """A value in Hydra's override grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, (list, tuple)):
        return f"[{','.join(literal(item) for item in value)}]"
    text = str(value)
    if re.fullmatch(r"[A-Za-z0-9_./@+-]+", text):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
