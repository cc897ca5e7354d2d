"""``s2f-rl recipe`` and ``s2f-rl copy``: the recipes for those who have no checkout, the same runs either way."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from config_tools import must_be_given
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import s2f_rl
from s2f_rl import cli
from s2f_rl.errors import UserError
from s2f_rl.runs import load_recipe, read_rows, without_times
from s2f_rl.runs import recipes as module
from s2f_rl.runs.main import Recipe
from tests.tiny import make_tiny_corpus

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
NAMES = sorted(path.stem for path in RECIPES.glob("*.py"))

TOY = """
from s2f_rl.errors import Diverged, UserError
from s2f_rl.runs.main import recipe_main

ENDS = {"mistake": UserError("speech.wav: no such file"), "diverged": Diverged("the run diverged"),
        "bug": ZeroDivisionError("a bug"), "interrupt": KeyboardInterrupt()}

@recipe_main("toy")
def main(cfg):
    if cfg.what in ENDS:
        raise ENDS[cfg.what]
    print("seed", cfg.seed)

if __name__ == "__main__":
    main()
"""


def command(*arguments: object) -> int:
    """Exit code of ``s2f-rl``, the recipe's own exits included."""
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as leave:
        return int(leave.code or 0)
    finally:
        GlobalHydra.instance().clear()


def mistake(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a wrong command is told in."""
    assert command(*arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


def recipe_of(script: Path) -> Recipe:
    """``main`` of a script in somebody's folder."""
    spec = importlib.util.spec_from_file_location(f"copied_{script.stem}", script)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    main: Recipe = loaded.main
    return main


def composed(recipe: Recipe, *overrides: str) -> Any:
    """Its checked config."""
    return OmegaConf.to_container(recipe.compose(overrides))


class TestList:
    def test_every_recipe_with_what_it_does(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert command("recipe", "--list") == 0
        shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
        assert sorted(shown) == NAMES and len(NAMES) > 10
        for name in NAMES:
            text = ast.get_docstring(ast.parse((RECIPES / f"{name}.py").read_text(encoding="utf-8")))
            assert text is not None and text.splitlines()[0] == shown[name]

    def test_unknown_names(self, capsys: pytest.CaptureFixture[str]) -> None:
        known = ", ".join(NAMES)
        assert mistake(capsys, "recipe", "pppo") == f"error: pppo: no such recipe; did you mean ppo? known are {known}"
        assert mistake(capsys, "copy", "dance", "x.py").endswith(f"no such recipe; known are {known}")
        assert mistake(capsys, "recipe", "../recipes/ppo").startswith("error: ../recipes/ppo: no such recipe")
        assert mistake(capsys, "recipe") == f"error: name a recipe: {known}"
        with pytest.raises(UserError, match="no such recipe"):
            load_recipe("dance")

    def test_where_they_lie(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Beside the package in a checkout, in it where a wheel was installed, beside somebody else's ``recipes``."""
        assert module.recipes_folder() == RECIPES
        for folder in ("recipes", "s2f_rl"):
            (tmp_path / folder).mkdir()
        monkeypatch.setattr(s2f_rl, "__file__", str(tmp_path / "s2f_rl" / "__init__.py"))
        assert module.recipe_names() == []
        with pytest.raises(UserError, match="holds no recipes; install s2f_rl again"):
            module.recipe_script("ppo")
        (tmp_path / "s2f_rl" / "_recipes" / "conf").mkdir(parents=True)
        (tmp_path / "s2f_rl" / "_recipes" / "mine.py").write_text('"""Mine.\n\nMore."""\n')
        assert module.recipe_names() == []  # no config, no recipe
        (tmp_path / "s2f_rl" / "_recipes" / "conf" / "mine.yaml").write_text("")
        assert (module.recipe_names(), module.recipe_summary("mine")) == (["mine"], "Mine.")


class TestRun:
    @pytest.fixture(autouse=True)
    def toy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A recipe that ends as it is told, in place of those that are there."""
        (tmp_path / "conf").mkdir()
        (tmp_path / "toy.py").write_text(TOY)
        (tmp_path / "conf" / "toy.yaml").write_text("name: toy\ndebug: false\nseed: 1\nwhat: fine\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(module, "recipes_folder", lambda: tmp_path)

    @pytest.mark.parametrize(
        ("what", "code"), [("fine", 0), ("bug", 1), ("mistake", 2), ("diverged", 3), ("interrupt", 130)]
    )
    def test_exit_codes(self, what: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
        before = list(sys.argv)
        assert command("recipe", "toy", f"what={what}") == code
        assert ("Traceback" in capsys.readouterr().err) == (what == "bug")
        assert sys.argv == before

    def test_what_follows_the_name_is_the_recipes_own(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert command("recipe", "toy", "seed=7") == 0
        assert capsys.readouterr().out == "seed 7\n"
        assert command("recipe", "toy", "seed=7", "--cfg", "job") == 0
        assert "seed: 7" in capsys.readouterr().out.splitlines()
        assert command("recipe", "toy", "-m", "seed=3,4") == 0
        assert capsys.readouterr().out == "seed 3\nseed 4\n"
        assert "unknown key 'sed'; did you mean seed?" in mistake(capsys, "recipe", "toy", "sed=7")

    def test_debug_shows_the_traceback(self, capsys: pytest.CaptureFixture[str]) -> None:
        for arguments in (["--debug", "recipe", "toy"], ["recipe", "--debug", "toy"], ["recipe", "toy", "--debug"]):
            assert command(*arguments, "what=mistake") == 2
            assert "Traceback" in capsys.readouterr().err


class TestCopy:
    @pytest.mark.parametrize("name", NAMES)
    def test_it_has_the_same_config_from_its_own_file(self, name: str, tmp_path: Path) -> None:
        script, config = module.copy_recipe(name, tmp_path / "my_own.py")
        assert config == tmp_path / "conf" / "my_own.yaml"
        mine, original = recipe_of(script), load_recipe(name)
        assert mine.schema is original.schema is not None
        given = must_be_given(name)
        assert composed(mine, *given) == composed(original, *given) | {"name": "my_own"}
        for path in (script, config):
            assert f"recipes/{name}.py" not in path.read_text(encoding="utf-8")
        config.write_text(config.read_text(encoding="utf-8").replace("debug: false", "") + "\ndebug: true\n")
        assert composed(mine, *given)["debug"] is True

    def test_its_own_groups_go_first_and_its_schema_is_checked(self, tmp_path: Path) -> None:
        script, config = module.copy_recipe("supervised", tmp_path / "mine.py")
        (config.parent / "actor").mkdir()
        shipped = (RECIPES / "conf" / "actor" / "mel.yaml").read_text(encoding="utf-8")
        for choice, width in (("tiny", 4), ("mel", 6)):
            own = re.sub(r"\bwidth: \d+", f"width: {width}", shipped)
            (config.parent / "actor" / f"{choice}.yaml").write_text(own)
        recipe = recipe_of(script)
        assert composed(recipe, "actor=tiny")["actor"]["audio"]["width"] == 4
        assert composed(recipe)["actor"]["audio"]["width"] == 6
        assert composed(recipe, "actor=wav2vec2")["actor"]["audio"]["kind"] == "wav2vec2"
        for override, message in {
            "actor=absent": "actor=absent: no such choice; use .*listener or mel or speech or tiny or wav2vec2",
            "corpus=mine": "corpus=mine: no such choice; use biwi or demo or vocaset",
            "corpus.rot=a": "unknown key 'corpus.rot'; did you mean corpus.root",
            "optimizer.lr=fast": "optimizer.lr=fast: expected a number",
        }.items():
            with pytest.raises(UserError, match=message):
                recipe.compose([override])

    def test_nothing_is_overwritten_unasked(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        script = tmp_path / "mine.py"
        assert command("copy", "ppo", script) == 0
        assert capsys.readouterr().out.splitlines()[:2] == [str(script), str(tmp_path / "conf" / "mine.yaml")]
        script.write_text("mine")
        assert f"{script}: is there already" in mistake(capsys, "copy", "ppo", script)
        assert script.read_text() == "mine"
        script.unlink()  # its config alone is kept as well
        assert "conf/mine.yaml: is there already" in mistake(capsys, "copy", "ppo", script)
        assert not script.exists()
        assert command("copy", "grpo", script, "--force") == 0
        assert "GRPO" in script.read_text(encoding="utf-8")

    def test_where_to(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert command("copy", "ppo", ".") == 0
        assert (tmp_path / "ppo.py").is_file() and (tmp_path / "conf" / "ppo.yaml").is_file()
        for name in ("ppo", "ppo.txt", "my ppo.py", "-.py", "1.py", "a.b.py", "mün.py"):
            assert "not a name for the copy" in mistake(capsys, "copy", "ppo", "--", name)
        for name in ("torch.py", "s2f_rl.py", "random.py", "hydra.py"):
            assert "would be imported in place of the module" in mistake(capsys, "copy", "ppo", name)
        assert not list(tmp_path.rglob("torch*"))
        assert "absent: no such folder" in mistake(capsys, "copy", "ppo", "absent/ppo.py")
        before = (RECIPES / "ppo.py").read_text(encoding="utf-8")
        assert "the recipe itself" in mistake(capsys, "copy", "ppo", RECIPES / "ppo.py", "--force")
        assert (RECIPES / "ppo.py").read_text(encoding="utf-8") == before

    @pytest.mark.parametrize("name", ["null", "no", "true", "shared", "corpus"])
    def test_names_that_yaml_or_hydra_could_take_for_something_else(self, name: str, tmp_path: Path) -> None:
        recipe = recipe_of(module.copy_recipe("supervised", tmp_path / f"{name}.py")[0])
        assert composed(recipe, *must_be_given("supervised"))["name"] == name

    def test_a_failure_leaves_nothing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Neither file where the script cannot be written, nor on a disk with room for the config alone."""
        (tmp_path / "loop.py").symlink_to("loop.py")
        assert "cannot be written" in mistake(capsys, "copy", "ppo", tmp_path / "loop.py")
        os.mkfifo(tmp_path / "pipe.py")
        assert "named pipe" in mistake(capsys, "copy", "ppo", tmp_path / "pipe.py", "--force")
        assert not (tmp_path / "conf").exists()
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2500, before[1]))
        try:
            told = mistake(capsys, "copy", "ppo", tmp_path / "full.py")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert "full.py: cannot be written (File too large); free some space" in told
        assert [path.name for path in tmp_path.rglob("*full*")] == [] and not list((tmp_path / "conf").iterdir())
        assert command("copy", "ppo", tmp_path / "full.py") == 0


def test_one_run_in_three_ways(tmp_path: Path) -> None:
    """Begun by the command and gone on with by the script of the checkout: the rows of a copied script's whole run."""
    make_tiny_corpus(tmp_path / "corpus", 5, 3)
    script, config = module.copy_recipe("supervised", tmp_path / "mine.py")
    config.write_text(config.read_text(encoding="utf-8").replace("batch_size: 4", "batch_size: 2"))
    small = ["corpus.root=corpus", "progress=false", "actor.feature_dim=16", "actor.audio.width=8",
             "evaluation.every=2", "optimizer.final_lr=1e-4", "page=none"]  # fmt: skip
    root = str(RECIPES.parent)
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}

    def run(*arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, *arguments, *small], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    run("-m", "s2f_rl.cli", "recipe", "supervised", "batch_size=2", "iterations=2")
    run(str(RECIPES / "supervised.py"), "batch_size=2", "iterations=4", "resume=true")
    run(str(script), "iterations=4")
    rows = [read_rows(tmp_path / "checkpoints" / name / "metrics.jsonl") for name in ("supervised", "mine")]
    assert [row["iteration"] for row in rows[0]] == [1, 2, 3, 4]
    assert [without_times(row) for row in rows[0]] == [without_times(row) for row in rows[1]]
