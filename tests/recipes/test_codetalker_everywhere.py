"""What else is done with an actor of codes: controls, takes, evaluation, animation, scores, tuning to a voice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from recipe_tools import load_recipe

from benchmarks import takes
from s2f_rl.adaptation import takes as adaptation_takes
from s2f_rl.adaptation.run import adapt
from s2f_rl.cli import main as command
from s2f_rl.data import FaceCorpus
from s2f_rl.errors import UserError
from s2f_rl.models.checkpoint import load_actor
from s2f_rl.runs import read_rows, save_checkpoint
from s2f_rl.streaming import SpeechStream
from tests.adaptation.test_adapt import Aligner
from tests.small_codetalker import SIZES, small_checkpoint
from tests.tiny import make_tiny_corpus

RECIPES = {
    "rloo": [], "grpo": ["minibatch_lanes=2"], "gdpo": ["minibatch_lanes=2"], "reinforce": [], "a2c": [],
    "ppo": ["minibatch_lanes=2"], "ppo_kl": ["minibatch_lanes=2"], "awr": ["minibatch_lanes=2"],
    "reward_gradient": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def start(workshop: Path) -> Path:
    """A run folder with a random CodeTalker, whose codes follow the sound."""
    corpus = FaceCorpus(workshop / "corpus", split="train")
    folder = workshop / "runs" / "codetalker"
    folder.mkdir()
    save_checkpoint(folder / "best.pt", small_checkpoint(corpus))
    return folder


@pytest.fixture(scope="module")
def tuned(workshop: Path, start: Path) -> Path:
    """A run of reinforcement learning from it."""
    given = [f"corpus.root={workshop / 'corpus'}", f"start={start}", f"reward.folder={workshop / 'reward'}"]
    given += ["iterations=2", "lanes=4", "group_size=2", "evaluation.every=2", "progress=false", "logger=none"]
    load_recipe("rloo").run([*given, f"root={workshop / 'runs'}", "name=codes_rloo", "ema_decay=null"])
    return workshop / "runs" / "codes_rloo"


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_control(recipe: str, rl_overrides: list[str], start: Path, tmp_path: Path) -> None:
    """Not the reward but the recordings train it; stage 1 stays."""
    options = [*rl_overrides, f"start={start}", f"root={tmp_path}", "name=run", "control=true", "iterations=1"]
    load_recipe(recipe).run([*options, "logger=none", *RECIPES[recipe]])
    row = read_rows(tmp_path / "run" / "metrics.jsonl")[-1]
    assert row["loss_policy"] == 0 < row["grad_norm_supervised"] and row["entropy"] > 0
    before, after = (load_actor(path)[0].state_dict() for path in (start, tmp_path / "run" / "last.pt"))
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert "decoder.feature_map.weight" in moved and not any(name.startswith("codebook.") for name in moved)


def test_rows_say_how_it_explores(tuned: Path) -> None:
    row = read_rows(tuned / "metrics.jsonl")[-1]
    assert row["entropy"] == pytest.approx(SIZES["codes_per_frame"] * row["code_entropy"], rel=1e-4)
    assert row["spread_mm"] > 0


def test_evaluated_and_scored(tuned: Path, workshop: Path, tmp_path: Path) -> None:
    given = [f"corpus.root={workshop / 'corpus'}", f"checkpoint={tuned}", f"out={tmp_path / 'evaluation'}"]
    summary = load_recipe("evaluate").run([*given, f"reward_folder={workshop / 'reward'}"])
    assert summary["style_dependent"]["lve"] > 0 and "lip_score" in summary["style_dependent"]
    out, predictions = tmp_path / "scores.csv", tmp_path / "evaluation" / "predictions"
    options = ["--corpus", str(workshop / "corpus"), "--reward", str(workshop / "reward"), "--out", str(out)]
    assert command(["score", str(predictions), *options]) == 0
    assert len(out.read_text().splitlines()) > 1
    page = tmp_path / "page.html"
    file = sorted(predictions.glob("*.npy"))[0]
    sound = workshop / "corpus" / "wav" / f"{file.stem.split('_condition_')[0]}.wav"
    view = ["view", str(file), "--corpus", str(workshop / "corpus"), "--audio", str(sound), "--out", str(page)]
    assert command(view) == 0 and page.stat().st_size > 10_000
    assert command(["report", str(tuned), "--page", "curves"]) == 0
    assert "nats per frame" in (tuned / "report.html").read_text()
    assert command(["export", "--checkpoint", str(tuned), "--out", str(tmp_path / "actor.pt")]) == 0
    ours, theirs = (load_actor(path)[0].state_dict() for path in (tuned, tmp_path / "actor.pt"))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_animated_as_predicted(tuned: Path, workshop: Path, tmp_path: Path) -> None:
    wav, out = workshop / "corpus" / "wav" / "S1_sentence01.wav", tmp_path / "face.npy"
    options = ["--checkpoint", str(tuned), "--out", str(out), "--device", "cpu", "--subject", "S1"]
    assert command(["animate", str(wav), *options]) == 0
    corpus, actor = FaceCorpus(workshop / "corpus", split="train"), load_actor(tuned)[0].eval()
    utterance = corpus["S1_sentence01"]
    with torch.no_grad():
        expected = actor.predict(utterance.waveform[None], utterance.template[None], utterance.style[None])[0]
    np.testing.assert_allclose(np.load(out), expected.numpy(), atol=1e-6)


def test_takes(start: Path, tuned: Path, workshop: Path, tmp_path: Path) -> None:
    """Several of one sentence, by the temperature that the run had, before and after."""
    given = [
        str(workshop / "corpus"),
        str(tmp_path),
        f"--reward={workshop / 'reward'}",
        f"--judge={workshop / 'judge'}",
    ]
    rows = takes.main([*given, f"--checkpoint=start={start}", f"--checkpoint=rloo={tuned}", "--takes=3"])
    assert {row["checkpoint"] for row in rows} == {"start", "rloo"} and all(row["diversity_lips"] > 0 for row in rows)
    corpus = FaceCorpus(workshop / "corpus", split="validation")
    exploration = takes.exploration_of(tuned)
    temperatures = [takes.open_policy(run, corpus, exploration)[1].core.exploration() for run in (start, tuned)]
    assert temperatures[0] == temperatures[1]  # the run's is that of its start


def test_no_stream_of_codes(start: Path, workshop: Path) -> None:
    """Stage 1 sees whole utterances."""
    actor, corpus = load_actor(start)[0].eval(), FaceCorpus(workshop / "corpus", split="train")
    with pytest.raises(UserError, match="codetalker"):
        SpeechStream(actor, corpus[0].template, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("rloo", ["exploration=vertex"], "an actor of kind codetalker draws codes"),
        ("rloo", ["exploration.learn_noise=true"], "an actor of kind codetalker draws codes"),
        ("rloo", ["credit=discounted"], "this actor's frames move those before them too"),
        ("supervised", ["actor=codetalker", "actor.codebook=nowhere"], "nowhere"),
    ],
)
def test_refused(
    recipe: str, options: list[str], message: str, rl_overrides: list[str], start: Path, tmp_path: Path
) -> None:
    of_rl = [*rl_overrides, f"start={start}"] if recipe != "supervised" else rl_overrides[:1]
    with pytest.raises(UserError) as error:
        load_recipe(recipe).run([*of_rl, f"root={tmp_path}", "name=run", "logger=none", *options])
    assert message in str(error.value) and len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_tuned_to_a_voice(start: Path, workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptation_takes, "Aligner", Aligner)
    voice = make_tiny_corpus(tmp_path / "voice", n_subjects=1, n_sentences=3, seed=9)
    files = sorted((voice / "wav").iterdir())
    words = {path.stem: "words" for path in files}
    (tmp_path / "words.json").write_text(json.dumps(words))
    settings = ("iterations=2", "lanes=4", "group_size=2", "minibatch_lanes=4", "progress=false", "logger=none")
    out, more = tmp_path / "adapted", {"film": False, "device": "cpu", "text": str(tmp_path / "words.json")}
    adapt(start, files, out, workshop / "reward", settings=settings, **more)  # type: ignore[arg-type]
    assert load_actor(out / "actor.pt")[0].kind == "codetalker" and (out / "report.html").exists()
    row = read_rows(out / "run" / "metrics.jsonl")[-1]
    assert row["grad_norm_policy"] > 0 and "loss_supervised" not in row  # no recording is near


def test_how_it_explores_is_recorded(tuned: Path) -> None:
    assert json.loads(json.dumps(takes.exploration_of(tuned)))["changed_codes"] == 0.07
