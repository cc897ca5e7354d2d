"""The demo hands its settings on to its stages, and makes or refuses a corpus of the sizes that are asked for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from config_tools import Recorder
from omegaconf import OmegaConf
from recipe_tools import load_recipe
from tiny import make_tiny_corpus

from s2f_rl.errors import UserError
from s2f_rl.runs.overrides import flat


class TestDemo:
    """The demo runs its stages with the settings that it is given, on a corpus of the sizes that are asked for."""

    @pytest.fixture
    def demo(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, dict[str, Any]]:
        """The recipe, with nothing but its stages and its film left out; what it would have done."""
        main = load_recipe("demo")
        module = sys.modules[main.function.__module__]
        done: dict[str, Any] = {"runs": {}}

        def synthesize(out: Path, *sizes: int, progress: bool, motion: str) -> None:
            done["synthesized"], done["motion"] = sizes, motion
            made = dict(zip(("subjects", "sentences", "vertices", "seed"), sizes, strict=True))
            make_tiny_corpus(out, 5, 3, 45, seconds=(1.2, 1.8))
            about = json.loads((out / "corpus.json").read_text())
            (out / "corpus.json").write_text(json.dumps(about | {"synthesis": made}))

        def run(recipe: Any, overrides: list[str]) -> None:
            cfg = recipe.compose(overrides)
            done["runs"][cfg.name] = cfg

        class Nothing:
            pass

        monkeypatch.setattr(module, "synthesize", synthesize)
        monkeypatch.setattr(type(main), "run", lambda recipe, given: run(recipe, given))
        monkeypatch.setattr(module.RewardModel, "load", lambda path: Nothing())
        monkeypatch.setattr(module, "load_scorer", lambda path: Nothing())
        monkeypatch.setattr(module, "Scorer", lambda models, corpus: SimpleNamespace(models={}))
        monkeypatch.setattr(module, "load_actor", lambda path: (Nothing(), {}))
        monkeypatch.setattr(module, "evaluate_truth", lambda *_: [])
        monkeypatch.setattr(module, "evaluate_actor", lambda *_: [])
        monkeypatch.setattr(module, "summarise", lambda rows: {})
        monkeypatch.setattr(module, "write_report", lambda *_: {"style_dependent": {}})
        monkeypatch.setattr(module, "animates_coefficients", lambda actor: False)
        monkeypatch.setattr(module, "show", lambda options, *_: done.update(film=dict(options.items())))
        monkeypatch.setattr(module, "plain", lambda config: config)
        return main, done

    def given(self, tmp_path: Path, *more: str) -> list[str]:
        sizes = ["subjects=5", "sentences=3", "vertices=400"]
        return [f"root={tmp_path / 'demo'}", f"corpus_folder={tmp_path / 'corpus'}", "progress=false", *sizes, *more]

    def start(self, demo: Any, overrides: list[str]) -> tuple[set[str], dict[str, Any]]:
        main, done = demo
        content: Any = OmegaConf.to_container(main.compose(overrides))
        seen: set[str] = set()
        main.function(Recorder(content, seen))
        return set(flat(content)) - seen, done

    def test_every_key_is_used_and_reaches_its_stage(self, demo: Any, tmp_path: Path) -> None:
        more = ["supervised.iterations=5", "reward.weights.rank=2.5", "judge.judge_model.width=8", "rl.kl=adaptive",
                "rl.gamma=0.3", "seed=4", "film.style=1", "film.size=32"]  # fmt: skip
        left, done = self.start(demo, self.given(tmp_path, *more))
        assert left <= {"debug", "name"}
        assert done["synthesized"] == (5, 3, 400, 4) and done["film"] == {"utterance": None, "style": 1, "size": 32}
        runs = done["runs"]
        assert list(runs) == ["supervised", "reward", "judge", "control", "ppo"]
        assert runs["supervised"].iterations == 5 and runs["supervised"].optimizer.lr == 1e-3
        assert runs["supervised"].actor.audio.kind == "listener"
        assert runs["reward"].weights.rank == 2.5
        # the last checkpoint: the best by lip error may not close its mouth
        assert runs["reward"].policy == runs["ppo"].start == str(tmp_path / "demo" / "supervised" / "last.pt")
        assert runs["judge"].judge_model.width == 8 and runs["judge"].seed == 1004
        for name in ("control", "ppo"):
            assert runs[name].kl.kind == "adaptive" and runs[name].gamma == 0.3 and runs[name].seed == 4
            assert runs[name].control is (name == "control")

    def test_the_actor_may_be_another(self, demo: Any, tmp_path: Path) -> None:
        runs = self.start(demo, self.given(tmp_path, "supervised.actor=mel"))[1]["runs"]
        assert runs["supervised"].actor.audio.kind == "mel"

    def test_the_corpus_may_be_of_coefficients(self, demo: Any, tmp_path: Path) -> None:
        assert self.start(demo, self.given(tmp_path))[1]["motion"] == "vertices"
        given = [*self.given(tmp_path / "other"), "motion=arkit"]
        assert self.start(demo, given)[1]["motion"] == "arkit"

    def test_another_size_is_not_passed_over(self, demo: Any, tmp_path: Path) -> None:
        self.start(demo, self.given(tmp_path))
        self.start(demo, self.given(tmp_path))  # the same: goes on
        for change in ("subjects=6", "sentences=4", "vertices=500", "seed=1", "motion=arkit"):
            with pytest.raises(UserError, match=f"{change}: the corpus in .* was made with .*; give corpus_folder="):
                self.start(demo, self.given(tmp_path, change))

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("rl.lanes=6", "group_size=4 must divide lanes=6"),
            ("reward.iterations=100", "the first 450 only listen"),
            ("supervised.optimizer.lr=1e-5", "final_lr=0.0001: above optimizer.lr"),
            ("rl.name=mine", "name of the stage control: the demo sets it itself"),
            ("judge.corpus.root=mine", "corpus.root of the stage judge: the demo sets it itself"),
        ],
    )
    def test_stages_are_checked_before_the_corpus_is_made(
        self, demo: Any, tmp_path: Path, override: str, message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            self.start(demo, self.given(tmp_path, override))
        assert not (tmp_path / "corpus").exists() and not demo[1]["runs"]

    def test_a_style_that_nobody_has(self, demo: Any, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="film.style=3: the corpus has 3 training subjects"):
            self.start(demo, self.given(tmp_path, "film.style=3"))
        assert not demo[1]["runs"]
