"""Phone names: what espeak-ng calls them and what the corpus calls them (ARPAbet in lower case, as in TIMIT)."""

from __future__ import annotations

SILENCE = "sil"
BILABIALS = frozenset({"m", "b", "p"})
"""Phones at which the lips must close."""
LABIODENTALS = frozenset({"f", "v"})
UNVOICED_STOPS = frozenset({"p", "t", "k", "ch"})
"""espeak-ng starts these at the burst and leaves the silent closure to the phone before (see `speech.py`)."""

_FROM_ESPEAK = {
    "aa": "0 A: A@ O",
    "ae": "a aa",
    "ah": "V",
    "ao": "O: O2 O@ o@ O2: o:",
    "aw": "aU",
    "ax": "@ @- @2 @5 @# a# 3 @3 ax",
    "ay": "aI aI2 aI3 aI@",
    "eh": "E e@ E2 e",
    "el": "@L",
    "er": "3: VR IR @r ER",
    "ey": "eI e: eI2",
    "ih": "I I# I2 i@ i@3",
    "iy": "i: i",
    "ow": "oU o",
    "oy": "OI",
    "uh": "U U@",
    "uw": "u: u u2",
    "b": "b", "ch": "tS", "d": "d", "dh": "D", "dx": "t# *", "f": "f", "g": "g", "hh": "h h#", "jh": "dZ", "k": "k",
    "l": "l l#", "m": "m", "n": "n n-", "ng": "N", "p": "p", "q": "?", "r": "r r-", "s": "s", "sh": "S", "t": "t t2 t[",
    "th": "T", "v": "v v#", "w": "w w#", "y": "j ;", "z": "z z#", "zh": "Z",
    SILENCE: "_ _: _:: _! _| |",
}  # fmt: skip
_TABLE = {espeak: ours for ours, names in _FROM_ESPEAK.items() for espeak in names.split()}
_STRESS_MARKS = "',%=\""

PHONES = tuple(_FROM_ESPEAK)


def from_espeak(name: str) -> str:
    """Our name of an espeak-ng phoneme mnemonic; stress marks are dropped.

    Raises `ValueError` for a mnemonic that no English voice of the built-in corpus uses.
    """
    bare = name.lstrip(_STRESS_MARKS)
    if bare in _TABLE:
        return _TABLE[bare]
    if bare.rstrip("#23-:") in _TABLE:
        return _TABLE[bare.rstrip("#23-:")]
    raise ValueError(f"unknown espeak-ng phoneme {name!r}")
