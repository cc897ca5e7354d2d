"""A recipe's command line: overrides, sweeps, and every mistake told in one line with exit code 2."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from s2f_rl.errors import UserError
from s2f_rl.runs.main import Recipe

SCRIPT = """
import os, time
from pathlib import Path
from s2f_rl.errors import Diverged, UserError
from s2f_rl.runs.main import recipe_main

@recipe_main("toy")
def main(cfg):
    if cfg.what == "mistake":
        raise UserError("speech.wav: no such file; check the path")
    if cfg.what == "diverged":
        raise Diverged("run: the run diverged; use a smaller optimizer.lr")
    if cfg.what == "bug":
        raise ZeroDivisionError("a bug")
    if cfg.what == "file":
        open("absent/file")
    if cfg.what == "wait":
        print("waiting", flush=True)
        time.sleep(60)
    out = Path(cfg.root) / cfg.name
    out.mkdir(parents=True)
    (out / "seen.txt").write_text(f"{cfg.seed} {cfg.actor.width} {cfg.place} {os.getcwd()}")
    return cfg.seed * cfg.lr

if __name__ == "__main__":
    main()
"""

TOY = """
defaults: [{actor: small}, _self_]
name: toy
root: checkpoints
seed: 1
lr: 0.5
what: fine
flags: [a]
place: ${root}/x
limit: null
debug: false
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """The script above with its config in ``tmp_path``, which is also the working directory."""
    (tmp_path / "conf" / "actor").mkdir(parents=True)
    (tmp_path / "toy.py").write_text(SCRIPT)
    (tmp_path / "conf" / "toy.yaml").write_text(TOY)
    (tmp_path / "conf" / "actor" / "small.yaml").write_text("width: 4\n")
    (tmp_path / "conf" / "actor" / "large.yaml").write_text("width: 8\nheads: ???\n")
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("toy_recipe", tmp_path / "toy.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: Recipe = module.main
    return main


def command(recipe: Recipe, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit code of the recipe's command line, run in this process."""
    monkeypatch.setattr(sys, "argv", ["toy.py", *arguments])
    try:
        recipe()
    except SystemExit as leave:
        return int(leave.code or 0)
    return 0


MISTAKES = {
    "unknown key": (["lrr=1"], "toy: unknown key 'lrr'; did you mean lr?"),
    "unknown nested key": (["widht=1"], "toy: unknown key 'widht'"),
    "unknown choice": (["actor=huge"], "actor=huge: no such choice; use large or small"),
    "group set to a number": (["actor=3"], "toy: Config group override must be a string"),
    "not an override": (["garbage"], "garbage: not of the form key=value"),
    "bad syntax": (["lr=[1"], "lr=[1: not of the form key=value"),
    "text for a number": (["lr=fast"], "lr=fast: expected a number"),
    "fraction for a whole number": (["seed=1.5"], "seed=1.5: expected a whole number"),
    "truth value for a number": (["seed=true"], "seed=true: expected a whole number"),
    "number for a truth value": (["debug=2"], "debug=2: expected true or false"),
    "one for many": (["flags=b"], "flags=b: expected a list"),
    "group of keys for a number": (["lr={a:1}"], "lr={a:1}: expected a number"),
    "group of keys for a text": (["what={a:1}"], "what={a:1}: expected a text"),
    "missing mandatory value": (["actor=large"], "toy: actor.heads must be given, for example actor.heads=..."),
    "interpolation to nowhere": (["place=${nope}"], "toy: config key 'place': Interpolation key 'nope' not found"),
    "sweep without -m": (["seed=1,2"], "add --multirun"),
    "raised by the recipe": (["what=mistake"], "speech.wav: no such file; check the path"),
    "refused by the system": (["what=file"], "absent/file: No such file or directory; check the path"),
}


class TestCommandLine:
    def test_runs_and_leaves_nothing_but_its_output(
        self, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        before = set(tmp_path.rglob("*"))
        assert command(recipe, monkeypatch, "seed=7", "actor.width=5", "root=out") == 0
        made = {path.relative_to(tmp_path).as_posix() for path in set(tmp_path.rglob("*")) - before}
        assert made == {"out", "out/toy", "out/toy/seen.txt"}
        assert (tmp_path / "out/toy/seen.txt").read_text() == f"7 5 out/x {tmp_path}"
        assert capfd.readouterr().err == ""
        assert "HYDRA_FULL_ERROR" not in os.environ and sys.argv == ["toy.py", "seed=7", "actor.width=5", "root=out"]

    @pytest.mark.parametrize("kind", MISTAKES)
    def test_a_mistake_is_one_line(
        self, kind: str, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        arguments, expected = MISTAKES[kind]
        assert command(recipe, monkeypatch, *arguments) == 2
        seen = capfd.readouterr()
        assert len(seen.err.splitlines()) == 1 and seen.out == ""
        assert seen.err.startswith("error: ") and expected in seen.err

    @pytest.mark.parametrize("arguments", [["what=mistake"], ["lrr=1"]])
    def test_debug_shows_the_traceback(
        self,
        arguments: list[str],
        recipe: Recipe,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        assert command(recipe, monkeypatch, *arguments, "debug=true") == 2
        assert "Traceback" in capfd.readouterr().err

    def test_a_run_that_diverged_is_one_line_and_code_3(
        self, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert command(recipe, monkeypatch, "what=diverged") == 3
        assert capfd.readouterr().err == "error: run: the run diverged; use a smaller optimizer.lr\n"

    @pytest.mark.parametrize(("jobs", "code"), [("diverged,mistake", 2), ("mistake,bug", 1), ("fine,diverged", 3)])
    def test_a_sweep_leaves_with_the_lowest_code(
        self, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, jobs: str, code: int
    ) -> None:
        assert command(recipe, monkeypatch, "-m", f"what={jobs}") == code

    def test_a_bug_shows_its_traceback(
        self, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert command(recipe, monkeypatch, "what=bug") == 1
        error = capfd.readouterr().err
        assert "ZeroDivisionError: a bug" in error and "toy.py" in error

    @pytest.mark.parametrize("text", ["a: [1\n", "\xff\xfe", "defaults: [nothing]\n"])
    def test_a_broken_config_file(
        self,
        text: str,
        recipe: Recipe,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        (tmp_path / "conf" / "toy.yaml").write_bytes(text.encode("latin1"))
        assert command(recipe, monkeypatch) == 2
        assert len(capfd.readouterr().err.splitlines()) == 1

    @pytest.mark.usefixtures("interruptible")
    def test_ctrl_c(self, recipe: Recipe, tmp_path: Path) -> None:
        arguments = [sys.executable, "toy.py", "what=wait"]
        with subprocess.Popen(
            arguments, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None and process.stdout.readline() == "waiting\n"
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=60)
        assert process.returncode == 130
        assert error == "error: stopped by Ctrl-C; resume=true continues a run from its last checkpoint\n"


class TestSweep:
    def test_every_job_has_its_folder_and_a_mistake_stops_only_its_own(
        self, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert command(recipe, monkeypatch, "-m", "what=mistake,fine", "actor.width=5,6", "lr=0.25") == 2
        assert capfd.readouterr().err.splitlines() == [
            f"error: toy_whatmistake_width{width}: speech.wav: no such file; check the path" for width in (5, 6)
        ]
        made = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
        assert made == ["sweeps", "toy_whatfine_width5", "toy_whatfine_width6"]

    def test_joblib(self, recipe: Recipe, tmp_path: Path) -> None:
        arguments = ["what=fine", "-m", "seed=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
        done = subprocess.run(
            [sys.executable, "toy.py", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert (done.returncode, done.stderr) == (0, "")
        for seed in (1, 2):
            seen = (tmp_path / f"checkpoints/toy_seed{seed}/seen.txt").read_text()
            assert seen == f"{seed} 4 checkpoints/x {tmp_path}"

    def test_joblib_mistake(self, recipe: Recipe, tmp_path: Path) -> None:
        arguments = ["-m", "what=mistake,bug", "hydra/launcher=joblib", "hydra.launcher.n_jobs=1"]
        done = subprocess.run(
            [sys.executable, "toy.py", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 1
        assert "error: toy_whatmistake: speech.wav: no such file; check the path\n" in done.stderr
        assert "ZeroDivisionError: a bug" in done.stderr


class TestRun:
    def test_returns_what_the_recipe_returns(self, recipe: Recipe) -> None:
        assert recipe.run(["seed=4", "name=first"]) == 2.0
        assert recipe.run(["lr=3", "name=second"]) == 3

    def test_a_mistake_is_raised(self, recipe: Recipe) -> None:
        for arguments, expected in MISTAKES.values():
            with pytest.raises((UserError, OSError)) as caught:
                recipe.run(arguments)
            if isinstance(caught.value, UserError):
                assert expected.split(": ")[-1] in str(caught.value)

    def test_null_and_text(self, recipe: Recipe) -> None:
        cfg: Any = recipe.compose(["lr=null", "name=007", "limit=3", "what=[a,b]", "seed=2"])
        assert cfg.lr is None and cfg.name == "007" and cfg.limit == 3 and list(cfg.what) == ["a", "b"]

    def test_hydra_is_left_as_it_was(self, recipe: Recipe, tmp_path: Path) -> None:
        with initialize_config_dir(str(tmp_path / "conf"), version_base="1.3"):
            outer = GlobalHydra.instance().hydra
            recipe.compose(["seed=2"])
            assert GlobalHydra.instance().hydra is outer

    def test_a_recipe_may_run_another_one(
        self, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        outer = Recipe(lambda cfg: recipe.run([f"name=inner{cfg.seed}"]), "toy", tmp_path / "conf")
        assert command(outer, monkeypatch, "seed=8") == 0
        assert (tmp_path / "checkpoints" / "inner8" / "seen.txt").exists()
