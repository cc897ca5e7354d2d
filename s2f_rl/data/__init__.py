"""Corpora of speech and moving faces: reading, checking, converting. Importing this loads nothing heavy."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s2f_rl.data.check import Fault, Faults, check_corpus, format_faults
    from s2f_rl.data.corpus import FaceCorpus
    from s2f_rl.data.from_biwi import prepare_biwi
    from s2f_rl.data.from_vocaset import prepare_vocaset
    from s2f_rl.data.mel import mel_clips
    from s2f_rl.data.utterance import Utterance

_HOMES = {
    "FaceCorpus": "corpus",
    "Utterance": "utterance",
    "mel_clips": "mel",
    "prepare_vocaset": "from_vocaset",
    "prepare_biwi": "from_biwi",
    "check_corpus": "check",
    "format_faults": "check",
    "Fault": "check",
    "Faults": "check",
}
__all__ = [
    "FaceCorpus",
    "Fault",
    "Faults",
    "Utterance",
    "check_corpus",
    "format_faults",
    "mel_clips",
    "prepare_biwi",
    "prepare_vocaset",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
