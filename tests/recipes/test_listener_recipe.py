"""The recogniser's recipe: it learns, goes on after a kill to the same numbers, and is used where it is named."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recipe_tools import load_recipe
from tiny import make_tiny_corpus

from s2f_rl.data.synthetic.phones import PHONES
from s2f_rl.data.synthetic.pretraining import HELD_OUT_VARIANTS, Voices, pretraining_voices, say, text_of
from s2f_rl.data.synthetic.sentences import N_SHARED_POOL, SENTENCES
from s2f_rl.data.synthetic.speech import require_espeak
from s2f_rl.errors import UserError
from s2f_rl.models.recogniser_files import WEIGHTS, about_recogniser
from s2f_rl.runs import read_rows, without_times
from s2f_rl.training import cosine_decay
from s2f_rl.training.spoken import Spoken

TINY = (
    "utterances=4", "iterations=30", "evaluation.every=10", "batch_size=4", "batch_frames=60", "recogniser.width=16",
    "recogniser.n_layers=1", "optimizer.warmup=3", "optimizer.lr=1e-2", "device=cpu", "logger=none", "progress=false",
)  # fmt: skip


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The recipe with two voices, and a single sentence that is unheard."""
    pytest.importorskip("espeakng_loader")
    found = load_recipe("listener")
    module = sys.modules[found.function.__module__]
    hear = module.speak_for
    few = Voices(require_espeak()[1], ["en+m6", "en-us+croak"])
    monkeypatch.setattr(module, "pretraining_voices", lambda *_: nullcontext(few))
    monkeypatch.setattr(module, "unheard", lambda recogniser: hear(recogniser, few, 1, 9))
    return found


def test_learns_and_resumes_to_the_same_numbers(main: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = main.run([f"root={tmp_path}", "name=whole", *TINY])
    rows = [without_times(row) for row in read_rows(tmp_path / "whole" / "metrics.jsonl")]
    assert rows[-1]["loss_phone"] < 0.8 * rows[0]["loss_phone"] and 0 < values["accuracy_speech"] < 1
    about = about_recogniser(tmp_path / "whole")
    assert about["unheard"] == values and about["voices"] == 2 and about["seed"] == 0

    def decay_until_killed(optimizer, settings, iteration, iterations):
        if iteration == 15:
            raise Killed
        return cosine_decay(optimizer, settings, iteration, iterations)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(sys.modules[main.function.__module__], "cosine_decay", decay_until_killed)
        main.run([f"root={tmp_path}", "name=broken", *TINY])
    main.run([f"root={tmp_path}", "name=broken", *TINY, "resume=true"])
    assert [without_times(row) for row in read_rows(tmp_path / "broken" / "metrics.jsonl")] == rows
    assert about_recogniser(tmp_path / "broken")["sha256"] == about["sha256"]

    # an actor on it
    corpus = make_tiny_corpus(tmp_path / "corpus", n_subjects=5)
    small = [f"corpus.root={corpus}", f"root={tmp_path}", "actor=listener", "actor.feature_dim=16",
             "actor.audio.width=8", "iterations=2", "device=cpu", "logger=none", "progress=false"]  # fmt: skip
    load_recipe("supervised").run([*small, f"actor.audio.pretrained={tmp_path / 'whole'}"])
    actor = torch.load(tmp_path / "supervised" / "best.pt", weights_only=True)["actor"]
    assert actor["config"]["audio"]["ear_width"] == 16 and actor["config"]["audio"]["ear_layers"] == 1
    with pytest.raises(UserError, match=WEIGHTS.partition(".")[0]):
        load_recipe("supervised").run([*small, "name=no", f"actor.audio.pretrained={tmp_path / 'nowhere'}"])
    assert not (tmp_path / "no" / "best.pt").exists()


def test_the_neighbours_are_the_phones_before_and_behind(main: Any) -> None:
    """By hand: logits that know the phone five frames on."""
    loss = sys.modules[main.function.__module__].phone_loss
    phones = torch.randint(len(PHONES), (2, 30), generator=torch.Generator().manual_seed(0))
    for offset in (-5, 0, 10):
        logits = torch.zeros(2, 30, len(PHONES), dtype=torch.float64)
        for row in range(2):
            for k in range(30):
                if 0 <= k + offset < 30:
                    logits[row, k, phones[row, k + offset]] = 40.0
        assert float(loss(logits, phones, offset)) < 1e-9


def test_accuracy_counts_frames(main: Any) -> None:
    """One frame of four is wrong, one of two /m b p/."""
    phones = torch.tensor([PHONES.index(name) for name in ("sil", "m", "b", "aa")], dtype=torch.uint8)

    class Told(torch.nn.Module):
        def forward(self, bands):
            right = torch.nn.functional.one_hot(phones.long(), len(PHONES)).float()
            right[2] = right[1]
            return 50 * right[None]

    values = sys.modules[main.function.__module__].accuracy(
        Told(), [Spoken(torch.zeros(4, 2), phones)], torch.device("cpu")
    )
    assert values["accuracy"] == 0.75 and values["accuracy_bilabial"] == 0.5
    assert values["accuracy_speech"] == pytest.approx(2 / 3)


def test_nothing_is_heard_of_the_corpus_beyond_its_training_texts() -> None:
    pytest.importorskip("espeakng_loader")
    rng = np.random.default_rng(0)
    texts = [text_of(rng) for _ in range(400)]
    assert not set(texts) & set(SENTENCES[N_SHARED_POOL:])
    assert 0.25 < np.mean([text in SENTENCES for text in texts]) < 0.45
    with pretraining_voices(200, np.random.default_rng(0)) as voices:
        assert len(voices.names) > 400 and not {name.partition("+")[2] for name in voices.names} & HELD_OUT_VARIANTS
        (one,), (same,) = (say(voices, voices.names[-1], 1, np.random.default_rng(0)) for _ in range(2))
        (other,) = say(voices, voices.names[-9], 1, np.random.default_rng(0))
    assert (one.samples == same.samples).all()
    assert one.samples.shape != other.samples.shape or (one.samples != other.samples).any()
