"""FaceFormer's splits, and the order of the style columns."""

from __future__ import annotations

import pytest

from s2f_rl.data.splits import DEFAULT_SPLITS, Split, parse_name, select
from s2f_rl.errors import UserError

VOCASET_TRAINING = """
    FaceTalk_170728_03272_TA FaceTalk_170904_00128_TA FaceTalk_170725_00137_TA FaceTalk_170915_00223_TA
    FaceTalk_170811_03274_TA FaceTalk_170913_03279_TA FaceTalk_170904_03276_TA FaceTalk_170912_03278_TA
""".split()
VOCASET_VALIDATION = ["FaceTalk_170811_03275_TA", "FaceTalk_170908_03277_TA"]
VOCASET_TEST = ["FaceTalk_170809_00138_TA", "FaceTalk_170731_00024_TA"]


def test_names() -> None:
    assert parse_name("FaceTalk_170728_03272_TA_sentence07") == ("FaceTalk_170728_03272_TA", 7)
    assert parse_name("F2_e01") == ("F2", 1)
    assert parse_name("F2_40") == ("F2", 40)
    assert parse_name("S0_sentence123") == ("S0", 123)
    assert parse_name("speech") == ("", None)
    assert parse_name("A_b") == ("A", None)


def test_vocaset() -> None:
    splits = DEFAULT_SPLITS["vocaset"]
    assert list(splits["train"].subjects) == VOCASET_TRAINING
    subjects = VOCASET_TRAINING + VOCASET_VALIDATION + VOCASET_TEST
    names = [f"{subject}_sentence{k:02d}" for subject in subjects for k in range(1, 41)]
    chosen = {split: select(names, split, splits, "vocaset", "x") for split in splits}
    assert {split: len(found) for split, found in chosen.items()} == {"train": 320, "validation": 40, "test": 40}
    assert set(chosen["validation"]) == {f"{s}_sentence{k}" for s in VOCASET_VALIDATION for k in range(21, 41)}
    assert set(chosen["test"]) == {f"{s}_sentence{k}" for s in VOCASET_TEST for k in range(21, 41)}
    assert select(names, "all", splits, "vocaset", "x") == sorted(names)


def test_biwi_takes_the_emotional_recordings_as_faceformer_does() -> None:
    splits = DEFAULT_SPLITS["biwi"]
    subjects = [f"F{k}" for k in range(1, 9)] + [f"M{k}" for k in range(1, 7)]
    emotional = [f"{subject}_e{k:02d}" for subject in subjects for k in range(1, 41)]
    neutral = [name.replace("_e", "_") for name in emotional]
    counts = {"train": 192, "validation": 24, "test": 32, "test_seen": 24}
    for names in (emotional, neutral, emotional + neutral):
        chosen = {split: select(names, split, splits, "biwi", "x") for split in splits}
        assert {split: len(found) for split, found in chosen.items()} == counts
    assert all("_e" in name for split in counts for name in select(emotional + neutral, split, splits, "biwi", "x"))
    assert len(select(emotional + neutral, "all", splits, "biwi", "x")) == 2 * 560
    assert "M3_e37" in select(emotional, "test_seen", splits, "biwi", "x")
    assert "M1_e37" in select(emotional, "test", splits, "biwi", "x")


def test_an_unknown_split_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="split='val'.*train, validation, test, test_seen, all"):
        select([], "val", DEFAULT_SPLITS["biwi"], "biwi", "x")


def test_ranges_include_both_ends() -> None:
    split = Split(("A",), 2, 3)
    assert [f"A_s{k}" in split for k in range(1, 5)] == [False, True, True, False]
    assert "B_s2" not in split and "A_s" not in split and 3 not in split
