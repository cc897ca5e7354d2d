"""A run's page: whole, of the run's own numbers, and nothing from anywhere else."""

from __future__ import annotations

import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from s2f_rl import cli
from s2f_rl.data import FaceCorpus
from s2f_rl.errors import UserError
from s2f_rl.models import FaceFormer, MelAudioEncoder
from s2f_rl.models.checkpoint import actor_payload, load_actor
from s2f_rl.runs import RunFolder
from s2f_rl.runs import folder as folder_module
from s2f_rl.runs.loggers import make_logger
from s2f_rl.runs.report import motions, write
from s2f_rl.runs.report.motions import shown_utterances
from s2f_rl.runs.report.write import run_faces, write_run_report
from tests.tiny import make_tiny_corpus

VOID = {"meta", "img", "br"}


class Checker(HTMLParser):
    """Fails on tags that do not close; gathers what a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "poster")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "poster")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``corpus/``, and the folders of two runs: ``start``, and ``after``, which started from it."""
    root = tmp_path_factory.mktemp("made")
    corpus = FaceCorpus(make_tiny_corpus(root / "corpus", n_subjects=4, n_sentences=3), "train")
    for seed, name in enumerate(("start", "after")):
        torch.manual_seed(seed)
        encoder = MelAudioEncoder(width=16)
        actor = FaceFormer(encoder, corpus.n_vertices, feature_dim=16, n_subjects=len(corpus.subjects))
        torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=1e-3)
        config = {"name": name, "corpus": {"root": str(root / "corpus")}, "feature_dim": 16, "iterations": 3}
        with RunFolder(name, root, config | ({"start": str(root / "start")} if name == "after" else {})) as folder:
            folder.save_checkpoint("best.pt", {"actor": actor_payload(actor, list(corpus.subjects)), "iteration": 2})
            for k in range(1, 4):
                row = {"loss": 1 / k, "time/update_s": 30.0, "validation/lve": 1.7e-5 / k}
                folder.rows.append(row, iteration=k, frames=100 * k)
    return root


@pytest.fixture
def faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests leave the faces of reports out."""
    monkeypatch.setattr(write, "run_faces", run_faces)


def test_motions_are_those_of_the_actors(made: Path) -> None:
    corpus = FaceCorpus(made / "corpus", "validation")
    shown, notes = shown_utterances(made / "after", {"start": str(made / "start")}, corpus)
    assert notes == ["after is best.pt, the actor of iteration 2."]
    assert [each.name for each in shown] == corpus.names
    for each in shown:
        utterance = corpus[each.name]
        assert list(each.motions) == ["truth", "before", "after"]
        assert np.array_equal(each.motions["truth"], utterance.vertices.numpy()[: len(each.motions["truth"])])
        for what, run in (("before", "start"), ("after", "after")):
            actor = load_actor(made / run / "best.pt")[0]
            style = torch.nn.functional.one_hot(torch.tensor([0]), actor.n_styles).float()
            expected = actor.predict(utterance.waveform[None], utterance.template[None], style)
            found = torch.from_numpy(each.motions[what])
            torch.testing.assert_close(found, expected.reshape(-1, found.shape[1])[: len(found)], rtol=0, atol=1e-6)
        assert not np.array_equal(each.motions["before"], each.motions["after"])
        assert len(each.sound[0]) == round(len(each.motions["truth"]) / corpus.fps * each.sound[1])


def test_no_more_is_made_than_is_shown(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = FaceCorpus(made / "corpus", "validation")
    whole, _ = shown_utterances(made / "start", {}, corpus)
    made_frames: list[int] = []
    generate = FaceFormer.generate

    def counted(actor: FaceFormer, features: torch.Tensor, *more: object) -> torch.Tensor:
        made_frames.append(features.shape[1])
        return generate(actor, features, *more)

    monkeypatch.setattr(FaceFormer, "generate", counted)
    monkeypatch.setattr(motions, "LONGEST_S", 0.2)
    short, _ = shown_utterances(made / "start", {}, corpus)
    assert made_frames == [round(0.2 * corpus.fps)] * 3
    for one, other in zip(short, whole, strict=True):
        for what, motion in one.motions.items():
            assert len(motion) == made_frames[0] < len(other.motions[what])
            np.testing.assert_allclose(motion, other.motions[what][: len(motion)], rtol=0, atol=1e-6)


@pytest.mark.usefixtures("faces")
class TestPage:
    @pytest.mark.parametrize("kind", ["curves", "stills", "films"])
    def test_stands_alone(self, kind: str, made: Path) -> None:
        text = write_run_report(made / "after", kind).read_text()
        sources = Checker(text).sources
        assert all(source.startswith(("data:image/jpeg;base64,", "data:video/mp4;base64,")) for source in sources)
        assert "http" not in re.sub(r"base64,[^\"]*", "", text)
        n_films = sum(source.startswith("data:video") for source in sources)
        assert (len(sources), n_films) == {"curves": (0, 0), "stills": (3, 0), "films": (6, 3)}[kind]
        assert "No faces are shown" not in text
        last = json.loads((made / "after" / "metrics.jsonl").read_text().splitlines()[-1])
        assert f"<td>{1e6 * last['validation/lve']:.4g}</td></tr>" in text and last["versions"] in text
        assert "3 iterations, 300 frames, seed 0, 1 min 30 s" in text and "feature_dim: 16" in text

    def test_says_why_there_are_no_faces(self, made: Path, tmp_path: Path) -> None:
        run = tmp_path / "run"
        run.mkdir()
        (run / "metrics.jsonl").write_bytes((made / "after" / "metrics.jsonl").read_bytes())
        (run / "config.yaml").write_text("name: <b>\ncorpus: {root: gone}\n")
        text = write_run_report(run).read_text()
        Checker(text)
        assert "No faces are shown: gone" in text and "<h1>&lt;b&gt;</h1>" in text
        (run / "config.yaml").write_text("name: a\n")
        assert "No faces" not in write_run_report(run).read_text()

    def test_of_a_corpus_that_was_made_again(self, made: Path, tmp_path: Path) -> None:
        """With other faces, with other speakers: one line on the page."""
        for name in ("metrics.jsonl", "best.pt"):
            shutil.copyfile(made / "after" / name, tmp_path / name)
        for k, other in enumerate(({"n_vertices": 90}, {"n_subjects": 5})):
            make_tiny_corpus(tmp_path / f"corpus{k}", **{"n_subjects": 4, "n_sentences": 2, **other})
            (tmp_path / "config.yaml").write_text(f"name: a\ncorpus: {{root: '{tmp_path / f'corpus{k}'}'}}\n")
            text = write_run_report(tmp_path, "stills").read_text()
            assert f"No faces are shown: {tmp_path / 'best.pt'}" in text and "<img" not in text

    def test_a_start_that_is_gone_is_left_out(self, made: Path, tmp_path: Path) -> None:
        for name in ("metrics.jsonl", "best.pt"):
            shutil.copyfile(made / "after" / name, tmp_path / name)
        (tmp_path / "config.yaml").write_text(f"start: moved\ncorpus: {{root: '{made / 'corpus'}'}}\n")
        text = write_run_report(tmp_path, "stills").read_text()
        assert "The actor before is not shown: moved" in text and "Three utterances" in text and text.count("<img") == 3

    def test_of_a_run_that_started_from_nothing(self, made: Path) -> None:
        shown, _ = shown_utterances(made / "start", {}, FaceCorpus(made / "corpus", "validation"))
        assert [list(each.motions) for each in shown] == [["truth", "actor"]] * 3
        text = write_run_report(made / "start", "stills").read_text()
        assert "Three utterances" in text and "Before and after" not in text
        assert "actor is best.pt, the actor of iteration 2." in text

    def test_films_of_the_same_actor_are_made_once(self, made: Path) -> None:
        run = made / "start"
        write_run_report(run, "films")
        films = sorted((run / "films").iterdir())
        assert len(films) == 3
        for film in films:
            film.write_bytes(b"made before")
        assert write_run_report(run, "films", keep=True).read_text().count("bWFkZSBiZWZvcmU=") == 3
        os.utime(films[0], (1, 1))  # of an actor before
        assert write_run_report(run, "films", keep=True).read_text().count("bWFkZSBiZWZvcmU=") == 2
        assert "bWFkZSBiZWZvcmU=" not in write_run_report(run, "films").read_text()

    def test_a_reward_has_no_faces(self, made: Path, tmp_path: Path) -> None:
        for name in ("metrics.jsonl", "config.yaml"):
            shutil.copyfile(made / "after" / name, tmp_path / name)
        (tmp_path / "last.pt").write_bytes(b"no actor")
        text = write_run_report(tmp_path).read_text()
        assert "No faces" not in text and "utterances" not in text

    def test_the_command(self, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["report", str(made / "start"), "--page", "curves"]) == 0
        assert capsys.readouterr().out == f"{made / 'start' / 'report.html'}: written\n"
        assert cli.main(["report", str(made / "corpus")]) == 2
        assert "metrics.jsonl" in capsys.readouterr().err

    def test_loggers_show_faces_of_whole_runs_alone(
        self, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        films = made / "after" / "films"
        shutil.rmtree(films, ignore_errors=True)
        logger = make_logger("tensorboard", made / "after", "after", {"logger_films": True})
        shown: list[tuple[str, tuple[int, ...]]] = []
        monkeypatch.setattr(
            logger.loggers[0].experiment, "add_image", lambda tag, image, dataformats: shown.append((tag, image.shape))
        )
        logger.close()
        names = FaceCorpus(made / "corpus", "validation").names
        assert shown == [(f"faces/{name}", (243, 3 * 224, 3)) for name in names]
        assert not films.exists()  # it shows none
        (tmp_path / "metrics.jsonl").write_text("")
        shutil.copyfile(made / "after" / "config.yaml", tmp_path / "config.yaml")
        for run, config in ((made / "after", {}), (tmp_path, {"logger_films": True})):
            shown.clear()
            make_logger("tensorboard", run, "a", config).close()
            assert shown == []


class TestAtTheEnd:
    @pytest.mark.parametrize(("page", "there"), [("curves", True), ("none", False)])
    def test_of_a_run(self, page: str, there: bool, tmp_path: Path) -> None:
        with RunFolder("a", tmp_path, {"name": "a", "page": page}) as folder:
            folder.rows.append({"loss": 1.0}, iteration=1)
        assert (tmp_path / "a" / "report.html").exists() == there

    def test_it_is_made_again_when_it_is_of_something_else(self, tmp_path: Path) -> None:
        """Of more rows, or another kind of page; not by a whole run that is gone on with."""
        page = tmp_path / "a" / "report.html"

        def run(kind: str, more: bool = False) -> bool:
            """Whether it was written."""
            before = page.read_text() if page.exists() else None
            if before is not None:
                page.write_text("there")
            with RunFolder("a", tmp_path, {"name": "a", "page": kind}, resume=True) as folder:
                if folder.resuming:
                    folder.rows.cut_after(int(folder.load_checkpoint()["iteration"]))
                if more:
                    iteration = len(folder.rows.path.read_text().splitlines()) + 1 if folder.rows.path.exists() else 1
                    folder.rows.append({"loss": 1.0}, iteration=iteration)
                    folder.save_checkpoint("last.pt", {"iteration": iteration})
            return page.read_text() != "there"

        assert run("curves", more=True)
        assert not run("curves") and not run("curves")
        assert run("stills") and not run("stills")
        assert run("stills", more=True) and "2 iterations" in page.read_text()

    def test_the_folder_is_free_after_ctrl_c(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def stopped(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(folder_module, "report_at_end", stopped)
        with pytest.raises(KeyboardInterrupt), RunFolder("a", tmp_path, {"page": "curves"}) as folder:
            folder.rows.append({"loss": 1.0}, iteration=1)
        assert folder._lock is None

    def test_of_a_run_that_fails(self, tmp_path: Path) -> None:
        with pytest.raises(UserError), RunFolder("a", tmp_path, {"name": "a", "page": "curves"}) as folder:
            folder.rows.append({"loss": 1.0}, iteration=1)
            raise UserError("no")
        assert not (tmp_path / "a" / "report.html").exists()

    def test_what_fails_is_a_warning(
        self, made: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object) -> None:
            raise RuntimeError("no such luck")

        monkeypatch.setattr(write, "run_faces", broken)
        (made / "after" / "report.html").unlink(missing_ok=True)
        write.report_at_end(made / "after", "stills")
        assert (
            "RuntimeError: no such luck" in caplog.text
            and "<h1>after</h1>" in (made / "after" / "report.html").read_text()
        )
        (made / "after" / "metrics.jsonl").rename(made / "after" / "gone")
        write.report_at_end(made / "after", "films")
        (made / "after" / "gone").rename(made / "after" / "metrics.jsonl")
        assert "page=curves; UserError" in caplog.text
