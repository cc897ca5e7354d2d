from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from s2f_rl.data.coefficients.arkit import ARKIT, arkit_name
from s2f_rl.data.coefficients.livelink import write_live_link
from s2f_rl.data.coefficients.tracks import read_track
from s2f_rl.errors import UserError
from s2f_rl.exchange.names import read_names, renamed, write_names
from s2f_rl.exchange.weights import write_csv, write_json
from tests.data.coefficients.rigs import make_rig, make_weights

WEIGHTS = make_weights(65, 3).astype(np.float32)
NAMES = ("jawOpen", "mouth_smile_L", "EyeBlinkRight")


def rows_of(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


class TestLiveLink:
    def test_columns_timecodes_and_weights(self, tmp_path: Path) -> None:
        write_live_link(tmp_path / "take.csv", NAMES, WEIGHTS * 1.5 - 0.2, 30.0)
        head, *rows = rows_of(tmp_path / "take.csv")
        assert head[:2] == ["Timecode", "BlendShapeCount"] and len(rows) == 65
        assert {name[0].lower() + name[1:] for name in head[2:54]} == set(ARKIT) and len(head) == 63
        assert head[54] == "HeadYaw" and head[-1] == "RightEyeRoll"
        assert [rows[t][0] for t in (0, 29, 30, 64)] == [
            "00:00:00:00.000", "00:00:00:29.000", "00:00:01:00.000", "00:00:02:04.000"
        ]  # fmt: skip
        assert {row[1] for row in rows} == {"61"}
        values = np.array([row[2:] for row in rows], float)
        columns = [head.index(name) - 2 for name in ("JawOpen", "MouthSmileLeft", "EyeBlinkRight")]
        np.testing.assert_allclose(values[:, columns], (WEIGHTS * 1.5 - 0.2).clip(0, 1), atol=6e-7)
        assert not np.delete(values, columns, axis=1).any()
        track = read_track(tmp_path / "take.csv")
        assert track.fps == 30 and track.names[0][0].islower()
        np.testing.assert_allclose(track.values, values[:, :52], atol=1e-5)

    def test_an_hour(self, tmp_path: Path) -> None:
        write_live_link(tmp_path / "take.csv", ("jawOpen",), np.zeros((25 * 3661 + 3, 1)), 25.0)
        assert rows_of(tmp_path / "take.csv")[-1][0] == "01:01:01:02.000"

    def test_names_in_any_spelling(self) -> None:
        for name in ("eyeBlinkLeft", "EyeBlinkLeft", "eye_blink_left", "eyeBlink_L", "EyeBlink.L", "Eye Blink l"):
            assert arkit_name(name) == "eyeBlinkLeft"
        assert arkit_name("mouthRollR") is None and arkit_name("smile") is None
        assert arkit_name("mouth_roll_lower") == "mouthRollLower"

    def test_names_that_are_not_arkits(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="has no shape AH, OO; map the names with a table"):
            write_live_link(tmp_path / "take.csv", ("jawOpen", "AH", "OO"), WEIGHTS, 30.0)
        with pytest.raises(UserError, match="two shapes have the same name"):
            write_live_link(tmp_path / "take.csv", ("jawOpen", "JawOpen", "cheekPuff"), WEIGHTS, 30.0)
        assert list(tmp_path.iterdir()) == []


def test_csv_and_json(tmp_path: Path) -> None:
    write_csv(tmp_path / "take.csv", NAMES, WEIGHTS, 25.0)
    head, *rows = rows_of(tmp_path / "take.csv")
    assert head == ["time_s", *NAMES]
    read = np.array(rows, float)
    np.testing.assert_allclose(read[:, 0], np.arange(65) / 25)
    np.testing.assert_allclose(read[:, 1:], WEIGHTS, atol=6e-7)
    write_json(tmp_path / "take.json", NAMES, WEIGHTS, 25.0)
    content = json.loads((tmp_path / "take.json").read_text())
    assert content["names"] == list(NAMES) and content["fps"] == 25
    np.testing.assert_allclose([frame["weights"] for frame in content["frames"]], WEIGHTS, atol=6e-7)
    np.testing.assert_allclose([frame["time"] for frame in content["frames"]], np.arange(65) / 25)
    for name in ("take.csv", "take.json"):  # our own readers take both
        track = read_track(tmp_path / name)
        assert list(track.names) == [arkit_name(name) for name in NAMES] and track.fps == 25
        np.testing.assert_allclose(track.values, WEIGHTS, atol=1e-5)


class TestNames:
    def test_a_template_is_written_edited_and_read(self, tmp_path: Path) -> None:
        path = tmp_path / "names.csv"
        write_names(path, ("Jaw_Open", 'brow "up"', "wink"))
        assert rows_of(path)[1:] == [["Jaw_Open", "jawOpen"], ['brow "up"', 'brow "up"'], ["wink", "wink"]]
        rig = make_rig(30, 4)
        path.write_text("inside,outside\nshape2, jawOpen\n\nshape0,\n")
        table = renamed(rig, read_names(path, rig.names))
        assert table.names == ("shape1", "jawOpen", "shape3")
        assert (table.shapes == rig.shapes[1:]).all() and table.bounds.shape == (3, 2)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a,b\nshape9,jawOpen\n", "row 2: the basis has no shape 'shape9'; it has shape0, shape1"),
            ("a,b\nshape1,x\nshape1,y\n", "row 3: 'shape1' is named twice"),
            ("a,b\nshape1\n", "row 2 has 1 columns"),
            ("a,b\nshape1,shape0\n", "names 'shape0' twice"),
            ("a,b\nshape0,\nshape1,\nshape2,\nshape3,\n", "leaves every shape out"),
        ],
    )
    def test_mistakes(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "names.csv").write_text(text)
        with pytest.raises(UserError, match=message) as caught:
            read_names(tmp_path / "names.csv", make_rig(30, 4).names)
        assert "names.csv" in str(caught.value)
