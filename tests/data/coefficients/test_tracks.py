"""Coefficients as others write them: what is read, what is mended and told, what is refused in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from s2f_rl.data.coefficients.arkit import ARKIT
from s2f_rl.data.coefficients.livelink import write_live_link
from s2f_rl.data.coefficients.tracks import read_track
from s2f_rl.errors import UserError

RNG = np.random.default_rng(0)
VALUES = RNG.random((70, 52)).astype(np.float32)


def live_link(path, values=VALUES, fps=60, drop=(), **changes):
    write_live_link(path, ARKIT, values, fps)
    lines = path.read_text().splitlines()
    lines = [line for t, line in enumerate(lines) if t - 1 not in drop]
    for row, line in changes.items():
        lines[int(row[3:]) - 1] = line(lines[int(row[3:]) - 1])
    path.write_text("\n".join(lines) + "\n")
    return path


class TestLiveLink:
    def test_what_is_written_comes_back(self, tmp_path):
        track = read_track(live_link(tmp_path / "take.csv"))
        assert sorted(track.names) == list(ARKIT) and track.fps == 60 and track.convention == "arkit"
        columns = [track.names.index(name) for name in ARKIT]
        np.testing.assert_allclose(track.values[:, columns], VALUES, rtol=0, atol=1e-6)
        assert track.notes == ()

    def test_its_columns_are_the_apps(self, tmp_path):
        header, first = live_link(tmp_path / "take.csv").read_text().splitlines()[:2]
        titles = header.split(",")
        assert len(titles) == 63 and titles[:4] == ["Timecode", "BlendShapeCount", "EyeBlinkLeft", "EyeLookDownLeft"]
        assert titles[53:56] == ["TongueOut", "HeadYaw", "HeadPitch"] and titles[-1] == "RightEyeRoll"
        assert first.startswith("00:00:00:00.000,61,")
        jaw = float(first.split(",")[titles.index("JawOpen")])
        assert jaw == pytest.approx(VALUES[0, ARKIT.index("jawOpen")], abs=1e-5)

    @pytest.mark.parametrize("fps", [10, 12, 15, 20, 24, 25, 30, 48, 50, 90, 100, 120])
    def test_at_any_usual_rate(self, tmp_path, fps):
        values = np.tile(VALUES[:, :1], (2, 1))
        write_live_link(tmp_path / "take.csv", ["jaw_open"], values, fps)
        track = read_track(tmp_path / "take.csv")
        assert track.fps == fps and track.notes == ()
        np.testing.assert_allclose(track.values[:, [track.names.index("jawOpen")]], values, rtol=0, atol=1e-5)

    def test_missing_frames_are_interpolated_and_told(self, tmp_path):
        track = read_track(live_link(tmp_path / "take.csv", drop=(10, 11)))
        assert len(track.values) == 70 and track.notes == ("2 of 70 frames are missing and interpolated",)
        columns = [track.names.index(name) for name in ARKIT]
        expected = VALUES[9] + (VALUES[12] - VALUES[9]) / 3
        np.testing.assert_allclose(track.values[10, columns], expected, rtol=0, atol=1e-5)

    def test_a_clock_of_half_the_rate(self, tmp_path):
        """Rows at 60 per second whose timecode counts 30 frames, in halves."""
        path = live_link(tmp_path / "take.csv")
        lines = path.read_text().splitlines()
        for t in range(70):
            whole, half = divmod(t, 2)
            code = f"00:00:{whole // 30:02d}:{whole % 30:02d}.{500 * half:03d}"
            lines[t + 1] = ",".join([code, *lines[t + 1].split(",")[1:]])
        path.write_text("\n".join(lines))
        track = read_track(path)
        assert track.fps == 60 and track.notes == ()
        columns = [track.names.index(name) for name in ARKIT]
        np.testing.assert_allclose(track.values[:, columns], VALUES, rtol=0, atol=1e-5)

    def test_over_midnight(self, tmp_path):
        def late(line):
            return line.replace("00:00:00:", "23:59:59:", 1)

        path = live_link(tmp_path / "take.csv")
        lines = path.read_text().splitlines()
        moved = [line.replace("00:00:01:", "00:00:00:", 1) for line in lines[61:]]
        path.write_text("\n".join([lines[0], *map(late, lines[1:61]), *moved]))
        assert len(read_track(path).values) == 70

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"row5": lambda line: line.replace(":03.000", "x")}, "row 5: '00:00:00x' is no timecode"),
            ({"row5": lambda line: line.rpartition(",")[0]}, "row 5 has 62 columns, the first 63"),
            ({"row5": lambda line: line.replace(line.split(",")[7], "??")}, "row 5, column 8: '\\?\\?' is no number"),
            ({"row5": lambda line: line.replace(":03.000", ":01.000")}, "row 5: its timecode lies before"),
            ({"row70": lambda line: line.replace("00:00:01", "09:00:01")}, "row 71: its timecode lies before"),
            ({"row71": lambda line: line.replace("00:00:01", "09:00:01")}, "span 9.0 hours"),
        ],
    )
    def test_a_row_that_is_wrong(self, tmp_path, changes, told):
        with pytest.raises(UserError, match=f"take.csv: .*{told}"):
            read_track(live_link(tmp_path / "take.csv", **changes))


class TestTables:
    def write(self, path, text):
        path.write_text(text)
        return path

    def test_named_columns_and_times(self, tmp_path):
        path = self.write(tmp_path / "a.csv", "time_s,JawOpen,own\n0,0.1,1\n0.04,0.2,2\n0.08,0.3,3\n")
        track = read_track(path)
        assert track.names == ("jawOpen", "own") and track.fps == 25 and track.convention == "own"
        np.testing.assert_allclose(track.values, [[0.1, 1], [0.2, 2], [0.3, 3]], rtol=1e-6)

    def test_times_that_are_no_seconds(self, tmp_path):
        (tmp_path / "take.csv").write_text("time,a\n0,.1\n33.3,.2\n66.7,.3\n")
        with pytest.raises(UserError, match=r"take.csv: by its times it has 0.03 frames per second; give them in sec"):
            read_track(tmp_path / "take.csv")

    def test_arkits_names_in_another_spelling(self, tmp_path):
        (tmp_path / "take.csv").write_text("eye_blink_L,jaw_open,HeadYaw\n0,.1,0\n1,.2,0\n")
        track = read_track(tmp_path / "take.csv")
        assert track.names == ("eyeBlinkLeft", "jawOpen") and track.convention == "arkit"

    def test_without_names_or_times(self, tmp_path):
        path = self.write(tmp_path / "a.csv", "0.1,0.2\n0.3,0.4\n")
        track = read_track(path, ["a", "b"])
        assert track.names == ("a", "b") and track.fps is None and len(track.values) == 2
        with pytest.raises(UserError, match="has 2 columns without names"):
            read_track(path)
        with pytest.raises(UserError, match="has 2 columns, but 3 names"):
            read_track(path, ["a", "b", "c"])

    @pytest.mark.parametrize("text", ["", "a,b\n", "a,b\n1,2\n1\n", "a,b\n1,nan\n", "a,a\n1,2\n"])
    def test_what_is_no_table(self, tmp_path, text):
        with pytest.raises(UserError, match="a.csv: "):
            read_track(self.write(tmp_path / "a.csv", text))


class TestNpy:
    @pytest.mark.parametrize("k", [51, 52])
    def test_arkits_order_is_assumed_and_told(self, tmp_path, k):
        np.save(tmp_path / "a.npy", VALUES[:, :k])
        track = read_track(tmp_path / "a.npy")
        assert track.names == ARKIT[:k] and "are taken for ARKit's" in track.notes[0]
        np.testing.assert_array_equal(track.values, VALUES[:, :k])

    @pytest.mark.parametrize("values", [VALUES[:, :9], VALUES[0], VALUES[:0], np.full((3, 52), np.nan)])
    def test_what_is_refused(self, tmp_path, values):
        np.save(tmp_path / "a.npy", values)
        with pytest.raises(UserError, match="a.npy: "):
            read_track(tmp_path / "a.npy")


class TestBeat:
    def write(self, path, **changes):
        frames = [{"weights": [0.1 * t, 0.5], "time": t / 60, "rotation": []} for t in range(5)]
        path.write_text(json.dumps({"names": ["jawOpen", "mouthClose"], "frames": frames} | changes))
        return path

    def test_names_weights_and_times(self, tmp_path):
        track = read_track(self.write(tmp_path / "a.json"))
        assert track.names == ("jawOpen", "mouthClose") and track.fps == 60
        np.testing.assert_allclose(track.values[:, 0], 0.1 * np.arange(5), rtol=0, atol=1e-6)

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"frames": []}, "is not of the form"),
            ({"names": [1, 2]}, "is not of the form"),
            ({"frames": [{"weights": [1.0, 2.0], "time": 0}, {"weights": [1.0], "time": 1}]}, "frame 1 has no 2"),
            ({"frames": [{"weights": [1.0, "x"], "time": 0}]}, "frame 0 has no 2 weights"),
            ({"frames": [{"weights": [1.0, 2.0], "time": 0}, {"weights": [1.0, 2.0]}]}, "frame 1 has no time"),
            ({"frames": [{"weights": [1.0, 2.0], "time": t} for t in (0, 1, 0.5)]}, "the time of frame 2"),
        ],
    )
    def test_what_is_refused(self, tmp_path, changes, told):
        with pytest.raises(UserError, match=f"a.json: .*{told}"):
            read_track(self.write(tmp_path / "a.json", **changes))


class TestFlame:
    @pytest.mark.parametrize(
        "arrays",
        [
            {"expr": VALUES[:, :5], "jaw_pose": VALUES[:, 5:8]},
            {"expression": VALUES[:, None, :5], "pose": np.concatenate([VALUES[:, 9:12], VALUES[:, 5:8]], 1)},
        ],
    )
    def test_expression_and_jaw(self, tmp_path, arrays):
        np.savez(tmp_path / "a.npz", fps=25.0, **arrays)
        track = read_track(tmp_path / "a.npz")
        assert track.names == ("expr000", "expr001", "expr002", "expr003", "expr004", "jawX", "jawY", "jawZ")
        assert track.fps == 25 and track.convention == "flame"
        np.testing.assert_array_equal(track.values, VALUES[:, :8])

    @pytest.mark.parametrize(
        ("arrays", "told"),
        [
            ({"verts": VALUES}, "holds verts; FLAME's expr"),
            ({"expr": VALUES[:, :5], "jaw_pose": VALUES[:9, :3]}, "expression and jaw have the shapes"),
            ({"expr": VALUES[:, :5], "jaw_pose": VALUES[:, :6]}, "expression and jaw have the shapes"),
            ({"expr": VALUES[:, :5], "fps": 0.0}, "frames per second are 0"),
        ],
    )
    def test_what_is_refused(self, tmp_path, arrays, told):
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(UserError, match=f"a.npz: .*{told}"):
            read_track(tmp_path / "a.npz")


def test_other_files(tmp_path):
    with pytest.raises(UserError, match="is no file of coefficients"):
        read_track(tmp_path / "a.txt")
