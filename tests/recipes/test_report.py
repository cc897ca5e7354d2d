"""The page at the end of runs as the recipes configure them, with the faces that other tests leave out."""

from __future__ import annotations

from recipe_tools import load_recipe

from s2f_rl.runs.report import write
from s2f_rl.runs.report.write import run_faces


def test_faces_of_a_supervised_run_and_of_a_run_from_it(rl_overrides, workshop, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "run_faces", run_faces)
    small = ["actor.audio.width=16", "actor.feature_dim=16", "batch_size=2", "iterations=2", "evaluation.every=1"]
    given = [f"root={tmp_path}", "logger=none", "progress=false", "page=stills"]
    load_recipe("supervised").run([f"corpus.root={workshop / 'corpus'}", "name=start", *small, *given])
    load_recipe("ppo").run([*rl_overrides, f"start={tmp_path / 'start'}", "name=ppo", *given])
    for name, title in (("start", "Three utterances"), ("ppo", "Before and after")):
        page = (tmp_path / name / "report.html").read_text()
        assert f"<h2>{title}</h2>" in page and page.count("<img") == 3
        assert "is best.pt, the actor of iteration" in page and "not shown" not in page
