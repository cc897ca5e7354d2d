"""What is measured in batches, with a stride or in few styles, against one motion after another."""

from __future__ import annotations

import math

import pytest
import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.data.motion_files import load_motion
from s2f_rl.evaluation import Scorer, evaluate_actor, motions
from s2f_rl.evaluation.score import score_folder
from s2f_rl.models import FaceFormer, MelAudioEncoder
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from s2f_rl.training import Validation
from tests.tiny import make_tiny_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two validation speakers' worth of utterances of unequal lengths and three styles."""
    root = tmp_path_factory.mktemp("together") / "corpus"
    return FaceCorpus(make_tiny_corpus(root, n_subjects=5, n_sentences=4, seconds=(0.5, 1.4)), split="validation")


@pytest.fixture(scope="module")
def reward():
    torch.manual_seed(1)
    return RewardModel(SpeechMeshTransformer(120, width=16, depth=1, n_heads=2), ScoreHead(16, 16, 8)).eval()


@pytest.fixture(scope="module")
def actor(corpus):
    torch.manual_seed(0)
    actor = FaceFormer(MelAudioEncoder(width=16), corpus.n_vertices, feature_dim=16, n_subjects=len(corpus.subjects))
    torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=5e-4)
    return actor.eval()


def means(reward, corpus, index, motion, stride):
    """Every stride-th clip of a motion, scored by itself."""
    features = reward.encode_audio(corpus[index].mel_clips)
    scores = reward.score_batch(motion[None], features[None])
    frames = [t for t in range(len(motion)) if scores["score_mask"][0, t] and (t - 4) % stride == 0]
    return {name: float(scores[name][0, frames].double().mean()) for name in ("lip_score", "real_score")}


@pytest.mark.parametrize(("stride", "styles"), [(1, None), (5, 2), (3, 1)])
def test_rows_are_those_of_single_motions(corpus, reward, actor, stride, styles):
    assert len({corpus.n_frames(i) for i in range(len(corpus))}) > 1
    rows = evaluate_actor(
        actor, corpus, Scorer({"train": reward}, corpus), timing=False, stride=stride, styles=styles, mean=False
    )
    audio, expected = CachedAudio(actor.audio_encoder, corpus), []
    n_styles, turn = len(corpus.subjects), 0
    for i in range(len(corpus)):
        columns = range(n_styles)
        if styles is not None:
            columns, turn = [(turn + k) % n_styles for k in range(styles)], turn + styles
        for column in columns:
            style = torch.eye(n_styles)[None, column]
            with torch.no_grad():
                displacement = actor.decode(actor.generate(audio.get(i)[None], style))[0]
            found = means(reward, corpus, i, displacement + corpus[i].template, stride)
            expected.append((corpus.names[i], corpus.subjects[column], found))
    assert [(row["utterance"], row["condition"]) for row in rows] == [each[:2] for each in expected]
    for row, (_, _, found) in zip(rows, expected, strict=True):
        for name, value in found.items():
            assert row[name] == pytest.approx(value, abs=2e-6)


def test_what_is_scored_at_once_is_bounded(corpus, reward, actor, monkeypatch):
    """Frames, each motion as long as the longest: a long recording is not multiplied by its neighbours."""
    lengths = [corpus.n_frames(i) for i in range(len(corpus))]
    most = 2 * max(lengths)
    monkeypatch.setattr("s2f_rl.evaluation.motions._SCORED_FRAMES", most)
    batches = []

    class Watched(Scorer):
        def scores_together(self, motions, *rest):
            batches.append([vertices.shape[:2] for _, vertices in motions])
            return super().scores_together(motions, *rest)

    rows = evaluate_actor(actor, corpus, Watched({"train": reward}, corpus), conditions=[0], timing=False)
    assert [row["frames"] for row in rows] == [n for batch in batches for _, n in batch] == lengths
    assert 1 < max(map(len, batches)) and len(batches) > 1
    for batch in batches:
        assert max(n for _, n in batch) * sum(k for k, _ in batch) <= most
    batches.clear()
    evaluate_actor(actor, corpus, Watched({"train": reward}, corpus), timing=False, mean=False)
    assert all(len(batch) == 1 for batch in batches)


def test_with_the_mean_over_styles(corpus, reward, actor):
    """Batches hold the means too, and a row's columns are those of its own motion."""
    scorer = Scorer({"train": reward}, corpus)
    rows = evaluate_actor(actor, corpus, scorer)
    assert [row["condition"] for row in rows] == [*corpus.subjects, "mean"] * len(corpus)
    for row in rows[len(corpus.subjects) :: len(corpus.subjects) + 1]:
        assert "diversity_over_styles" in row and not math.isnan(row["plrs"])


@pytest.mark.parametrize("mean", [True, False])
def test_a_long_utterance_is_measured_condition_by_condition(corpus, reward, actor, tmp_path, monkeypatch, mean):
    """Same rows, diversity and files as of all conditions at once, while single motions are held."""
    scorer = Scorer({"train": reward}, corpus)
    monkeypatch.setattr(motions, "WHOLE_S", 100.0)
    expected = evaluate_actor(actor, corpus, scorer, predictions=tmp_path / "whole", mean=mean)
    monkeypatch.setattr(motions, "WHOLE_S", 0.9)
    long = [i for i in range(len(corpus)) if corpus.n_frames(i) > 0.9 * corpus.fps]
    assert 0 < len(long) < len(corpus)
    rows = evaluate_actor(actor, corpus, scorer, predictions=tmp_path / "parts", mean=mean)
    for row, whole in zip(rows, expected, strict=True):
        assert row.keys() == whole.keys()
        for name, value in whole.items():
            same = value if isinstance(value, str) else pytest.approx(value, rel=1e-5, abs=1e-7, nan_ok=True)
            assert row[name] == same, name
    for path in (tmp_path / "whole").iterdir():
        assert abs(load_motion(path) - load_motion(tmp_path / "parts" / path.name)).max() < 1e-7
    audio = CachedAudio(actor.audio_encoder, corpus)
    columns = [range(len(corpus.subjects))] * len(corpus)
    found = [m for batch in motions.motions_together(actor, corpus, audio, columns, mean) for m in batch]
    assert all((len(m.names) == 1) == (m.utterance in long) for m in found)
    assert [m.utterance for m in found if m.last] == list(range(len(corpus)))


def test_validation_is_a_mean_of_its_rows(corpus, reward, actor, tmp_path):
    scorer = Scorer({"train": reward}, corpus)
    few = Validation(actor, corpus, scorer, select="reward", stride=5, styles=2, cache=tmp_path / "cache")
    rows = evaluate_actor(actor, corpus, scorer, timing=False, stride=5, styles=2, mean=False)
    values = few()
    for name in ("lve", "lip_score", "real_score"):
        assert values[name] == pytest.approx(sum(row[name] for row in rows) / len(rows), rel=1e-9)
    assert len(list((tmp_path / "cache").glob("audio-*.npy"))) == len(corpus)


def test_an_encoder_that_trains_leaves_no_files(corpus, actor, tmp_path):
    Validation(actor, corpus, encoder_trains=True, cache=tmp_path / "cache")()
    assert not (tmp_path / "cache").exists()


def test_float16_predictions_score_as_float32_ones(corpus, reward, actor, tmp_path):
    for precision in ("float32", "float16"):
        evaluate_actor(actor, corpus, predictions=tmp_path / precision, precision=precision)
    names = {path.stem for path in (tmp_path / "float32").iterdir()}
    assert names == {path.stem for path in (tmp_path / "float16").iterdir()} and len(names) == 4 * len(corpus)
    for name in names:
        exact, rounded = (load_motion(tmp_path / file) for file in (f"float32/{name}.npy", f"float16/{name}.npz"))
        assert abs(exact - rounded).max() < 4e-6
    tables = [score_folder(tmp_path / f, corpus.root, reward, tmp_path / f"{f}.csv") for f in ("float32", "float16")]
    for one, other in zip(*tables, strict=True):
        assert one["clips"] == other["clips"] and one["lip_score"] == pytest.approx(other["lip_score"], abs=1e-3)
