"""The articulation reward from its recipe to RL: it learns, goes on after a kill, and is rewarded beside others."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from recipe_tools import dies_at, load_recipe

from s2f_rl.data import FaceCorpus
from s2f_rl.errors import UserError
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from s2f_rl.rewards.articulation.density_files import TrainedDensity
from s2f_rl.rewards.articulation.likelihood import FORMS, ArticulationReward
from s2f_rl.rewards.articulation.phones import with_mistakes
from s2f_rl.runs import read_rows, without_times
from tests.rewards.articulation.speaking import speaking_corpus

TINY = (
    "width=24", "depth=2", "batch_size=4", "coefficients=3", "evaluation.every=40", "device=cpu", "logger=none",
    "progress=false", "optimizer.lr=1e-2", "mistakes.style_left_out=0.1",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("articulation")
    speaking_corpus(folder / "corpus", n_subjects=4, n_sentences=8)
    train(folder, "whole")
    return folder


def train(place: Path, name: str, *options: str) -> dict[str, float]:
    given = [f"corpus.root={place / 'corpus'}", f"root={place}", f"name={name}", "iterations=120", *TINY, *options]
    return load_recipe("articulation").run(given)


def mean_score(reward: ArticulationReward, utterance, phones) -> float:
    reward.source.of = lambda _: phones  # type: ignore[method-assign]
    there = torch.ones(1, len(utterance.vertices), dtype=torch.bool)
    style = None if utterance.style is None else utterance.style[None]
    found = reward.score_motion(utterance.vertices[None], [reward.prepare(utterance)], there, style=style)
    score, mask = found["articulation_score"]
    return float(score[mask].mean())


@pytest.mark.parametrize("form", FORMS)
def test_truth_scores_above_wrong_phones_and_late_motion(place: Path, form: str) -> None:
    """On a speaker that it has not seen, and more surely the more of the phones are wrong."""
    corpus = FaceCorpus(place / "corpus", split="validation")
    reward = ArticulationReward(corpus, folder=str(place / "whole"), form=form)
    draws, wins = torch.Generator().manual_seed(0), []
    for utterance in corpus:
        right = mean_score(reward, utterance, utterance.phones)
        some, all_ = (
            mean_score(reward, utterance, with_mistakes(utterance.phones, draws, substituted=share))
            for share in (0.3, 1.0)
        )
        late = mean_score(reward, utterance, [(name, max(0, a - 0.1), b - 0.1) for name, a, b in utterance.phones[1:]])
        wins += [right > some, some > all_, right > late]
    assert sum(wins) >= 0.9 * len(wins)
    assert TrainedDensity.load(place / "whole").about["utterances"] == 16


def test_it_knows_the_ways_of_speaking(place: Path) -> None:
    """The second training speaker's motion is .4 wider than the first's."""
    corpus = FaceCorpus(place / "corpus", split="train")
    reward = ArticulationReward(corpus, folder=str(place / "whole"), form="squared_error")
    for utterance in corpus:
        there = torch.ones(2, len(utterance.vertices), dtype=torch.bool)
        both = utterance.vertices.expand(2, -1, -1)
        found = reward.score_motion(both, [reward.prepare(utterance)] * 2, there, style=torch.eye(2))
        first, second = found["articulation_score"][0].mean(1).tolist()
        assert (first > second) == (utterance.subject == "S0")


def test_goes_on_after_a_kill_to_the_same_numbers(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with dies_at(50, monkeypatch):
        train(place, "broken")
    train(place, "broken", "resume=true")
    rows = [[without_times(r) for r in read_rows(place / name / "metrics.jsonl")] for name in ("whole", "broken")]
    assert rows[0] == rows[1] and len(rows[0]) == 120
    hashes = [TrainedDensity.load(place / name).content_hash() for name in ("whole", "broken")]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("rloo", ["group_size=2", "reward.normalise=batch", "reward.cap=truth"]),
        ("gdpo", ["group_size=2", "minibatch_lanes=2"]),
        ("reward_gradient", ["group_size=1"]),
    ],
)
def test_beside_the_perceptual_reward(place: Path, recipe: str, options: list[str]) -> None:
    if not (place / "start").exists():
        torch.manual_seed(0)
        model = RewardModel(SpeechMeshTransformer(120, width=16, depth=1, n_heads=2), ScoreHead(16, 16, 8))
        model.save(place / "reward")
        load_recipe("supervised").run(
            [f"corpus.root={place / 'corpus'}", f"root={place}", "name=start", "iterations=2", "batch_size=2",
             "mode=teacher_forced", "actor.audio.width=16", "actor.feature_dim=16", "logger=none", "progress=false"]
        )  # fmt: skip
    part = f"{{kind: articulation, folder: {place / 'whole'}, form: likelihood, weight: 0.5}}"
    load_recipe(recipe).run(
        [f"corpus.root={place / 'corpus'}", f"root={place}", f"name={recipe}", f"start={place / 'start'}", "lanes=4",
         f"reward.folder={place / 'reward'}", f"reward.parts.articulation={part}", "iterations=2", "style=random",
         "evaluation.every=2", "logger=none", "progress=false", *options]
    )  # fmt: skip
    rows = read_rows(place / recipe / "metrics.jsonl")
    assert all(-40 < row["articulation_score"] < 0 and row["grad_norm_policy"] > 0 for row in rows[1:])
    assert math.isfinite(rows[-1]["validation/articulation_score"])


def test_mistakes_are_told_before_work_begins(place: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent: no such folder of phones.*--out FOLDER"):
        train(place, "none", f"phones={tmp_path / 'absent'}")
    name = FaceCorpus(place / "corpus").names[0]
    (tmp_path / f"{name}.json").write_text(json.dumps([["ʃ", 0, 0.1], ["ø", 0.1, 0.5]]))
    with pytest.raises(UserError, match="most of its phones have names that are not ARPAbet"):
        train(place, "none", f"phones={tmp_path}")
    assert not (place / "none").exists()
