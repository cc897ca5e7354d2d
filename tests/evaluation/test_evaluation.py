"""Predictions, rows and scores against one-by-one computation."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import make_tiny_corpus

from s2f_rl import metrics
from s2f_rl.data import FaceCorpus
from s2f_rl.data.glb_files import read_glb
from s2f_rl.errors import NotFinite, UserError
from s2f_rl.evaluation import (
    Scorer,
    counts,
    evaluate_actor,
    evaluate_truth,
    motion_measures,
    predict_corpus,
    summarise,
    write_report,
)
from s2f_rl.evaluation.animate import animate
from s2f_rl.evaluation.evaluate import predict_own_styles
from s2f_rl.evaluation.score import score_folder
from s2f_rl.evaluation.summary import described, told
from s2f_rl.models import FaceFormer, MelAudioEncoder, windowed_audio
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.render import corpus_look, render_film
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from s2f_rl.training import actor_entry


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    torch.manual_seed(0)
    reward = RewardModel(SpeechMeshTransformer(120, width=16, depth=1, n_heads=2), ScoreHead(16, 16, 8))
    reward.save(folder / "reward")
    return make_tiny_corpus(folder / "corpus", n_subjects=4, n_sentences=2).parent


@pytest.fixture
def corpus(root):
    return FaceCorpus(root / "corpus", split="all")


@pytest.fixture
def actor():
    torch.manual_seed(1)
    model = FaceFormer(MelAudioEncoder(width=12), 40, feature_dim=16, n_subjects=2).eval()
    torch.nn.init.normal_(model.decoder.vertice_map_r.weight, std=1e-3)
    return model


def test_predictions_equal_predict(actor, corpus):
    """Batched and padded over utterances and styles, every motion is what ``predict`` gives alone."""
    audio = CachedAudio(actor.audio_encoder, corpus)
    found = list(predict_corpus(actor, audio, [3, 0, 5], [[0, 1], [1], [0, 1]], max_lanes=3))
    assert [(p.utterance, p.styles) for p in found] == [(3, (0, 1)), (0, (1,)), (5, (0, 1))]
    for p in found:
        u = corpus[p.utterance]
        for k, column in enumerate(p.styles):
            alone = actor.predict(u.waveform[None], u.template[None], torch.eye(2)[column : column + 1])[0]
            ours = p.displacement[k] + u.template
            assert len(ours) == corpus.n_frames(p.utterance)
            torch.testing.assert_close(ours, alone[: len(ours)], atol=1e-6, rtol=1e-5)


def test_own_styles(actor, root, tmp_path):
    """Every recorded training utterance once, in its speaker's style; what is there stays."""
    train = FaceCorpus(root / "corpus", split="train")
    folder = predict_own_styles(actor, train, tmp_path / "samples")
    assert {f.name for f in folder.iterdir()} == {f"{n}_condition_{n[:2]}.npy" for n in train.names}
    for i, name in enumerate(train.names):
        u = train[i]
        style = torch.eye(2)[train.subjects.index(u.subject)]
        alone = actor.predict(u.waveform[None], u.template[None], style[None])[0][: train.n_frames(i)]
        found = torch.from_numpy(np.load(folder / f"{name}_condition_{u.subject}.npy"))
        torch.testing.assert_close(found, alone, atol=1e-6, rtol=1e-5)
    kept, again = sorted(folder.iterdir())[:2]
    np.save(kept, np.zeros(3))
    before = again.read_bytes()
    again.unlink()
    predict_own_styles(actor, train, folder)
    assert again.read_bytes() == before and np.load(kept).shape == (3,)
    other = FaceFormer(MelAudioEncoder(width=12), 40, feature_dim=16, n_subjects=3).eval()
    with pytest.raises(UserError, match="3 styles"):
        predict_own_styles(other, train, folder)


def test_rows(actor, corpus, root):
    reward = RewardModel.load(root / "reward")
    rows = evaluate_actor(actor, corpus, Scorer({"train": reward}, corpus))
    assert len(rows) == len(corpus) * 3
    for row in rows[:6]:
        u = corpus[row["utterance"]]
        styles = torch.eye(2) if row["condition"] == "mean" else torch.eye(2)[[corpus.subjects.index(row["condition"])]]
        motion = actor.predict(u.waveform.expand(len(styles), -1), u.template.expand(len(styles), -1), styles).mean(0)
        motion = motion[: len(u.vertices)]
        assert row["lve"] == pytest.approx(
            float(metrics.lip_vertex_error(motion, u.vertices, corpus.regions["lips"])), rel=1e-4
        )
        assert row["mve"] == pytest.approx(float(metrics.max_vertex_error(motion, u.vertices)), rel=1e-4)
        score = reward.score(motion, u.mel_clips)
        assert row["lip_score"] == pytest.approx(float(score["lip_score"][score["score_mask"]].mean()), abs=1e-5)
    own = evaluate_actor(actor, corpus, conditions="own")
    assert [r["condition"] for r in own if r["subject"] == "S1"] == ["S1"] * 2
    with pytest.raises(UserError, match="conditions"):
        evaluate_actor(actor, corpus, conditions=[7])


def test_truth_is_perfect(corpus):
    rows = evaluate_truth(corpus)
    assert all(r["lve"] == 0 and r["fdd"] == 0 and r["amplitude_ratio"] == pytest.approx(1) for r in rows)


def test_summary_leaves_nan_out():
    rows = [{"lve": 1.0, "fdd": -1.0, "mtm": math.nan}, {"lve": 3.0, "fdd": 3.0, "mtm": 2.0, "name": "x"}]
    assert summarise(rows) == {"lve": 2.0, "fdd": 1.0, "fdd_abs": 2.0, "mtm": 2.0}
    with pytest.raises(NotFinite, match="lve is infinite"):
        summarise([*rows, {"lve": math.inf}])


def test_what_was_left_out_is_counted():
    values = {"a": [1.0, math.nan], "b": [math.nan, math.nan], "c": [None, None], "d": [1.0, 2.0]}
    rows = [
        {"utterance": name, "frames": 9, **({} if value is None else {"mtm": value, "fdd": 0.5})}
        for name, own in values.items()
        for value in own
    ]
    found = counts(rows)
    assert found.keys() == {"mtm", "fdd", "fdd_abs"}
    assert found["mtm"] == {
        "utterances": 2, "utterances_not_measured": 2, "sequences": 3, "sequences_not_measured": 5,
    }  # fmt: skip
    assert found["fdd_abs"] == {
        "utterances": 3, "utterances_not_measured": 1, "sequences": 6, "sequences_not_measured": 2,
    }  # fmt: skip
    assert told(found["mtm"]) == "2 utterances, 5 of 8 sequences not measured"
    lips = {"a": (1.0, 2.0, 2.5, math.nan), "alone": (3.0,)}
    both = [
        {"utterance": f"{who}{k}", "subject": who, "speech_intensity": 1.0 + k, "lip_intensity": x}
        for who, own in lips.items()
        for k, x in enumerate(own)
    ]
    assert (counts(both)["slcc"]["sequences"], counts(both)["slcc"]["utterances_not_measured"]) == (3, 2)
    assert counts(both[1:])["slcc"]["sequences"] == 0  # two are no correlation
    summary = {
        "style_dependent": {"lve": 0.5},
        "counts": {"style_dependent": {"lve": found["mtm"], "mtm": found["mtm"]}},
    }
    (lve, mtm) = described(summary, "style_dependent")
    assert lve == ("lve", 0.5, told(found["mtm"])) and mtm[0] == "mtm" and math.isnan(mtm[1])


def test_every_value_says_over_how_many_it_is(corpus, tmp_path):
    """A face that never moves: what it has no value for is counted, and its ratios are what they are."""
    frozen = FaceFormer(MelAudioEncoder(width=12), 40, feature_dim=16, n_subjects=2).eval()  # a fresh output map is 0
    rows = evaluate_actor(frozen, corpus, conditions=[0])
    summary = write_report(tmp_path, rows, corpus, None, {})["style_dependent"]
    counted = json.loads((tmp_path / "summary.json").read_text())["counts"]["style_dependent"]
    for column in ("lve", "amplitude_ratio", "jitter_ratio", "lip_intensity_ratio"):
        assert counted[column]["sequences"] == len(corpus) and counted[column]["sequences_not_measured"] == 0
    assert summary["amplitude_ratio"] == summary["jitter_ratio"] == summary["lip_intensity_ratio"] == 0
    for column in ("lag_ms", "mtm", "slcc_within"):
        assert column not in summary
        assert counted[column]["utterances"] == 0 and counted[column]["utterances_not_measured"] == len(corpus)


def test_a_prediction_that_is_not_finite_is_an_error(actor, corpus, root):
    with torch.no_grad():
        actor.decoder.vertice_map_r.bias[3] = math.nan
    with pytest.raises(NotFinite, match=f"{corpus.names[0]}: the predicted motion is not finite"):
        evaluate_actor(actor, corpus)


def test_a_score_that_is_not_finite_is_an_error(corpus, root):
    reward = RewardModel.load(root / "reward")
    with torch.no_grad():
        reward.head.real.bias.fill_(math.nan)
    with pytest.raises(NotFinite, match="reward model 'train': its real_score is not finite"):
        evaluate_truth(corpus, Scorer({"train": reward}, corpus))


def test_a_truth_that_does_not_move_gives_no_ratio(corpus):
    u = corpus[0]
    still = SimpleNamespace(name="S0", template=u.template, vertices=u.template.expand_as(u.vertices), phones=None)
    (row,) = motion_measures(u.vertices[None], still, corpus.regions, corpus.fps)
    for column in ("amplitude_ratio", "jitter_ratio", "lip_intensity_ratio", "lag_ms", "mtm"):
        assert math.isnan(row[column]), column
    assert row["lip_intensity"] > 0 and row["lve"] > 0


def test_a_truth_that_is_not_finite_is_an_error(corpus):
    utterance = corpus[0]
    broken = SimpleNamespace(name="S0", template=utterance.template, vertices=utterance.vertices.clone(), phones=None)
    broken.vertices[2, 5] = math.nan
    with pytest.raises(UserError, match="S0: its vertices hold NaN"):
        motion_measures(utterance.vertices[None], broken, corpus.regions, corpus.fps)


class TestScoreFolder:
    def test_against_one_by_one(self, corpus, root, tmp_path):
        reward = RewardModel.load(root / "reward")
        rng = np.random.default_rng(0)
        lengths = {"S0_sentence01_condition_S1": 17, "S1_sentence02": 40, "S2_sentence01_condition_mean": 3}
        for k, (name, n) in enumerate(lengths.items()):
            motion = corpus[name.split("_condition_")[0]].template.numpy() + rng.normal(0, 1e-3, (n, 120))
            motion = motion.astype(np.float32)
            np.save(tmp_path / f"{name}.npy", motion.reshape(n, 40, 3) if k else motion)
        rows = score_folder(tmp_path, root / "corpus", root / "reward", tmp_path / "out.csv", batch=2, progress=False)
        assert [r["file"] for r in rows] == sorted(f"{n}.npy" for n in lengths)
        for row in rows:
            u = corpus[row["utterance"]]
            score = reward.score(np.load(tmp_path / row["file"]), u.mel_clips)
            mask = score["score_mask"]
            assert row["clips"] == int(mask.sum())
            if row["clips"]:
                for key in ("lip_score", "real_score"):
                    assert row[key] == pytest.approx(float(score[key][mask].mean()), abs=1e-5)
            else:
                assert math.isnan(row["lip_score"])
        with open(tmp_path / "out.csv", newline="") as file:
            assert list(next(csv.reader(file))) == ["file", "utterance", "lip_score", "real_score", "value", "clips"]

    def test_broken_motions(self, corpus, root, tmp_path):
        motion = corpus["S0_sentence01"].vertices.numpy().copy()
        motion[10, 3] = np.nan
        np.save(tmp_path / "S0_sentence01.npy", motion)
        (row,) = score_folder(tmp_path, root / "corpus", root / "reward", tmp_path / "o.csv", progress=False)
        assert row["clips"] == len(motion) - 4 - 5 and math.isfinite(row["real_score"])
        for name, array, message in (
            ("S9_sentence01", motion, "no utterance 'S9_sentence01'"),
            ("S0_sentence02", motion[:, :60], "expected"),
        ):
            np.save(tmp_path / f"{name}.npy", array)
            with pytest.raises(UserError, match=message):
                score_folder(tmp_path, root / "corpus", root / "reward", tmp_path / "o.csv", progress=False)
            (tmp_path / f"{name}.npy").unlink()
        with pytest.raises(UserError, match="nowhere"):
            score_folder("nowhere", root / "corpus", root / "reward", tmp_path / "o.csv")


def pictures(film: Path) -> np.ndarray:
    """Frames [T, height, width, 3] of a film, 0 to 255."""
    import av

    with av.open(str(film)) as opened:
        return np.stack([frame.to_ndarray(format="rgb24").astype(float) for frame in opened.decode(video=0)])


class TestAnimate:
    @pytest.fixture
    def checkpoint(self, actor, corpus, tmp_path):
        torch.save({"actor": actor_entry(actor, corpus)}, tmp_path / "best.pt")
        return tmp_path / "best.pt"

    def test_vertices(self, actor, corpus, root, checkpoint, tmp_path):
        u = corpus["S1_sentence01"]
        out = animate(root / "corpus" / "wav" / "S1_sentence01.wav", checkpoint, tmp_path / "a.npy", subject="S1")
        expected = actor.predict(u.waveform[None], u.template[None], torch.eye(2)[1:2])[0]
        np.testing.assert_allclose(np.load(out), expected.numpy(), atol=1e-6)
        other = animate(root / "corpus" / "wav" / "S1_sentence01.wav", checkpoint, tmp_path / "b.npy",
                        corpus=root / "corpus", subject="S3", style="S0")  # fmt: skip
        expected = actor.predict(u.waveform[None], corpus.template("S3")[None], torch.eye(2)[:1])[0]
        np.testing.assert_allclose(np.load(other), expected.numpy(), atol=1e-6)

    def test_scenes(self, corpus, root, checkpoint, tmp_path):
        usd, geom = pytest.importorskip("pxr.Usd"), pytest.importorskip("pxr.UsdGeom")
        wav = root / "corpus" / "wav" / "S1_sentence01.wav"
        expected = np.load(animate(wav, checkpoint, tmp_path / "a.npy", subject="S1")).reshape(-1, corpus.n_vertices, 3)
        stage = usd.Stage.Open(str(animate(wav, checkpoint, tmp_path / "a.usdc", subject="S1")))
        points = geom.Mesh(stage.GetPrimAtPath("/Face/Mesh")).GetPointsAttr()
        for t, frame in enumerate(expected):
            np.testing.assert_allclose(points.Get(t), frame, atol=1e-6)
        assert stage.GetTimeCodesPerSecond() == corpus.fps and len(points.GetTimeSamples()) == len(expected)
        assert stage.GetPrimAtPath("/Face/Sound")
        (mesh,) = read_glb(animate(wav, checkpoint, tmp_path / "a.glb", corpus=root / "corpus", subject="S1"))
        np.testing.assert_allclose(mesh.vertices, expected.mean(0), atol=1e-6)
        assert mesh.colours is not None

    def test_half_a_recording_is_refused_and_long_ones_show_a_bar(self, actor, root, checkpoint, tmp_path, monkeypatch):
        content = (root / "corpus" / "wav" / "S1_sentence01.wav").read_bytes()
        (tmp_path / "half.wav").write_bytes(content[: len(content) // 2])
        with pytest.raises(UserError, match=r"half\.wav: truncated, \d+ samples where its header states"):
            animate(tmp_path / "half.wav", checkpoint, tmp_path / "a.npy")
        assert not (tmp_path / "a.npy").exists()
        bars = []

        def record(frames, label, **options):
            bars.append((len(frames), options["delay"]))
            return frames

        monkeypatch.setattr("s2f_rl.models.latent_actor.watched", record)
        out = animate(root / "corpus" / "wav" / "S1_sentence01.wav", checkpoint, tmp_path / "a.npy")
        assert bars == [(len(np.load(out)), 2)]  # after two seconds
        actor.generate(torch.zeros(1, 4, 1, actor.audio_encoder.width), torch.eye(2)[:1])
        assert len(bars) == 1

    def test_too_little_memory_is_one_line(self, root, checkpoint, tmp_path, monkeypatch):
        def fail(*_, **__):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

        monkeypatch.setattr(FaceFormer, "predict", fail)
        with pytest.raises(UserError, match=r"S1_sentence01\.wav: 0\.0 min of sound need more memory"):
            animate(root / "corpus" / "wav" / "S1_sentence01.wav", checkpoint, tmp_path / "a.npy")

    def test_mistakes(self, root, checkpoint, tmp_path):
        wav = root / "corpus" / "wav" / "S1_sentence01.wav"
        for kwargs, message in (
            ({"subject": "Nobody"}, "--subject Nobody"),
            ({"style": "9"}, "--style 9"),
            ({"out": tmp_path / "a.gif"}, "a.gif"),
            ({"speech": tmp_path / "no.wav"}, "no.wav"),
        ):
            arguments = {"speech": wav, "checkpoint": checkpoint, "out": tmp_path / "a.npy", **kwargs}
            with pytest.raises(UserError, match=message):
                animate(**arguments)

    @pytest.fixture
    def windows(self, monkeypatch):
        """Whatever is longer than .6 s is long."""
        monkeypatch.setattr(windowed_audio, "LONG", windowed_audio.Windows(0.2, 0.2, 0.2))
        return windowed_audio.LONG

    def test_long_sound_in_windows(self, actor, corpus, root, checkpoint, tmp_path, windows):
        """The file is that of the whole array, and the film the array's own."""
        wav = root / "corpus" / "wav" / "S1_sentence01.wav"
        u, style = corpus["S1_sentence01"], torch.eye(2)[1]
        assert len(u.waveform) > 0.6 * 16000
        out = animate(wav, checkpoint, tmp_path / "a.npy", subject="S1")
        with torch.no_grad():
            features = torch.cat(list(windowed_audio.encode_in_windows(actor.audio_encoder, u.waveform, windows)))
            expected = actor.decode(actor.generate(features[None], style[None]))[0] + u.template
        np.testing.assert_allclose(np.load(out), expected.numpy(), atol=1e-6)
        predicted = actor.predict(u.waveform[None], u.template[None], style[None])[0]
        torch.testing.assert_close(predicted, expected, rtol=0, atol=1e-6)
        cached = CachedAudio(actor.audio_encoder, corpus).get(corpus.names.index("S1_sentence01"))
        assert torch.equal(cached, features[: len(cached)])
        np.save(tmp_path / "b.npy", np.load(out))
        assert out.read_bytes() == (tmp_path / "b.npy").read_bytes()
        film = animate(wav, checkpoint, tmp_path / "a.mp4", subject="S1", size=32)
        render_film([np.load(out)], None, corpus.faces, wav, 30, tmp_path / "b.mp4", size=32)
        assert np.abs(pictures(film) - pictures(tmp_path / "b.mp4")).max() < 16, "but for rounding before the codec"
        near = animate(wav, checkpoint, tmp_path / "c.mp4", corpus=root / "corpus", subject="S1", size=32)
        look = corpus_look(corpus, [u.template[None]], "S1")
        render_film([np.load(out)], None, corpus.faces, wav, 30, tmp_path / "d.mp4", 32, **look)
        assert np.abs(pictures(near) - pictures(tmp_path / "d.mp4")).max() < 16
        assert np.abs(pictures(near) - pictures(film)).max() > 40

    def test_a_long_motion_that_is_not_finite(self, actor, corpus, root, tmp_path, windows):
        with torch.no_grad():
            actor.decoder.vertice_map_r.bias.fill_(3e38)
            actor.decoder.vertice_map_r.weight.fill_(3e38)
            actor.decoder.vertice_map.weight.zero_()
        torch.save({"actor": actor_entry(actor, corpus)}, tmp_path / "best.pt")
        for name in ("a.npy", "a.mp4"):
            with pytest.raises(NotFinite, match="best.pt: the predicted motion is not finite"):
                animate(root / "corpus" / "wav" / "S1_sentence01.wav", tmp_path / "best.pt", tmp_path / name)
        assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]

    def test_a_motion_that_is_not_finite(self, actor, corpus, root, tmp_path):
        with torch.no_grad():
            actor.decoder.vertice_map_r.weight.fill_(3e38)
        torch.save({"actor": actor_entry(actor, corpus)}, tmp_path / "best.pt")
        with pytest.raises(NotFinite, match="best.pt: the predicted motion is not finite"):
            animate(root / "corpus" / "wav" / "S1_sentence01.wav", tmp_path / "best.pt", tmp_path / "a.npy")
        assert not (tmp_path / "a.npy").exists()
