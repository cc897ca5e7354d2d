"""The ``s2f-rl`` command: quick to start, each option where it belongs, mistakes in one line."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s2f_rl import __version__, cli
from s2f_rl.errors import UserError
from tests.tiny import make_tiny_corpus

SETS = ("--set", "a=1", "b=2", "--set", "c=3")


def command(*arguments: object) -> int:
    """Exit code of the command, argparse's own exits included."""
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as leave:
        return int(leave.code or 0)


class TestStart:
    def test_version_and_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert command("--version") == 0
        assert capsys.readouterr().out == f"s2f-rl {__version__}\n"
        assert command("--help") == 0
        shown = capsys.readouterr().out
        for name in (
            "synthesize", "prepare", "check", "corpus", "coefficients", "animate", "score", "render", "view",
            "blendshapes", "convert", "evaluate", "align", "adapt", "recipe", "copy", "report", "info", "completion",
        ):  # fmt: skip
            assert f"\n    {name}" in shown
            assert command(name, "--help") == 0

    @pytest.mark.parametrize(
        "arguments",
        [
            [],
            ["dance"],
            ["check"],
            ["corpus", "new", "out", "--mesh", "a.obj"],
            ["completion", "csh"],
            ["prepare", "imagenet", "a", "b"],
            ["synthesize", "out", "--subjects", "0"],
            ["synthesize", "out", "--seed", "x"],
            ["animate", "a.wav", "--out", "a.mp4"],
            ["score", "meshes", "--reward", "r", "--out", "o.csv"],
            ["score", "meshes", "--corpus", "c", "--wavs", "w", "--reward", "r", "--out", "o.csv"],
            ["align"],
            ["adapt", "actor", "--reward", "r", "--out", "o"],
            ["adapt", "actor", "a.wav", "--out", "o"],
            ["align", "corpus", "--wav", "a.wav", "--text", "words", "--out", "a.json"],
            ["align", "--wav", "a.wav", "--text", "words"],
            ["evaluate", "--checkpoint", "a", "--corpus", "b", "--out", "c", "--conditions", "some"],
        ],
    )
    def test_wrong_options(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert command(*arguments) == 2
        assert "Traceback" not in capsys.readouterr().err


class Recorder:
    """Stands in for a library function: keeps what it was called with, returns or raises what it is told to."""

    def __init__(self, result: Any = None) -> None:
        self.result = result

    def __call__(self, *positional: Any, **named: Any) -> Any:
        self.positional, self.named = positional, named
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recorder]:
    """``library("s2f_rl.data.synthetic", "synthesize")`` replaces one function of the library."""

    def replace(module: str, name: str, result: Any = None) -> Recorder:
        recorder = Recorder(result)
        stand_in = types.ModuleType(module)
        stand_in.__path__ = list(getattr(importlib.import_module(module), "__path__", []))  # its modules stay
        setattr(stand_in, name, recorder)
        monkeypatch.setitem(sys.modules, module, stand_in)
        return recorder

    return replace


def said(stderr: str) -> list[str]:
    """The lines on stderr but for signs of life, which a machine with much else to do gives."""
    return [line for line in stderr.splitlines() if not (line.startswith("INFO ") and line.endswith(" so far"))]


class TestOptionsReachTheLibrary:
    def test_synthesize(self, library: Callable[..., Recorder]) -> None:
        call = library("s2f_rl.data.synthetic", "synthesize")
        sizes = ("--subjects", 4, "--sentences", 3, "--vertices", 200, "--seed", 7)
        assert command("synthesize", "OUT", *sizes, "--motion", "arkit") == 0
        assert call.positional == ("OUT",)
        given = {"subjects": 4, "sentences": 3, "vertices": 200, "seed": 7, "audio_only_subjects": 0}
        assert call.named == given | {"motion": "arkit"}

    def test_synthesize_has_the_defaults_of_the_library(self, library: Callable[..., Recorder]) -> None:
        from s2f_rl.data.synthetic import synthesize

        defaults = {name: parameter.default for name, parameter in inspect.signature(synthesize).parameters.items()}
        call = library("s2f_rl.data.synthetic", "synthesize")
        assert command("synthesize", "OUT") == 0
        assert call.named == {name: defaults[name] for name in call.named}

    def test_animate(self, library: Callable[..., Recorder], capsys: pytest.CaptureFixture[str]) -> None:
        call = library("s2f_rl.evaluation.animate", "animate")
        arguments = ["--checkpoint", "best.pt", "--out", "face.mp4", "--device", "cpu"]
        assert command("animate", "a.wav", *arguments) == 0
        assert call.positional == ("a.wav", "best.pt", "face.mp4")
        named = {"corpus": None, "subject": None, "style": None, "size": 512, "device": "cpu", "coefficients": False}
        assert call.named == (named := named | {"form": None})
        more = ["--corpus", "C", "--subject", "S", "--style", "1", "--size", 64, "--topology", "biwi", "--coefficients"]
        assert command("animate", "a.wav", *arguments, *more) == 0
        own = {"corpus": "C", "subject": "S", "style": "1", "size": 64, "coefficients": True, "topology": "biwi"}
        assert call.named == named | own
        assert capsys.readouterr().out == "face.mp4\n" * 2

    def test_adapt(self, library: Callable[..., Recorder], capsys: pytest.CaptureFixture[str]) -> None:
        call = library("s2f_rl.adaptation.run", "adapt", "Lips rose.")
        assert command("adapt", "A", "a.wav", "b.wav", "--reward", "R", "--out", "O") == 0
        assert capsys.readouterr().out == "Lips rose.\nO/report.html, and the tuned actor in O/actor.pt\n"
        assert call.positional == ("A", ["a.wav", "b.wav"], "O", "R")
        named = ("text", "articulation", "corpus", "style", "hold_back", "judge", "pronunciations", "topology")
        assert call.named == {**dict.fromkeys(named), "film": True, "retime": False, "settings": [], "device": "auto"}
        more = ["--text", "t", "--articulation", "p", "--corpus", "C", "--style", "S", "--hold-back", 3, "--retime"]
        more += ["--judge", "J", "--words", "w", "--no-film", "--topology", "biwi", "--device", "cpu"]
        assert command("adapt", "A", "a.wav", "--reward", "R", "--out", "O", *more, *SETS) == 0
        values = ("t", "p", "C", "S", 3, "J", "w", "biwi")
        rest = {"film": False, "retime": True, "settings": ["a=1", "b=2", "c=3"], "device": "cpu"}
        assert call.named == dict(zip(named, values, strict=True)) | rest

    def test_score(self, library: Callable[..., Recorder], capsys: pytest.CaptureFixture[str]) -> None:
        call = library("s2f_rl.evaluation.score", "score_folder", [{}, {}])
        arguments = ["--corpus", "C", "--reward", "R", "--out", "s.csv", "--device", "cpu"]
        assert command("score", "folder", *arguments) == 0
        assert call.positional == ("folder", "C", "R", "s.csv")
        assert command("score", "a.npy", "b.npy", *arguments) == 0
        assert call.positional[0] == ["a.npy", "b.npy"]
        assert "s.csv: 2 sequences scored" in capsys.readouterr().out

    def test_render(self, library: Callable[..., Recorder]) -> None:
        call = library("s2f_rl.render", "cli_render")
        arguments = ["--corpus", "C", "--audio", "a.wav", "--out", "film.mp4"]
        assert command("render", "a.npy", "b.npy", *arguments, "--captions", "truth", "ppo", "--curves") == 0
        assert call.positional == (["a.npy", "b.npy"], "C", "a.wav", "film.mp4")
        assert call.named == {"captions": ["truth", "ppo"], "size": 512, "curves": True}
        assert command("render", "a.npy", "--corpus", "C", "--out", "film.mp4", "--topology", "biwi") == 0
        assert call.positional == (["a.npy"], "C", None, "film.mp4")
        assert call.named == {"captions": None, "size": 512, "curves": False, "topology": "biwi"}

    def test_evaluate(self, library: Callable[..., Recorder], capsys: pytest.CaptureFixture[str]) -> None:
        call = library("s2f_rl.evaluation", "evaluate_checkpoint", {"style_dependent": {"lve_mm2": 1.25}})
        arguments = ["--checkpoint", "best.pt", "--corpus", "C", "--out", "E", "--device", "cpu"]
        assert command("evaluate", *arguments, "--reward", "R", "--judge", "J", "--conditions", "0,2") == 0
        assert call.positional == ("best.pt", "C", "E")
        assert call.named == {
            "split": "test",
            "reward": "R",
            "judge": "J",
            "conditions": [0, 2],
            "save_predictions": True,
            "device": "cpu",
            "rows_format": "csv",
            "true_distance": "false",
            "measures": [],
            "predictions": "float32",
            "cache": None,
        }
        shown = capsys.readouterr().out.split()
        assert shown[:3] == ["style_dependent", "lve_mm2", "1.25"]
        assert command("evaluate", *arguments, "--no-predictions", "--split", "all") == 0
        assert call.named["save_predictions"] is False and call.named["split"] == "all"

    def test_export(self, library: Callable[..., Recorder], capsys: pytest.CaptureFixture[str]) -> None:
        call = library("s2f_rl.models.checkpoint", "export_actor", "actor.pt")
        assert command("export", "--checkpoint", "run", "--out", "actor.pt") == 0
        assert call.positional == ("run", "actor.pt") and capsys.readouterr().out == "actor.pt\n"


class TestMistakes:
    def test_one_line(self, library: Callable[..., Recorder], capsys: pytest.CaptureFixture[str]) -> None:
        mistakes = {
            UserError("wav/a.wav: no such file;\n check the path"): "wav/a.wav: no such file; check the path",
            PermissionError(13, "Permission denied", "OUT"): "OUT: Permission denied; check the permissions or choose "
            "another place",
            OSError(28, "No space left on device"): "No space left on device; free some space or choose another disk",
        }
        for error, expected in mistakes.items():
            library("s2f_rl.data.synthetic", "synthesize", error)
            assert command("synthesize", "OUT") == 2
            seen = capsys.readouterr()
            assert (seen.out, seen.err) == ("", f"error: {expected}\n")
            for arguments in (["--debug", "synthesize", "OUT"], ["synthesize", "OUT", "--debug"]):
                assert command(*arguments) == 2
                assert "Traceback" in capsys.readouterr().err

    def test_a_bug_keeps_its_traceback(self, library: Callable[..., Recorder]) -> None:
        library("s2f_rl.data.synthetic", "synthesize", ZeroDivisionError("a bug"))
        with pytest.raises(ZeroDivisionError):
            command("synthesize", "OUT")

    def test_ctrl_c(self, library: Callable[..., Recorder], capsys: pytest.CaptureFixture[str]) -> None:
        library("s2f_rl.data.synthetic", "synthesize", KeyboardInterrupt())
        assert command("synthesize", "OUT") == 130
        assert capsys.readouterr().err == "error: stopped by Ctrl-C\n"

    def test_unknown_device(self, library: Callable[..., Recorder], capsys: pytest.CaptureFixture[str]) -> None:
        library("s2f_rl.evaluation.score", "score_folder", [])
        arguments = ["--corpus", "C", "--reward", "R", "--out", "s.csv"]
        assert command("score", "M", *arguments, "--device", "gpu") == 2
        assert "device=gpu" in capsys.readouterr().err

    def test_debug_shows_the_traceback_and_keeps_the_code(self, tmp_path: Path) -> None:
        for flags, expected in (([], False), (["--debug"], True)):
            done = subprocess.run(
                [sys.executable, "-m", "s2f_rl.cli", "check", str(tmp_path / "absent"), *flags],
                capture_output=True,
                text=True,
            )
            assert done.returncode == 2
            assert ("Traceback" in done.stderr) == expected
            assert len(said(done.stderr)) == 1 or expected


class TestCheck:
    def test_a_sound_corpus(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        root = make_tiny_corpus(tmp_path / "corpus")
        assert command("check", root) == 0
        assert capsys.readouterr().out

    def test_every_fault_at_once(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        root = make_tiny_corpus(tmp_path / "corpus")
        names = sorted(path.stem for path in (root / "vertices_npy").iterdir())
        (root / "vertices_npy" / f"{names[0]}.npy").write_bytes(b"not an array")
        (root / "wav" / f"{names[1]}.wav").write_bytes(b"")
        assert command("check", root) == 1
        shown = capsys.readouterr().out
        assert names[0] in shown and names[1] in shown

    def test_no_corpus(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert command("check", tmp_path / "absent") == 2
        assert len(capsys.readouterr().err.splitlines()) == 1

    def test_the_reader_of_a_pipe_goes_away(self, tmp_path: Path) -> None:
        root = make_tiny_corpus(tmp_path / "corpus")
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [sys.executable, "-m", "s2f_rl.cli", "check", str(root)], stdout=writer, stderr=subprocess.PIPE, text=True
        )
        os.close(writer)
        assert (done.returncode, said(done.stderr)) == (141, [])


class TestPrepare:
    def test_a_missing_download(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for dataset in ("vocaset", "biwi"):
            assert command("prepare", dataset, tmp_path / "raw", tmp_path / "out") == 2
            error = capsys.readouterr().err
            assert len(error.splitlines()) == 1 and "raw" in error


class TestSynthesize:
    def test_writes_a_corpus_that_passes_the_check(self, tmp_path: Path) -> None:
        pytest.importorskip("espeakng_loader")
        out = tmp_path / "corpus"
        assert command("synthesize", out, "--subjects", 3, "--sentences", 1, "--vertices", 300) == 0
        assert json.loads((out / "corpus.json").read_text())["dataset"] == "synthetic"
        assert command("check", out) == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, an actor and a reward model, untrained but whole."""
    import torch

    from s2f_rl.data import FaceCorpus
    from s2f_rl.models import FaceFormer, MelAudioEncoder
    from s2f_rl.models.checkpoint import actor_payload
    from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
    from s2f_rl.runs import save_checkpoint

    folder = tmp_path_factory.mktemp("trained")
    corpus = FaceCorpus(make_tiny_corpus(folder / "corpus"), split="train")
    torch.manual_seed(0)
    actor = FaceFormer(MelAudioEncoder(width=8), corpus.n_vertices, feature_dim=16, n_subjects=len(corpus.subjects))
    save_checkpoint(folder / "best.pt", {"actor": actor_payload(actor, list(corpus.subjects))})
    backbone = SpeechMeshTransformer(3 * corpus.n_vertices, width=16, depth=1, n_heads=2)
    RewardModel(backbone, ScoreHead(16, 16, hidden=8)).save(folder / "reward")
    return folder


class TestWholePath:
    def test_evaluate_score_and_render(self, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        corpus, reward, out = trained / "corpus", trained / "reward", tmp_path / "evaluation"
        where = ["--corpus", corpus, "--device", "cpu"]
        assert command("evaluate", "--checkpoint", trained / "best.pt", *where, "--out", out, "--reward", reward) == 0
        assert "summary.json" in capsys.readouterr().out
        written = sorted(path.name for path in (out / "predictions").iterdir())
        assert "S2_sentence01_condition_S0.npy" in written and "S2_sentence01_condition_mean.npy" in written

        scores = tmp_path / "scores.csv"
        assert command("score", out / "predictions", *where, "--reward", reward, "--out", scores) == 0
        assert len(scores.read_text().splitlines()) == 1 + len(written)

        wavs = ["--wavs", corpus / "wav", "--device", "cpu", "--reward", reward, "--out", tmp_path / "wavs.csv"]
        assert command("score", out / "predictions", *wavs) == 0
        names = [line.split(",")[:2] for line in scores.read_text().splitlines()]
        assert [line.split(",")[:2] for line in (tmp_path / "wavs.csv").read_text().splitlines()] == names

        film = tmp_path / "film.mp4"
        meshes = [out / "predictions" / written[0], corpus / "vertices_npy" / "S2_sentence01.npy"]
        sound = ["--audio", corpus / "wav" / "S2_sentence01.wav", "--out", film, "--size", 64]
        assert command("render", *meshes, "--corpus", corpus, *sound) == 0
        assert film.stat().st_size > 1000

    def test_align(self, trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        from s2f_rl.data import alignment

        class OneWord:
            def __init__(self, pronunciations: object) -> None:
                pass

            def align(self, waveform: object, rate: int, text: str) -> list[tuple[str, float, float]]:
                if text == "hello":
                    return [("hh", 0.0, 0.1)]
                raise UserError(f"the dictionary lacks {text!r}")

        monkeypatch.setattr(alignment, "Aligner", OneWord)
        text = trained / "words.txt"
        text.write_text("S0_sentence01\thello\nS1_sentence01\txyzzy\n")
        assert command("align", trained / "corpus", "--text", text) == 1
        shown = capsys.readouterr().out
        assert "S1_sentence01: the dictionary lacks 'xyzzy'" in shown and "1 aligned, 0 had timings" in shown
        assert command("align", trained / "corpus", "--text", text, "--out", trained / "beside") == 1
        assert json.loads((trained / "beside" / "S0_sentence01.json").read_text()) == [["hh", 0.0, 0.1]]
        wav, out = trained / "corpus" / "wav" / "S0_sentence01.wav", trained / "one.json"
        assert command("align", "--wav", wav, "--text", "hello", "--out", out) == 0
        assert json.loads(out.read_text()) == [["hh", 0.0, 0.1]]
        assert command("align", "--wav", wav, "--text", "xyzzy", "--out", out) == 2

    def test_animate(self, trained: Path, tmp_path: Path) -> None:
        speech = trained / "corpus" / "wav" / "S1_sentence01.wav"
        arguments = ["--checkpoint", trained / "best.pt", "--corpus", trained / "corpus", "--device", "cpu"]
        for name in ("face.npy", "face.mp4"):
            assert command("animate", speech, *arguments, "--out", tmp_path / name, "--size", 64) == 0
            assert (tmp_path / name).stat().st_size > 1000

    def test_mistakes_name_the_file(self, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        speech, corpus, checkpoint = (
            trained / "corpus" / "wav" / "S1_sentence01.wav",
            trained / "corpus",
            trained / "best.pt",
        )
        empty, text = tmp_path / "empty.wav", tmp_path / "text.pt"
        empty.write_bytes(b"")
        text.write_text("hello")
        out = ["--out", tmp_path / "face.npy", "--device", "cpu"]
        cases = {
            "absent.wav": ["animate", "absent.wav", "--checkpoint", checkpoint, "--corpus", corpus, *out],
            "empty.wav": ["animate", empty, "--checkpoint", checkpoint, "--corpus", corpus, *out],
            "text.pt": ["animate", speech, "--checkpoint", text, "--corpus", corpus, *out],
            "nobody": ["animate", speech, "--checkpoint", checkpoint, "--corpus", corpus, "--subject", "nobody", *out],
            "absent_reward": ["score", corpus / "vertices_npy", "--corpus", corpus, "--reward", "absent_reward", *out],
            "absent_corpus": ["evaluate", "--checkpoint", checkpoint, "--corpus", "absent_corpus", *out],
            "absent.npy": ["render", "absent.npy", "--corpus", corpus, "--out", tmp_path / "film.mp4"],
        }
        for named, arguments in cases.items():
            assert command(*arguments) == 2, named
            error = capsys.readouterr().err
            assert len(error.splitlines()) == 1 and named in error, error
