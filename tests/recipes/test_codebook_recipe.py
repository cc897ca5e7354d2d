"""Both stages of CodeTalker from their recipes: they learn, go on after a kill, and refuse what makes no sense."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from coefficient_corpora import make_coefficient_corpus
from config_tools import composed
from recipe_tools import dies_at, load_recipe
from tiny import make_tiny_corpus

from s2f_rl.data import FaceCorpus
from s2f_rl.errors import UserError
from s2f_rl.models.checkpoint import load_actor
from s2f_rl.models.codetalker.codebook import Codebook
from s2f_rl.models.codetalker.codebook_files import TrainedCodebook
from s2f_rl.runs import read_rows, without_times
from s2f_rl.training.codes import Motions, describe

TINY = (
    "codebook_model.width=16", "codebook_model.hidden=16", "codebook_model.n_layers=1", "codebook_model.n_head=2",
    "codebook_model.n_codes=12", "codebook_model.code_width=4", "codebook_model.codes_per_frame=4", "batch_size=2",
    "iterations=30", "evaluation.every=10", "redraw_after=4", "logger=none", "progress=false", "page=none",
    "device=cpu",
)  # fmt: skip
STAGE2 = (
    "actor=codetalker_mel", "actor.feature_dim=16", "actor.n_layers=1", "actor.audio.width=16", "batch_size=2",
    "iterations=8", "evaluation.every=4", "logger=none", "progress=false", "page=none", "device=cpu",
)  # fmt: skip


def stage1(place: Path, name: str, *options: str) -> dict[str, float]:
    given = [f"corpus.root={place / 'corpus'}", f"root={place}", f"name={name}", *TINY, *options]
    return load_recipe("codebook").run(given)


def stage2(place: Path, name: str, *options: str) -> dict[str, float]:
    given = [f"corpus.root={place / 'corpus'}", f"root={place}", f"name={name}", *STAGE2]
    return load_recipe("supervised").run([*given, f"actor.codebook={place / 'whole'}", *options])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("codebook")
    make_tiny_corpus(folder / "corpus", n_subjects=4, n_sentences=3, audio_only=("S0_sentence02",))
    stage1(folder, "whole")
    stage2(folder, "spoken")
    return folder


class TestStage1:
    def test_learns_and_says_so(self, place: Path) -> None:
        rows = read_rows(place / "whole" / "metrics.jsonl")
        first, last = (sum(row["reconstruction_mm"] for row in part) / len(part) for part in (rows[:5], rows[-5:]))
        assert last < 0.8 * first and sum(row["codes_redrawn"] for row in rows) > 0
        trained = TrainedCodebook.load(place / "whole")
        validation = FaceCorpus(place / "corpus", split="validation")
        lips = torch.as_tensor(validation.regions["lips"]).flatten()
        measured = [row for row in rows if "validation/lips_mm" in row]
        best = min(measured, key=lambda row: row["validation/lips_mm"])
        assert trained.about["iteration"] == best["iteration"] and trained.fps == validation.fps
        assert trained.mesh_identity == validation.mesh_identity
        values, counts = describe(trained.codebook, Motions(validation), range(3), 1.0, lips)
        for name in ("reconstruction_mm", "lips_mm", "lve", "perplexity", "codes_used"):
            assert values[name] == pytest.approx(best[f"validation/{name}"], rel=1e-3), name
        assert json.loads((place / "whole" / "codes.json").read_text())["chosen"] == counts.tolist()

    def test_measures_against_loops(self, place: Path) -> None:
        validation = FaceCorpus(place / "corpus", split="validation")
        lips, motions = torch.as_tensor(validation.regions["lips"]).flatten(), Motions(validation)
        torch.manual_seed(0)
        book = Codebook(3 * validation.n_vertices, 8, 8, 1, 2, 5, 4, 2)
        torch.nn.init.normal_(book.codes)
        values, counts = describe(book, motions, [0, 2], 0.01, lips)
        frames, lip_frames, worst, chosen = [], [], [], torch.zeros(2, 5)
        for k in (0, 2):
            codes = book.encode(motions[k] / 0.01)
            apart = (0.01 * book.decode(codes) - motions[k])[0].unflatten(-1, (-1, 3)).norm(dim=-1).detach()
            for frame in apart:
                frames.append(float(frame.mean()))
                lip_frames.append(float(frame[lips].mean()))
                worst.append(float(frame[lips].max()) ** 2)
            for t in range(codes.shape[1]):
                for slot in range(2):
                    chosen[slot, codes[0, t, slot]] += 1
        assert torch.equal(counts, chosen)
        assert values["reconstruction_mm"] == pytest.approx(1e3 * sum(frames) / len(frames), rel=1e-4)
        assert values["lips_mm"] == pytest.approx(1e3 * sum(lip_frames) / len(lip_frames), rel=1e-4)
        assert values["lve"] == pytest.approx(sum(worst) / len(worst), rel=1e-4)
        assert values["codes_used"] == float((chosen.sum(0) > 0).float().mean())

    def test_goes_on_after_a_kill_to_the_same_numbers(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with dies_at(17, monkeypatch):
            stage1(place, "broken")
        stage1(place, "broken", "resume=true")
        rows = [[without_times(r) for r in read_rows(place / name / "metrics.jsonl")] for name in ("whole", "broken")]
        assert rows[0] == rows[1] and len(rows[0]) == 30
        books = [TrainedCodebook.load(place / name).codebook.state_dict() for name in ("whole", "broken")]
        assert all(torch.equal(tensor, books[1][name]) for name, tensor in books[0].items())

    def test_a_picture(self, place: Path) -> None:
        pytest.importorskip("numba")
        stage1(place, "drawn", "iterations=1", "page=stills")
        assert not (place / "whole" / "codes.png").exists()
        image = pytest.importorskip("PIL.Image").open(place / "drawn" / "codes.png")
        assert image.size[0] == 7 * 224 and image.size[1] > 4 * 224

    def test_refusals(self, place: Path, tmp_path: Path) -> None:
        for option, match in (
            ("codebook_model.width=18", "4 codes of 4 numbers make 16"),
            ("codebook_model.n_head=3", "n_head=3: must divide codebook_model.width=16"),
        ):
            with pytest.raises(UserError, match=match):
                stage1(place, "wrong", option)
        make_coefficient_corpus(tmp_path / "corpus")
        with pytest.raises(UserError, match="is animated by coefficients"):
            stage1(tmp_path, "wrong")
        make_tiny_corpus(tmp_path / "sound", audio_only="all")
        with pytest.raises(UserError, match="no utterance has vertices"):
            stage1(place, "wrong", f"corpus.root={tmp_path / 'sound'}")
        assert not (place / "wrong").exists() and not (tmp_path / "wrong").exists()


class TestStage2:
    def test_learns_with_stage_1_as_it_was(self, place: Path) -> None:
        rows = read_rows(place / "spoken" / "metrics.jsonl")
        for row in rows:
            terms = row["loss_position_mm2"] + 10 * row["loss_velocity_mm2"] + row["loss_feature"]
            assert row["loss"] == pytest.approx(terms, rel=1e-5)
        assert rows[-1]["loss_feature"] < rows[0]["loss_feature"] and "validation/lve" in rows[-1]
        book = TrainedCodebook.load(place / "whole").codebook.state_dict()
        for name in ("best.pt", "last.pt"):
            actor = load_actor(place / "spoken" / name)[0]
            assert all(torch.equal(tensor, book[key]) for key, tensor in actor.codebook.state_dict().items())

    def test_goes_on_after_a_kill_to_the_same_numbers(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with dies_at(5, monkeypatch):
            stage2(place, "cut")
        stage2(place, "cut", "resume=true")
        rows = [[without_times(r) for r in read_rows(place / name / "metrics.jsonl")] for name in ("spoken", "cut")]
        assert rows[0] == rows[1] and len(rows[0]) == 8

    def test_another_codebook_does_not_go_on(self, place: Path) -> None:
        stage1(place, "other", "seed=1", "iterations=2")
        stage2(place, "moved", "iterations=1")
        kept = (place / "whole" / "codebook.pt").read_bytes()
        try:
            (place / "whole" / "codebook.pt").write_bytes((place / "other" / "codebook.pt").read_bytes())
            with pytest.raises(UserError, match="actor.codebook=.* has changed"):
                stage2(place, "moved", "iterations=2", "resume=true")
        finally:
            (place / "whole" / "codebook.pt").write_bytes(kept)

    def test_refusals(self, place: Path, tmp_path: Path) -> None:
        make_tiny_corpus(tmp_path / "larger", n_subjects=4, n_vertices=45)
        make_tiny_corpus(tmp_path / "biwi", n_subjects=4, topology="biwi")
        for option, match in (
            ("mode=autoregressive", "an actor of codes learns teacher-forced"),
            (f"actor.codebook={place / 'spoken'}", "codebook.pt: does not exist|no such file"),
            (f"actor.codebook={place / 'spoken' / 'best.pt'}", "holds no codebook"),
            (f"corpus.root={tmp_path / 'larger'}", "is of 40 vertices at 30 fps, the corpus has 45 at 30"),
            (f"corpus.root={tmp_path / 'biwi'}", "is of 40 vertices at 30 fps, the corpus has 40 at 25"),
            ("actor.n_head=3", "actor.n_head=3: must divide actor.feature_dim=16"),
        ):
            with pytest.raises(UserError, match=match) as caught:
                stage2(place, "wrong", option)
            assert "\n" not in str(caught.value)
        assert not (place / "wrong").exists()


@pytest.mark.parametrize(("name", "codes", "width"), [("vocaset", 16, 64), ("biwi", 8, 128)])
def test_the_published_sizes_compose(name: str, codes: int, width: int) -> None:
    model = composed("codebook", f"codebook_model={name}")["codebook_model"]
    with torch.device("meta"):
        book = Codebook(30, **model)
    assert (book.codes.shape, book.codes_per_frame, book.mapped) == ((256, width), codes, name == "biwi")
    assert len(book.encoder.mixer.blocks) == 6 and book.decoder.mixer.blocks[0].n_head == 8
    actor = composed("supervised", "actor=codetalker_wav2vec2", "actor.codebook=x")
    assert (actor["actor"]["feature_dim"], actor["actor"]["n_layers"], actor["mode"]) == (1024, 6, "teacher_forced")
