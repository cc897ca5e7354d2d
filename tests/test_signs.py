"""What takes long tells of it: how far, how fast, how long yet; on a terminal by a bar, elsewhere by a line."""

from __future__ import annotations

import logging
import sys
import threading
import time

import pytest

from s2f_rl import cli, signs
from s2f_rl.errors import UserError
from s2f_rl.signs import Watch, watched


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_rate_and_time_left(clock):
    watch = Watch("ppo", 60, done=10, clock=clock)
    clock.now += 45
    assert watch.text() == "ppo 10/60, 0:00:45 so far"
    watch.update()
    watch.update(2)
    assert watch.text() == "ppo 13/60, 15 s each, 0:11:45 left"  # 47 more at 15 s
    watch.update(42)
    assert watch.text() == "ppo 55/60, 1 s each, 0:00:05 left"
    clock.now -= 30
    assert watch.text() == "ppo 55/60, 3 each second, 0:00:02 left"
    watch.close()


def test_without_a_total(clock):
    watch = Watch("prepare", clock=clock, bar=False)
    clock.now += 90
    assert watch.text() == "prepare, 0:01:30 so far"
    watch.update(180)
    assert watch.text() == "prepare 180, 2 each second"
    watch.close()


def test_items_are_counted(monkeypatch):
    monkeypatch.setattr(signs, "_under_way", [])
    texts = [signs._under_way[0].text().split(",")[0] for _ in watched(["a", "b", "c"], "files")]
    assert texts == ["files 0/3", "files 1/3", "files 2/3"] and signs._under_way == []
    assert [signs._under_way for _ in watched(iter("ab"), "off", enabled=False)] == [[], []]


def test_a_step_of_any_length_is_told_of(monkeypatch, caplog):
    """By a thread of its own: nothing is updated here."""
    caplog.set_level(logging.INFO, logger="s2f_rl")
    monkeypatch.setattr(signs, "_heart", None)
    monkeypatch.setattr(signs, "EVERY_S", 0.01)
    with Watch("one long step", 4):
        for _ in range(2000):
            time.sleep(0.01)
            if caplog.records:
                break
    assert caplog.records[0].getMessage().startswith("one long step 0/4, ")


def test_every_command_is_watched(monkeypatch, tmp_path):
    """From its start on, so that what counts nothing is told of as well."""
    seen = []

    def fail(*_, **__):
        seen.extend(watch.text() for watch in signs._under_way)
        raise UserError("enough")

    monkeypatch.setattr(signs, "_under_way", [])
    monkeypatch.setattr("s2f_rl.data.check_corpus", fail)
    assert cli.main(["check", str(tmp_path)]) == 2
    assert seen == ["check, 0:00:00 so far"] and signs._under_way == []


def test_lines(clock, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="s2f_rl")
    monkeypatch.setattr(signs, "_heart", threading.current_thread())  # the beat is made by hand
    monkeypatch.setattr(signs, "_under_way", [])

    class Over(Exception):
        pass

    def sleep(seconds):
        if clock.now >= 160:
            raise Over
        clock.now += seconds

    monkeypatch.setattr(signs.time, "sleep", sleep)
    with (
        Watch("all", bar=False, clock=clock),
        Watch("ppo", 4, clock=clock) as outer,
        Watch("off", 9, enabled=False),
    ):
        outer.update(2)
        with Watch("score", 8, clock=clock), pytest.raises(Over):
            signs._beat()
    assert [record.getMessage() for record in caplog.records] == [
        "ppo 2/4, 15 s each, 0:00:30 left; score 0/8, 0:00:30 so far",
        "ppo 2/4, 30 s each, 0:01:00 left; score 0/8, 0:01:00 so far",
    ]
    assert signs._under_way == []


def test_a_terminal_gets_a_bar(monkeypatch, capsys, clock):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(signs, "_under_way", [])
    with Watch("bare", bar=False):
        pass
    assert capsys.readouterr().err == ""
    with Watch("ppo", 4) as watch:
        watch.update(1, {"reward": "0.7"})
        time.sleep(0.12)  # tqdm draws at most ten times a second
        watch.update(1)
        assert signs._under_way == []
    shown = capsys.readouterr().err
    assert "ppo" in shown and "2/4" in shown and "reward=0.7" in shown
