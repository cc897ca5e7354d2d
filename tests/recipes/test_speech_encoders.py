"""A speech model from a folder through the recipes: supervised training, evaluation, reinforcement learning."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from recipe_tools import load_recipe
from tiny import WAV2VEC2

from s2f_rl.errors import UserError
from s2f_rl.models.checkpoint import load_actor
from s2f_rl.runs import read_rows, without_times


@pytest.fixture
def published(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    transformers.WavLMModel(transformers.WavLMConfig(**WAV2VEC2)).save_pretrained(tmp_path / "wavlm")
    return tmp_path / "wavlm"


@pytest.fixture
def options(workshop: Path, published: Path, tmp_path: Path) -> list[str]:
    return [
        f"corpus.root={workshop / 'corpus'}", f"root={tmp_path}", "actor=speech", f"actor.audio.pretrained={published}",
        "actor.feature_dim=16", "batch_size=2", "iterations=6", "evaluation.every=3", "logger=none", "progress=false",
        "optimizer.lr=1e-3", "ema_decay=0.5",
    ]  # fmt: skip


def test_from_a_folder_to_reinforcement_learning(
    options: list[str], published: Path, rl_overrides: list[str], tmp_path: Path
) -> None:
    load_recipe("supervised").run([*options, "name=start"])
    start, _ = load_actor(tmp_path / "start" / "last.pt")
    before = transformers.WavLMModel.from_pretrained(published).state_dict()
    after = start.audio_encoder.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert start.audio_encoder.kind == "wavlm" and any(name.startswith("encoder.") for name in changed)
    assert not any(name.startswith("feature_extractor.") for name in changed)
    load_recipe("ppo").run(
        [*rl_overrides, f"root={tmp_path}", "name=rl", f"start={tmp_path / 'start'}", "group_size=2",
         f"corpus.cache={tmp_path / 'cache'}", "iterations=1"]
    )  # fmt: skip
    tuned, _ = load_actor(tmp_path / "rl" / "last.pt")
    assert read_rows(tmp_path / "rl" / "metrics.jsonl")[1]["grad_norm_policy"] > 0
    start, _ = load_actor(tmp_path / "start")  # best.pt
    weights = start.audio_encoder.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in tuned.audio_encoder.state_dict().items())


@pytest.mark.parametrize("trains", ["true", "false"])
def test_what_is_kept_changes_no_number(
    trains: str, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory, on disk (written, then read) and, while the encoder trains, without anything kept."""
    runs = {
        "memory": [],
        "written": [f"corpus.cache={tmp_path / 'cache'}"],
        "read": [f"corpus.cache={tmp_path / 'cache'}"],
    }
    for name, more in runs.items():
        load_recipe("supervised").run([*options, f"name={name}", f"train_encoder={trains}", *more])
    if trains == "true":
        monkeypatch.setattr("s2f_rl.models.audio_encoders.SpeechAudioEncoder.front_end", lambda self: None)
        load_recipe("supervised").run([*options, "name=anew"])
    rows = [
        [without_times(row) for row in read_rows(tmp_path / name / "metrics.jsonl")]
        for name in (*runs, *(["anew"] if trains == "true" else []))
    ]
    assert len(rows[0]) == 6 and all(each == rows[0] for each in rows)
    kept = {path.name.split("-")[0] for path in (tmp_path / "cache").iterdir()}
    assert kept == {"front" if trains == "true" else "audio"}


def test_mistakes(options: list[str], workshop: Path, tmp_path: Path) -> None:
    recipe = load_recipe("supervised")
    for more, match in (
        (["actor.audio.pretrained=null"], "actor.audio.pretrained=null: name a folder"),
        (["actor.audio.pretrained=nowhere"], "actor.audio.pretrained=nowhere: no weights"),
        (["actor.audio.kind=hubert"], "holds wavlm, not hubert; set actor.audio.kind=wavlm"),
        (["actor.audio.kind=whisper"], "actor.audio.kind=whisper: use listener or mel or speech or wav2vec2"),
    ):
        with pytest.raises(UserError, match=match):
            recipe.run([*options, "name=bad", *more])
    with pytest.raises(UserError, match="actor.audio.pretrained must be given"):
        recipe.run([f"corpus.root={workshop / 'corpus'}", "actor=speech"])
    assert not (tmp_path / "bad").exists()
