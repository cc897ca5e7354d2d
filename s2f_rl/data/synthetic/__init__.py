"""The built-in corpus: synthetic speech and a procedural face, so that everything runs with no download.

`synthesize` writes it; `generate`, `load_speakers` and `Hidden` rebuild or vary what it holds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s2f_rl.data.synthetic.coarticulation import generate
    from s2f_rl.data.synthetic.hidden import Hidden
    from s2f_rl.data.synthetic.speakers import Speaker, load_speakers
    from s2f_rl.data.synthetic.write import Take, load_take, synthesize

_HOMES = {
    "synthesize": "write",
    "load_take": "write",
    "Take": "write",
    "generate": "coarticulation",
    "Hidden": "hidden",
    "Speaker": "speakers",
    "load_speakers": "speakers",
}
__all__ = ["Hidden", "Speaker", "Take", "generate", "load_speakers", "load_take", "synthesize"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
