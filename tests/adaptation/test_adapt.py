"""Recordings in, a tuned actor and its report out: end to end on a tiny corpus, and figure by figure."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from scipy.stats import ttest_rel

from s2f_rl.adaptation import corpus, run, takes
from s2f_rl.adaptation.measure import Change, changes
from s2f_rl.adaptation.report import Page, as_markdown, verdict
from s2f_rl.data import FaceCorpus
from s2f_rl.data.alignment import Phone
from s2f_rl.errors import UserError
from s2f_rl.evaluation.score import score_folder
from s2f_rl.models import FaceFormer, MelAudioEncoder
from s2f_rl.models.checkpoint import load_actor
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from s2f_rl.runs import read_rows, save_checkpoint
from s2f_rl.training import actor_entry
from tests.tiny import make_tiny_corpus

SENTENCES = 5
SETTINGS = ("iterations=2", "lanes=4", "group_size=2", "minibatch_lanes=4", "progress=false", "logger=none", "seed=3")


class Aligner:
    """In place of pocketsphinx, for sounds that nobody speaks: a phone every 80 ms, every third one an m."""

    def __init__(self, pronunciations: object = None) -> None:
        pass

    def align(self, waveform: np.ndarray, rate: int, text: str) -> list[Phone]:
        if text == "nonsense":
            raise UserError("these words are not in the sound")
        starts = np.arange(0, len(waveform) / rate, 0.08)
        return [("m" if k % 3 == 1 else "ah", float(t), float(t) + 0.08) for k, t in enumerate(starts)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``corpus``, ``actor/best.pt``, ``reward``, ``judge``, and ``sounds`` of a voice that is not in the corpus."""
    root = tmp_path_factory.mktemp("bench")
    make_tiny_corpus(root / "corpus", n_subjects=4, n_sentences=3)
    (root / "corpus/landmarks.json").write_text(
        '{"upper_lip": [2], "lower_lip": [10]}'
    )  # not what the lips' shape says
    corpus = FaceCorpus(root / "corpus", split="train")
    torch.manual_seed(0)
    actor = FaceFormer(MelAudioEncoder(width=16), corpus.n_vertices, feature_dim=16, n_subjects=len(corpus.subjects))
    torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=1e-3)
    save_checkpoint(root / "actor/best.pt", {"actor": actor_entry(actor, corpus)})
    for name in ("reward", "judge"):
        RewardModel(SpeechMeshTransformer(120, width=16, depth=1, n_heads=2), ScoreHead(16, 16, 8)).save(root / name)
    voice = make_tiny_corpus(root / "voice", n_subjects=1, n_sentences=SENTENCES, seed=9)
    shutil.move(voice / "wav", root / "sounds")
    words = {path.stem: "words" for path in (root / "sounds").iterdir()}
    (root / "words.json").write_text(json.dumps(words))
    return root


@pytest.fixture
def adapt(bench: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.setattr(takes, "Aligner", Aligner)

    def call(out: Path, *settings: str, sounds: Path = bench / "sounds", **more: object) -> str:
        given = {"film": False, "device": "cpu", **more}
        files = sorted(sounds.iterdir()) if sounds.is_dir() else [sounds]
        return run.adapt(bench / "actor", files, out, bench / "reward", settings=(*SETTINGS, *settings), **given)  # type: ignore

    return call


def sentences(out: Path) -> list[dict[str, str]]:
    with open(out / "sequences.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class TestWhole:
    def test_with_words_and_recordings(self, adapt: Callable[..., str], bench: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        said = adapt(out, text=bench / "words.json", corpus=bench / "corpus", judge=bench / "judge", style="S1")
        train, held = FaceCorpus(out / "corpus", "train"), FaceCorpus(out / "corpus", "held_back")
        assert len(held) == 1 and len(train) == 2 * (SENTENCES - 1)
        assert not {*held.names} & {*train.names, *FaceCorpus(out / "corpus", "validation").names}
        recorded = [i for i in range(len(train)) if train.has_vertices(i)]
        assert len(recorded) == SENTENCES - 1, "as many recordings as there are takes"
        originals = train.metadata["adaptation"]["recordings"]
        source = FaceCorpus(bench / "corpus", "train")
        assert {name.split("_")[0] for name in originals} == {*source.subjects}, "of all speakers"
        for i in recorded:
            one, other = train[i], source[originals[train.names[i]]]
            assert one.vertices is not None and other.vertices is not None and torch.equal(one.vertices, other.vertices)
            assert torch.equal(one.template, other.template) and one.subject == other.subject
        assert train.mesh_identity == source.mesh_identity
        new = [train[i] for i in range(len(train)) if i not in recorded]
        assert {u.subject for u in [*new, held[0]]} == {"S1"} and all(u.phones for u in new)

        rows = sentences(out)
        assert {(r["part"], r["actor"]) for r in rows} == {
            (part, actor) for part in ("adapted", "held_back") for actor in ("before", "after")
        }
        assert len(rows) == 2 * SENTENCES and {"judge_lip_score", "closure_score", "closed_on_bilabials"} <= {*rows[0]}
        page, text = (out / "report.html").read_text(), (out / "report.md").read_text()
        assert (
            said in text
            and "4 recordings of the training speakers" in text
            and "perceptual reward" not in text.split("##")[0]
        )
        assert "http" not in page and page.count("<table>") == 2
        actor, about = load_actor(out / "actor.pt")
        assert list(about["subjects"]) == list(source.subjects) and actor.mesh_identity == source.mesh_identity

    def test_without_words_or_corpus(
        self,
        adapt: Callable[..., str],
        bench: Path,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        films: list[tuple[Any, ...]] = []
        monkeypatch.setattr("s2f_rl.render.render_film", lambda *given, **more: films.append(given))
        out = tmp_path / "out"
        adapt(out, hold_back=0, film=True)
        regions, source = FaceCorpus(out / "corpus").regions, FaceCorpus(bench / "corpus").regions
        assert all(torch.equal(regions[name], source[name]) for name in ("lips", "upper_lip", "lower_lip"))
        config = (out / "run/config.yaml").read_text()
        assert "mode: none" in config and "kind: fixed" in config and "kind: closure" not in config
        text = (out / "report.md").read_text()
        for told in (text, caplog.text):
            assert "perceptual reward alone" in told
        assert "KL to the start alone" in text and "no sentence was held back" in text
        assert {row["part"] for row in sentences(out)} == {"adapted"}
        ((before, after), captions, faces, *_) = films[0]
        assert captions == ["before", "after"] and before.shape == after.shape and not np.array_equal(before, after)
        assert faces is not None and 'src="film.mp4"' in (out / "report.html").read_text()

    def test_held_back_sentences_change_nothing(self, adapt: Callable[..., str], bench: Path, tmp_path: Path) -> None:
        """Other sound under the held-back names: the same actor to the last bit."""
        other = tmp_path / "sounds"
        shutil.copytree(bench / "sounds", other)
        adapt(tmp_path / "one", sounds=other)
        held = FaceCorpus(tmp_path / "one/corpus", "held_back").metadata["adaptation"]["held_back"]
        for name in held.values():
            soundfile.write(other / f"{name}.wav", np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
        adapt(tmp_path / "two", sounds=other)
        one, two = (load_actor(tmp_path / name / "actor.pt")[0].state_dict() for name in ("one", "two"))
        assert all(torch.equal(one[key], two[key]) for key in one)
        start = load_actor(bench / "actor")[0].state_dict()
        moved = {key.split(".")[0] for key in one if not torch.equal(one[key], start[key])}
        assert {"audio_encoder", "decoder"} <= moved

    def test_goes_on_where_it_was_stopped(
        self, adapt: Callable[..., str], bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole, broken = tmp_path / "whole", tmp_path / "broken"
        given = {"text": bench / "words.json", "corpus": bench / "corpus"}
        adapt(whole, **given)

        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        for where in ("write_phones", "atomic_write_json"):  # in the middle of the corpus
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(f"s2f_rl.adaptation.corpus.{where}", stop)
                adapt(broken, **given)
            assert not (broken / "corpus").exists()
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(run, "export_actor", stop)
            adapt(broken, **given)
        rows = (broken / "run/metrics.jsonl").read_text()
        with monkeypatch.context() as patch:
            patch.setattr(run, "read_takes", stop)  # nothing is read or aligned again
            adapt(broken, **given)
        assert (broken / "run/metrics.jsonl").read_text() == rows and len(read_rows(broken / "run/metrics.jsonl")) == 3
        assert sentences(broken) == sentences(whole)
        with pytest.raises(UserError, match="made with another hold_back"):
            adapt(broken, **given, hold_back=2)


class Composed:
    """In place of a recipe: keeps what it is asked for, and ends there."""

    def compose(self, overrides: list[str]) -> None:
        self.overrides = overrides
        raise KeyboardInterrupt


@pytest.mark.parametrize("articulation", [True, False])
@pytest.mark.parametrize("anchored", [True, False])
def test_what_is_asked_of_the_recipe(
    adapt: Callable[..., str], bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, articulation, anchored
) -> None:
    recipe = Composed()
    monkeypatch.setattr(run, "load_recipe", lambda _: recipe)
    with pytest.raises(KeyboardInterrupt):
        adapt(
            tmp_path / "out",
            text=bench / "words.json",
            articulation="density" if articulation else None,
            corpus=bench / "corpus" if anchored else None,
        )
    asked = {*recipe.overrides}
    part = {f"reward.parts.articulation.{each}" for each in ("kind=articulation", "folder=density", "weight=2.0")}
    assert part <= asked if articulation else "reward.parts.closure.kind=closure" in asked
    assert ("supervised=none" in asked) == (not anchored)
    weight = {(True, True): None, (False, True): "2.0"}.get((articulation, anchored), "1.0")
    assert [item for item in asked if item.startswith("policy_weight")] == (
        [f"policy_weight={weight}"] if weight else []
    )
    assert recipe.overrides[-len(SETTINGS) - 1 : -1] == [*SETTINGS], "what a person sets comes last"


class TestFigures:
    def test_against_a_slow_recomputation(self, adapt: Callable[..., str], bench: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        adapt(out, text=bench / "words.json", corpus=bench / "corpus", style="S0")
        corpus = FaceCorpus(out / "corpus", "all")
        upper, lower = (int(corpus.regions[f"{name}_lip"]) for name in ("upper", "lower"))
        for label, checkpoint in (("before", bench / "actor"), ("after", out / "actor.pt")):
            actor, folder = load_actor(checkpoint)[0], tmp_path / label
            folder.mkdir()
            for row in (row for row in sentences(out) if row["actor"] == label):
                said = corpus[row["utterance"]]
                style = torch.eye(len(corpus.subjects))[:1]
                motion = actor.predict(said.waveform[None], said.template[None], style)[0].numpy()
                np.save(folder / f"{row['utterance']}.npy", motion)
                points = motion.astype(np.float64).reshape(len(motion), -1, 3)
                lips = points[:, corpus.regions["lips"].numpy()]
                jerk = lips[3:] - 3 * lips[2:-1] + 3 * lips[1:-2] - lips[:-3]
                spread = [float(((lips[:, v] - lips[:, v].mean(0)) ** 2).sum(-1).mean()) for v in range(lips.shape[1])]
                assert float(row["lip_amplitude_mm"]) == pytest.approx(1e3 * np.mean(spread) ** 0.5, rel=1e-3)
                expected = 1e3 * float((jerk**2).sum(-1).mean()) ** 0.5
                assert float(row["lip_jerk_mm"]) == pytest.approx(expected, rel=1e-2)
                rest = said.template.double().numpy().reshape(-1, 3)
                limit = np.linalg.norm(rest[upper] - rest[lower]) + 0.0005
                closed, elsewhere = [], []
                for t, face in enumerate(points):
                    shut = np.linalg.norm(face[upper] - face[lower]) <= limit
                    inside = any(a <= t / 30 + 5e-7 < b for phone, a, b in said.phones or [] if phone == "m")
                    near = any(a - 0.05 <= t / 30 + 5e-7 < b + 0.05 for p, a, b in said.phones or [] if p == "m")
                    closed += [shut] if inside else []
                    elsewhere += [] if near else [shut]
                assert float(row["closed_on_bilabials"]) == pytest.approx(np.mean(closed), abs=1e-9)
                assert float(row["closed_elsewhere"]) == pytest.approx(
                    np.mean(elsewhere) if elsewhere else np.nan, abs=1e-9, nan_ok=True
                )
            scored = score_folder(folder, out / "corpus", bench / "reward", tmp_path / f"{label}.csv", progress=False)
            found = {row["utterance"]: row for row in sentences(out) if row["actor"] == label}
            for each in scored:
                for name in ("lip_score", "real_score"):
                    assert float(found[str(each["utterance"])][name]) == pytest.approx(each[name], abs=1e-5)

    def test_changes_are_a_paired_t_interval(self) -> None:
        rng = np.random.default_rng(0)
        before, after = rng.normal(size=(2, 6))
        after[5] = np.nan
        rows = [
            {"utterance": f"u{k}", "sentence": "", "part": "adapted", "actor": actor, "x_score": float(values[k])}
            for actor, values in (("before", before), ("after", after))
            for k in range(6)
        ]
        rows += [{**row, "part": "held_back", "utterance": "v"} for row in rows if row["utterance"] == "u0"]
        adapted, held = changes(rows)
        expected = ttest_rel(after[:5], before[:5]).confidence_interval(0.95)
        low, high = adapted.difference - adapted.margin, adapted.difference + adapted.margin
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
        assert adapted.sentences == 5 and adapted.before == pytest.approx(before[:5].mean())
        assert adapted.is_apart_from_zero == bool(expected.low > 0 or expected.high < 0)
        assert np.isnan(held.margin) and not held.is_apart_from_zero and held.difference == after[0] - before[0]


def test_the_verdict_names_what_the_page_shows() -> None:
    def said(*figures: Change) -> str:
        return verdict(Page(figures, frozenset(), [], []))

    shown, hidden = Change("adapted", "a", 5, 1.0, 1.1, 0.01), Change("adapted", "b", 5, 1.0, 1.0001, 0.00001)
    alone = Change("held_back", "a", 1, 1.0, 1.1, float("nan"))
    assert said(shown, hidden, alone) == (
        "On the adapted sentences (5) a rose by 0.100; on the single held-back sentence nothing can be told apart "
        "from zero."
    )
    assert "**" not in as_markdown(Page([hidden], frozenset(), [], [])).split("##")[1]


class TestMistakes:
    @pytest.mark.parametrize(
        "given, told",
        [
            ({"style": "S9"}, "--style S9: unknown; use S0, S1"),
            ({"articulation": "x"}, "--articulation: needs the words"),
            ({"hold_back": SENTENCES}, "--hold-back 5: of 5 sentences"),
            ({"text": "absent.json"}, "absent.json: no such file"),
            ({"corpus": "absent"}, "absent: no such corpus folder"),
        ],
    )
    def test_one_line_and_nothing_written(
        self, adapt: Callable[..., str], tmp_path: Path, given: dict[str, Any], told: str
    ) -> None:
        with pytest.raises(UserError, match=told):
            adapt(tmp_path / "out", **given)
        assert not (tmp_path / "out").exists()

    def test_settings_of_its_own(self, adapt: Callable[..., str], tmp_path: Path) -> None:
        with pytest.raises(UserError, match="start=x: adapt sets this itself"):
            adapt(tmp_path / "out", "start=x")
        with pytest.raises(UserError, match="iterationz"):
            adapt(tmp_path / "out", "iterationz=3")
        assert not (tmp_path / "out").exists()

    def test_words_that_are_not_said(self, adapt: Callable[..., str], bench: Path, tmp_path: Path) -> None:
        words = dict.fromkeys((path.stem for path in (bench / "sounds").iterdir()), "words") | {
            "S0_sentence02": "nonsense"
        }
        (tmp_path / "words.json").write_text(json.dumps(words))
        with pytest.raises(UserError, match=r"S0_sentence02\.wav: these words are not in the sound"):
            adapt(tmp_path / "out", text=tmp_path / "words.json")
        assert not (tmp_path / "out").exists()

    def test_an_actor_of_another_mesh(self, adapt: Callable[..., str], tmp_path: Path) -> None:
        other = make_tiny_corpus(tmp_path / "other", n_vertices=44)
        with pytest.raises(UserError, match="vertices"):
            adapt(tmp_path / "out", corpus=other)
        assert not (tmp_path / "out").exists()

    def test_models_are_looked_at_before_training(self, adapt: Callable[..., str], bench: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="are the same"):
            adapt(tmp_path / "out", judge=bench / "reward")
        assert not (tmp_path / "out/run").exists()

    def test_another_run_in_the_same_folder(self, adapt: Callable[..., str], tmp_path: Path) -> None:
        adapt(tmp_path / "out")
        with pytest.raises(UserError, match=r"seed was 3 and is 4.*choose another --out"):
            adapt(tmp_path / "out", "seed=4")

    def test_a_corpus_that_cannot_be_finished(
        self, adapt: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise UserError("no space")

        monkeypatch.setattr(corpus, "write_wav", full)
        with pytest.raises(UserError, match="no space"):
            adapt(tmp_path / "out")
        assert not [*(tmp_path / "out").iterdir()]

    def test_other_pronunciations(self, adapt: Callable[..., str], bench: Path, tmp_path: Path) -> None:
        more, given = tmp_path / "more.txt", {"text": bench / "words.json", "pronunciations": tmp_path / "more.txt"}
        more.write_text("oboe OW B OW\n")
        adapt(tmp_path / "out", **given)
        more.write_text("oboe OW B UW\n")
        with pytest.raises(UserError, match="made with another pronunciations"):
            adapt(tmp_path / "out", **given)

    def test_a_folder_of_something_else(self, adapt: Callable[..., str], bench: Path, tmp_path: Path) -> None:
        shutil.copytree(bench / "corpus", tmp_path / "out/corpus")
        with pytest.raises(UserError, match="is no corpus of an adaptation"):
            adapt(tmp_path / "out")
