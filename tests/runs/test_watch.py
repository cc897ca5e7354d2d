"""Alarm, loggers, progress, device: what watches a run."""

from __future__ import annotations

import io
import logging
import math
import sys
from pathlib import Path

import pytest
import torch

from s2f_rl.errors import UserError
from s2f_rl.runs.alarm import MotionAlarm, MotionStopped
from s2f_rl.runs.device import pick_device
from s2f_rl.runs.loggers import make_logger
from s2f_rl.runs.progress import Progress


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


class TestLoggers:
    def test_csv_goes_on_where_the_checkpoint_was(self, tmp_path: Path) -> None:
        logger = make_logger("csv", tmp_path, "run")
        for step in (1, 2, 3):
            values = {"reward": torch.tensor(step / 2), "note": "text", "none": None, "loss": math.nan, "kl": math.inf}
            logger.log_scalars(values, step=step)
        logger.close()
        path = tmp_path / "logs" / "csv" / "scalars" / "reward.csv"
        with open(path, "a") as file:
            file.write("4,0.")
        logger = make_logger("csv", tmp_path, "run", resume_step=2)
        logger.log_scalars({"reward": 9.0}, step=3)
        logger.close()
        assert path.read_text() == "1,0.5\n2,1.0\n3,9.0\n"
        assert [file.name for file in path.parent.iterdir()] == ["reward.csv"]

    def test_tensorboard(self, tmp_path: Path) -> None:
        logger = make_logger(["tensorboard", "csv"], tmp_path, "run")
        logger.log_scalars({"reward": 0.5}, step=1)
        logger.close()
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(tmp_path / "logs" / "tensorboard")).Reload()
        assert [(event.step, event.value) for event in events.Scalars("reward")] == [(1, 0.5)]
        assert (tmp_path / "logs" / "csv" / "scalars" / "reward.csv").exists()

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
        make_logger("wandb", tmp_path, "run", resume_step=1).close()
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
