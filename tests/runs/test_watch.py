"""Alarm, loggers, progress, device: what watches a run."""

from __future__ import annotations

import io
import logging
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from s2f_rl.errors import UserError
from s2f_rl.runs.alarm import MotionAlarm, MotionStopped
from s2f_rl.runs.device import pick_device
from s2f_rl.runs.loggers import RunLogger, make_logger
from s2f_rl.runs.progress import Progress
from s2f_rl.runs.rows import MetricsRows


class TestMotionAlarm:
    def test_patience_and_recovery(self) -> None:
        alarm = MotionAlarm(amplitude_ratio=(0.5, 2.0), patience=2)
        ratios = [0.4, 0.9, 0.4, 0.4, 0.4, 1.0, 2.5, 2.5]
        assert [len(alarm.check({"amplitude_ratio": ratio})) for ratio in ratios] == [0, 0, 0, 1, 1, 0, 0, 1]

    def test_lines_name_value_and_bound(self) -> None:
        alarm = MotionAlarm(patience=1)
        assert alarm.check({"amplitude_ratio": 0.25, "kl": 3.0, "noise_mm": 5.0, "other": 1e9}) == [
            "amplitude_ratio 0.25 is below 0.5: motion collapses",
            "kl 3 is above 1.0: the policy runs away from its start",
            "noise_mm 5 is above 2.0: exploration drowns the motion",
        ]

    def test_nan_needs_no_patience(self) -> None:
        assert MotionAlarm(patience=5).check({"kl": math.nan}) == ["kl is nan: the update has diverged"]

    def test_logged_once_while_it_lasts(self, caplog: pytest.LogCaptureFixture) -> None:
        alarm = MotionAlarm(patience=1)
        with caplog.at_level(logging.WARNING, logger="s2f_rl"):
            for _ in range(3):
                alarm.check({"kl": 2.0})
        assert len(caplog.records) == 1

    def test_stop(self) -> None:
        alarm = MotionAlarm(patience=2, action="stop")
        alarm.check({"kl": 2.0})
        with pytest.raises(MotionStopped, match="alarm.action=warn"):
            alarm.check({"kl": 2.0})

    def test_state_survives_a_resume(self) -> None:
        alarm = MotionAlarm(patience=2)
        alarm.check({"kl": 2.0})
        fresh = MotionAlarm(patience=2)
        fresh.load_state_dict(alarm.state_dict())
        assert len(fresh.check({"kl": 2.0})) == 1

    def test_none_switches_off_and_settings_are_checked(self) -> None:
        assert MotionAlarm(kl=None, patience=1).check({"kl": 1e9}) == []
        with pytest.raises(UserError, match="warn or stop"):
            MotionAlarm(action="panic")
        with pytest.raises(UserError, match="at least 1"):
            MotionAlarm(patience=0)


def shown(folder: Path) -> dict[str, list[int]]:
    """Steps by tag of every event file, duplicates included."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    found: dict[str, list[int]] = {}
    for path in (folder / "logs" / "tensorboard").glob("events.out.tfevents.*"):
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(event.step)
    return found


def wandb_rows(folder: Path) -> list[tuple[int, float]]:
    """(step, reward) of every row in every offline file, duplicates included."""
    found = []
    for path in sorted((folder / "logs" / "wandb").glob("offline-run-*/*.wandb")):
        for record in finished_records(path):
            if record.WhichOneof("record_type") == "history":
                items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                found.append((int(items["step"]), float(items["reward"])))
    return found


def finished_records(path: Path) -> list[Any]:
    """Records of a file that wandb's own process writes, perhaps for a while after the run has finished."""
    from wandb.proto import wandb_internal_pb2

    until = time.monotonic() + 60
    while True:
        pieces = list(leveldb_records(path.read_bytes()[7:], 7))
        records = [wandb_internal_pb2.Record.FromString(piece) for piece in pieces]
        if time.monotonic() > until or any(each.WhichOneof("record_type") == "exit" for each in records):
            return records
        time.sleep(0.05)


def leveldb_records(content: bytes, at: int) -> Iterator[bytes]:
    """Records of a LevelDB log: blocks of 32 KiB, each piece with checksum (4), length (2) and kind (1 = whole)."""
    begun, here = b"", 0
    while here + 7 <= len(content):
        if 32768 - (here + at) % 32768 < 7:
            here += 32768 - (here + at) % 32768
            continue
        size, kind = int.from_bytes(content[here + 4 : here + 6], "little"), content[here + 6]
        if here + 7 + size > len(content):  # still being written
            return
        begun += content[here + 7 : here + 7 + size]
        here += 7 + size
        if kind in (1, 4):
            yield begun
            begun = b""


class TestLoggers:
    def test_every_row_once_whenever_it_was_killed(self, tmp_path: Path) -> None:
        """Rows of before the logger, of before the kill, and a file that ends in the middle: the record decides."""
        rows = MetricsRows(tmp_path / "metrics.jsonl", seed=3)
        rows.append({"reward": 0.0}, iteration=0)
        logger = rows.feed(make_logger(["csv", "tensorboard", "wandb"], tmp_path, "run"))
        for step in (1, 2, 3):
            values = {"reward": torch.tensor(step / 2), "note": "text", "none": None, "bad": math.nan, "kl": math.inf}
            rows.append(values, iteration=step, frames=10 * step)
        logger.close()
        path = tmp_path / "logs" / "csv" / "scalars" / "reward.csv"
        assert path.read_text() == "0,0.0\n1,0.5\n2,1.0\n3,1.5\n"
        with open(path, "a") as file:
            file.write("4,0.")
        assert shown(tmp_path) == {"reward": [0, 1, 2, 3], "frames": [0, 1, 2, 3]}

        rows = MetricsRows(tmp_path / "metrics.jsonl", seed=3)
        rows.cut_after(2)
        logger = rows.feed(make_logger(["csv", "tensorboard", "wandb"], tmp_path, "run"))
        rows.append({"reward": 9.0}, iteration=3)
        logger.close()
        assert path.read_text() == "0,0.0\n1,0.5\n2,1.0\n3,9.0\n"
        assert sorted(file.name for file in path.parent.iterdir()) == ["frames.csv", "reward.csv"]
        assert shown(tmp_path) == {"reward": [0, 1, 2, 3], "frames": [0, 1, 2, 3]}
        assert wandb_rows(tmp_path) == [(0, 0.0), (1, 0.5), (2, 1.0), (3, 9.0)]

    def test_rows_that_a_server_has_are_not_sent_again(self, tmp_path: Path) -> None:
        """A wandb run that is continued there knows how many rows it got; the rows of a resumed run are the same."""
        sent: list[int] = []
        online = SimpleNamespace(
            experiment=SimpleNamespace(step=2), log_metrics=lambda numbers, step: sent.append(step)
        )
        rows = MetricsRows(tmp_path / "metrics.jsonl")
        rows.append({"reward": 0.0}, iteration=0)
        rows.feed(RunLogger([online]))
        for step in (1, 2, 3):
            rows.append({"reward": 1.0}, iteration=step)
        assert sent == [2, 3]

    def test_wandb_offline(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import os

        monkeypatch.delenv("WANDB_MODE", raising=False)
        logger = make_logger("wandb", tmp_path, "run", config={"seed": 1})
        assert logger.loggers[0].experiment.settings.mode == "offline"
        logger.log_scalars({"reward": 0.5}, step=1)
        logger.close()
        assert list((tmp_path / "logs" / "wandb").glob("offline-run-*/*.wandb"))
        assert "WANDB_MODE" not in os.environ
        before = (tmp_path / "logs" / "wandb_id").read_text()
        make_logger("wandb", tmp_path, "run").close()
        assert (tmp_path / "logs" / "wandb_id").read_text() == before

    def test_none_and_unknown(self, tmp_path: Path) -> None:
        for kind in ("none", ["none"]):
            make_logger(kind, tmp_path, "run").log_scalars({"reward": 1.0}, step=1)
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(UserError, match="logger=cvs: unknown"):
            make_logger("cvs", tmp_path, "run")

    def test_a_missing_package_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for package in ("tensorboard", "wandb"):
            monkeypatch.setitem(sys.modules, package, None)
            with pytest.raises(UserError, match=f"pip install {package}"):
                make_logger(package, tmp_path, "run")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestProgress:
    def test_shows_metrics_on_a_terminal_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for stream, enabled, expected in (
            (Terminal(), True, True),
            (Terminal(), False, False),
            (io.StringIO(), True, False),
        ):
            monkeypatch.setattr(sys, "stderr", stream)
            with Progress(total=3, done=1, enabled=enabled, label="ppo") as progress:
                progress.update(frames=100, metrics={"reward": torch.tensor(0.71234)})
                progress.update(frames=100, metrics={"reward": 0.8})
            text = stream.getvalue()
            assert ("ppo" in text and "3/3" in text and "reward=0.8" in text and "frames/s" in text) == expected
            assert expected or text == ""
            assert progress.frames == 200


class TestDevice:
    def test_known_and_unknown(self) -> None:
        assert pick_device("cpu").type == "cpu"
        assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
        for name in ("gpu", "cuda:99", "meta:x"):
            with pytest.raises(UserError, match=f"device={name}"):
                pick_device(name)
