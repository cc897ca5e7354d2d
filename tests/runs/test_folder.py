"""Run folders, checkpoints and rows: nothing is overwritten, nothing hostile is run, rows survive a kill."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from s2f_rl.errors import UserError
from s2f_rl.provenance import source_commit
from s2f_rl.runs.checkpoints import load_checkpoint, save_checkpoint
from s2f_rl.runs.folder import RunFolder
from s2f_rl.runs.rows import MetricsRows, read_rows, without_times

CONFIG = {"name": "ppo", "seed": 3, "lr": 0.1, "iterations": 5, "actor": {"width": 4}, "logger": "csv"}


class TestRunFolder:
    def test_writes_config_and_takes_the_seed(self, tmp_path: Path) -> None:
        folder = RunFolder("bench/ppo_seed3", root=tmp_path, config=CONFIG)
        assert folder.path == tmp_path / "bench" / "ppo_seed3"
        assert yaml.safe_load((folder / "config.yaml").read_text()) == CONFIG
        assert folder.rows.seed == 3
        assert not folder.resuming

    def test_refuses_an_existing_run_and_leaves_it_alone(self, tmp_path: Path) -> None:
        folder = RunFolder("ppo", root=tmp_path, config=CONFIG)
        folder.save_checkpoint("last.pt", {"iteration": 4})
        before = {path.name: path.read_bytes() for path in folder.path.iterdir()}
        with pytest.raises(UserError, match="resume=true"):
            RunFolder("ppo", root=tmp_path, config={**CONFIG, "lr": 0.5})
        assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == before

    def test_an_empty_folder_is_no_run(self, tmp_path: Path) -> None:
        (tmp_path / "ppo").mkdir()
        assert RunFolder("ppo", root=tmp_path, config=CONFIG).path.is_dir()

    def test_a_run_that_ended_before_its_first_row_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "a" / "logs" / "csv").mkdir(parents=True)  # a logger makes its folders before the first row
        RunFolder("a", tmp_path).close()
        (tmp_path / "a" / "logs" / "csv" / "loss.csv").touch()
        with pytest.raises(UserError, match="this run exists"):
            RunFolder("a", tmp_path)

    def test_resume_takes_the_last_checkpoint(self, tmp_path: Path) -> None:
        RunFolder("ppo", root=tmp_path, config=CONFIG).save_checkpoint("last.pt", {"iteration": 4})
        folder = RunFolder("ppo", root=tmp_path, config=CONFIG, resume=True)
        assert folder.resuming
        assert folder.load_checkpoint() == {"iteration": 4}

    def test_a_checkpoint_is_due_after_so_many_minutes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [1000.0]
        monkeypatch.setattr("s2f_rl.runs.folder.time.monotonic", lambda: now[0])
        folder = RunFolder("ppo", root=tmp_path, config=CONFIG)
        found = []
        for minute in range(25):
            now[0] = 1000.0 + 60 * minute
            if folder.checkpoint_due(10):
                folder.save_checkpoint("last.pt", {"iteration": minute})
                found.append(minute)
            elif minute == 15:
                folder.save_checkpoint("best.pt", {"iteration": minute})  # is no last.pt
        assert found == [10, 20] and not folder.checkpoint_due(None)
        assert folder.path.joinpath("last.pt").exists()

    def test_resume_without_checkpoint_starts_over(self, tmp_path: Path) -> None:
        RunFolder("ppo", root=tmp_path, config=CONFIG).rows.append({}, iteration=1)
        folder = RunFolder("ppo", root=tmp_path, config=CONFIG, resume=True)
        assert not folder.resuming
        assert read_rows(folder.rows.path) == []

    def test_resume_lists_every_changed_key(self, tmp_path: Path) -> None:
        RunFolder("ppo", root=tmp_path, config=CONFIG)
        changed = {**CONFIG, "lr": 0.5, "actor": {"width": 8}, "extra": 1, "iterations": 9, "logger": ["wandb"]}
        with pytest.raises(UserError) as caught:
            RunFolder("ppo", root=tmp_path, config=changed, resume=True)
        text = str(caught.value)
        assert "lr was 0.1 and is 0.5" in text
        assert "actor.width was 4 and is 8" in text
        assert "extra was '(absent)' and is 1" in text
        assert "iterations" not in text and "logger" not in text

    def test_a_run_of_before_a_key_existed(self, tmp_path: Path) -> None:
        RunFolder("ppo", root=tmp_path, config=CONFIG)
        later = {**CONFIG, "new": None, "actor": {**CONFIG["actor"], "kind": "faceformer"}}
        RunFolder("ppo", root=tmp_path, config=later, resume=True)
        with pytest.raises(UserError, match="actor.kind was 'faceformer' and is 'other'"):
            RunFolder(
                "ppo", root=tmp_path, config={**CONFIG, "actor": {**later["actor"], "kind": "other"}}, resume=True
            )

    def test_values_that_mean_the_same(self, tmp_path: Path) -> None:
        RunFolder("ppo", root=tmp_path, config={**CONFIG, "credit": "discounted"})
        RunFolder("ppo", root=tmp_path, config={**CONFIG, "credit": None}, resume=True)
        with pytest.raises(UserError, match="credit was None and is 'window'"):
            RunFolder("ppo", root=tmp_path, config={**CONFIG, "credit": "window"}, resume=True)

    def test_a_run_that_was_validated_on_everything_without_a_guard(self, tmp_path: Path) -> None:
        RunFolder("ppo", root=tmp_path, config={**CONFIG, "evaluation": {"every": 10}})
        everything = {**CONFIG, "evaluation": {"every": 10, "stride": 1, "styles": None, "max_closure_drop": None}}
        share = {**CONFIG, "evaluation": {"every": 10, "stride": 5, "styles": 2, "max_closure_drop": 0.05}}
        told = r"max_closure_drop was None and is 0\.05; .*stride was 1 and is 5; evaluation\.styles was None and is 2"
        with pytest.raises(UserError, match=told):
            RunFolder("ppo", root=tmp_path, config=share, resume=True)
        RunFolder("ppo", root=tmp_path, config=everything, resume=True)

    def test_resume_with_more_iterations_keeps_the_new_config(self, tmp_path: Path) -> None:
        RunFolder("ppo", root=tmp_path, config=CONFIG)
        folder = RunFolder("ppo", root=tmp_path, config={**CONFIG, "iterations": 9}, resume=True)
        assert yaml.safe_load((folder / "config.yaml").read_text())["iterations"] == 9

    @pytest.mark.parametrize(
        "name",
        [
            "",
            "..",
            "../other",
            "/absolute",
            "a/../../b",
            "a\nb",
            "a\x00b",
            "\x1b[31mred",
            " a",
            "x" * 256,
            "\udcff",
            ".",
        ],
    )
    def test_a_name_is_a_folder_below_the_root(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(UserError, match="not a run name") as caught:
            RunFolder(name, root=tmp_path / "root", config=CONFIG)
        assert str(caught.value).isprintable() and not (tmp_path / "root").exists()

    @pytest.mark.parametrize("name", ["ppo", "bench/ppo_seed1", "x" * 255, "Größe 2"])
    def test_groups_and_letters(self, tmp_path: Path, name: str) -> None:
        with RunFolder(name, root=tmp_path, config=CONFIG) as folder:
            assert folder.path == tmp_path / name and (folder / "config.yaml").exists()

    def test_a_file_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "ppo").write_text("")
        with pytest.raises(UserError, match="cannot be made"):
            RunFolder("ppo", root=tmp_path, config=CONFIG)

    def test_a_broken_config_is_named(self, tmp_path: Path) -> None:
        RunFolder("ppo", root=tmp_path, config=CONFIG)
        (tmp_path / "ppo" / "config.yaml").write_text("- just\n- a list\n")
        with pytest.raises(UserError, match="config.yaml: cannot be read"):
            RunFolder("ppo", root=tmp_path, config=CONFIG, resume=True)

    def test_what_a_kill_left_goes(self, tmp_path: Path) -> None:
        """It is no content either: a run that was killed in its first moment has nothing that could be lost."""
        RunFolder("ppo", root=tmp_path, config=CONFIG).close()
        (tmp_path / "ppo" / ".config.000000000000.tmp.yaml").touch()
        (tmp_path / "ppo" / "logs").mkdir()
        (tmp_path / "ppo" / "logs" / ".wandb_id.0123456789ab.tmp").touch()
        RunFolder("ppo", root=tmp_path, config=CONFIG).close()
        assert [path.name for path in (tmp_path / "ppo").rglob("*.tmp*")] == []

    def test_a_killed_process_is_waited_for_when_the_run_goes_on(self, tmp_path: Path) -> None:
        holder = (
            f"import fcntl, time; f = open({str(tmp_path / 'ppo' / '.lock')!r}, 'w');"
            "fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(0.5)"
        )
        (tmp_path / "ppo").mkdir()
        with subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            RunFolder("ppo", root=tmp_path, config=CONFIG, resume=True).close()

    def test_another_process_in_the_folder(self, tmp_path: Path) -> None:
        holder = (
            f"import fcntl; f = open({str(tmp_path / 'ppo' / '.lock')!r}, 'w');"
            "fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); input()"
        )
        (tmp_path / "ppo").mkdir()
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen([sys.executable, "-c", holder], **pipes) as process:  # type: ignore[call-overload]
            assert process.stdout.readline() == "held\n"
            with pytest.raises(UserError, match="another process"):
                RunFolder("ppo", root=tmp_path, config=CONFIG)
            process.kill()
        assert RunFolder("ppo", root=tmp_path, config=CONFIG).path.is_dir()  # a killed run holds nothing


class TestCheckpoints:
    def test_round_trip(self, tmp_path: Path) -> None:
        saved = {"w": torch.arange(3.0), "n": 2, "x": [1.5, None, True, "s"], "d": {0: torch.tensor(1)}, "t": (1, 2)}
        save_checkpoint(tmp_path / "a.pt", saved)
        loaded = load_checkpoint(tmp_path / "a.pt", needs=("w", "n"))
        assert torch.equal(loaded.pop("w"), saved.pop("w"))  # type: ignore[arg-type]
        assert loaded == saved

    def test_an_optimizer_and_modules_pass(self, tmp_path: Path) -> None:
        module = torch.nn.Linear(2, 2)
        optimizer = torch.optim.Adam(module.parameters())
        module(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        save_checkpoint(tmp_path / "a.pt", {"m": module.state_dict(), "o": optimizer.state_dict()})
        loaded = load_checkpoint(tmp_path / "a.pt")
        assert torch.equal(loaded["o"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])

    def test_objects_are_refused_at_once_and_the_old_file_stays(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path / "a.pt", {"n": 1})
        with pytest.raises(TypeError, match=r"checkpoint\['a'\]\[0\]: a PosixPath|WindowsPath"):
            save_checkpoint(tmp_path / "a.pt", {"a": [tmp_path]})
        assert load_checkpoint(tmp_path / "a.pt") == {"n": 1}
        assert sorted(os.listdir(tmp_path)) == ["a.pt"]

    def test_code_is_not_run(self, tmp_path: Path) -> None:
        class Bomb:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return os.mkdir, (str(tmp_path / "bang"),)

        (tmp_path / "raw.pt").write_bytes(pickle.dumps(Bomb()))
        torch.save({"model": Bomb()}, tmp_path / "zip.pt")
        for name in ("raw.pt", "zip.pt"):
            with pytest.raises(UserError, match=f"{name}: cannot be read"):
                load_checkpoint(tmp_path / name)
        assert not (tmp_path / "bang").exists()

    def test_broken_files(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path / "good.pt", {"w": torch.zeros(1000)})
        whole = (tmp_path / "good.pt").read_bytes()
        (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
        (tmp_path / "empty.pt").write_bytes(b"")
        (tmp_path / "text.pt").write_text("hello")
        (tmp_path / "folder.pt").mkdir()
        torch.save(torch.zeros(2), tmp_path / "tensor.pt")
        for name in ("cut.pt", "empty.pt", "text.pt", "folder.pt", "tensor.pt", "absent.pt"):
            with pytest.raises(UserError, match=name):
                load_checkpoint(tmp_path / name)

    def test_a_missing_entry_is_named(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path / "a.pt", {"n": 1})
        with pytest.raises(UserError, match="no entry 'policy'"):
            load_checkpoint(tmp_path / "a.pt", needs=("n", "policy"))


class TestRows:
    def test_a_row_tells_where_it_comes_from(self, tmp_path: Path) -> None:
        rows = MetricsRows(tmp_path / "m.jsonl", seed=7)
        rows.append({"reward": torch.tensor(0.5), "loss": float("nan"), "time/s": 1.0}, iteration=1, frames=80)
        (row,) = read_rows(tmp_path / "m.jsonl")
        assert row["reward"] == 0.5 and row["loss"] is None and row["kind"] == "train"
        assert (row["iteration"], row["frames"], row["seed"]) == (1, 80, 7)
        assert f"torch {torch.__version__}" in row["versions"] and row["commit"] == source_commit()
        assert "time/s" in row and "time/s" not in without_times(row)

    def test_numbers_come_back_to_the_last_bit(self, tmp_path: Path) -> None:
        rows = MetricsRows(tmp_path / "m.jsonl")
        values = {f"v{n}": value for n, value in enumerate(torch.rand(50, dtype=torch.float64).tolist())}
        rows.append(values, iteration=1)
        rows.cut_after(1)
        assert {key: read_rows(rows.path)[0][key] for key in values} == values

    def test_cut_after_a_kill(self, tmp_path: Path) -> None:
        rows = MetricsRows(tmp_path / "m.jsonl")
        for iteration in (1, 2, 3):
            rows.append({"x": iteration}, iteration=iteration)
            rows.append({"y": iteration}, iteration=iteration, kind="validation")
        with open(rows.path, "a") as file:
            file.write('{"kind": "train", "iterat')  # killed in the middle of a line
        assert len(read_rows(rows.path)) == 6
        rows.cut_after(2)
        assert [(row["iteration"], row["kind"]) for row in read_rows(rows.path)] == [
            (1, "train"),
            (1, "validation"),
            (2, "train"),
            (2, "validation"),
        ]
        rows.append({"x": 3}, iteration=3)
        assert json.loads(rows.path.read_text().splitlines()[-1])["x"] == 3

    def test_a_foreign_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "m.jsonl").write_text("not json\n{}\n")
        with pytest.raises(UserError, match="line 1"):
            read_rows(tmp_path / "m.jsonl")
        with pytest.raises(UserError, match="cannot be read"):
            read_rows(tmp_path / "absent.jsonl")


def test_rows_that_are_missing_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A kill leaves rows beyond the checkpoint, never fewer."""
    rows = MetricsRows(tmp_path / "metrics.jsonl", seed=0)
    for iteration in (0, 1, 2, 3):
        rows.append({"loss": 1.0}, iteration)
    rows.cut_after(2)
    assert caplog.text == "" and [row["iteration"] for row in read_rows(rows.path)] == [0, 1, 2]
    rows.cut_after(4)
    assert "metrics.jsonl: lacks the rows of 2 of 4 iterations" in caplog.text
