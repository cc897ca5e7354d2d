"""Which utterance belongs to which split, and whose style is which column.

FaceFormer's splits (Fan et al., CVPR 2022) are the default. The order of the training subjects fixes the style columns
of the published checkpoints: it is never sorted and never shortened, whatever a folder holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from s2f_rl.errors import UserError

_VOCASET_TRAIN = tuple(
    f"FaceTalk_{person}_TA"
    for person in (
        "170728_03272",
        "170904_00128",
        "170725_00137",
        "170915_00223",
        "170811_03274",
        "170913_03279",
        "170904_03276",
        "170912_03278",
    )
)
_VOCASET_VALIDATION = ("FaceTalk_170811_03275_TA", "FaceTalk_170908_03277_TA")
_VOCASET_TEST = ("FaceTalk_170809_00138_TA", "FaceTalk_170731_00024_TA")
_BIWI_TRAIN = ("F2", "F3", "F4", "M3", "M4", "M5")
_BIWI_TEST = ("F1", "F5", "F6", "F7", "F8", "M1", "M2", "M6")


@dataclass(frozen=True)
class Split:
    """The utterances of some subjects whose sentence number lies in a range, both ends included."""

    subjects: tuple[str, ...]
    first_sentence: int
    last_sentence: int

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        subject, sentence = parse_name(name)
        return (
            subject in self.subjects and sentence is not None and self.first_sentence <= sentence <= self.last_sentence
        )


DEFAULT_SPLITS: dict[str, dict[str, Split]] = {
    "vocaset": {
        "train": Split(_VOCASET_TRAIN, 1, 40),
        "validation": Split(_VOCASET_VALIDATION, 21, 40),
        "test": Split(_VOCASET_TEST, 21, 40),
    },
    "biwi": {
        "train": Split(_BIWI_TRAIN, 1, 32),
        "validation": Split(_BIWI_TRAIN, 33, 36),
        "test": Split(_BIWI_TEST, 37, 40),
        "test_seen": Split(_BIWI_TRAIN, 37, 40),
    },
}
"""FaceFormer's splits by topology. BIWI's "test" is its Test-B (unseen subjects), "test_seen" its Test-A."""

ALL = "all"
"""The name of the split that holds every utterance."""


def parse_name(name: str) -> tuple[str, int | None]:
    """Split an utterance's name into subject and sentence number.

    ``SUBJECT_sentenceNN`` (VOCASET, synthetic), ``F2_e07`` and ``F2_07`` (BIWI; "e" marks the emotional recording): the
    subject is all before the last underscore, the number the digits at the end. None where there is no number.
    """
    subject, _, tail = name.rpartition("_")
    digits = re.search(r"[0-9]+$", tail)
    return subject, int(digits.group()[-9:]) if digits else None


def select(names: Iterable[str], split: str, splits: Mapping[str, Split], topology: str, where: str) -> list[str]:
    """The names of one split, sorted.

    A BIWI folder may hold each sentence twice, spoken neutrally (``F2_07``) and with emotion (``F2_e07``). FaceFormer
    uses the emotional ones only, so where there are any the splits leave out the others; "all" has both.

    Args:
        names: all utterances of the corpus.
        split: a key of ``splits``, or "all".
        splits: the corpus's splits.
        topology: "vocaset" or "biwi".
        where: what to call the corpus in an error.

    Raises:
        UserError: the split is unknown; the message lists the known ones.
    """
    known = [*splits, ALL]
    if split not in known:
        raise UserError(f"split={split!r}: no such split in {where}; known are {', '.join(known)}")
    names = sorted(names)
    if split == ALL:
        return names
    if topology == "biwi" and any(_is_emotional(name) for name in names):
        names = [name for name in names if _is_emotional(name)]
    chosen = splits[split]
    return [name for name in names if name in chosen]


def subjects_of(splits: Mapping[str, Split], training_subjects: Sequence[str]) -> set[str]:
    """Every subject that a split or a style column names."""
    return {subject for split in splits.values() for subject in split.subjects} | set(training_subjects)


def _is_emotional(name: str) -> bool:
    return re.fullmatch(r"e[0-9]+", name.rpartition("_")[2]) is not None
