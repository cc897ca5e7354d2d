from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from s2f_rl import cli
from s2f_rl.data import FaceCorpus
from s2f_rl.errors import UserError
from s2f_rl.render import corpus_look
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from s2f_rl.view import Table, cli_view, show_utterance
from s2f_rl.view.measures import face_measures
from tests.render.shapes import ball
from tests.tiny import make_tiny_corpus
from tests.view.test_page import data_of

NAME = "S0_sentence01"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    root = make_tiny_corpus(tmp_path_factory.mktemp("corpus"), seconds=(1.2, 1.4))
    (root / "phones").mkdir(exist_ok=True)
    (root / "phones" / f"{NAME}.json").write_text('[["sil", 0.0, 0.5], ["m", 0.5, 0.75]]')
    return root


@pytest.fixture(scope="module")
def ours(corpus, tmp_path_factory) -> Path:
    """A prediction, some millimetres off and two frames short."""
    vertices = FaceCorpus(corpus, "all")[NAME].vertices.numpy()
    path = tmp_path_factory.mktemp("ours") / f"{NAME}_condition_S1.npy"
    moved = vertices + np.random.default_rng(0).normal(size=vertices.shape[1]) * 2e-3
    np.save(path, moved[:-2].astype(np.float32))
    return path


def curves(page: Path) -> list[str]:
    return re.findall(r"<figcaption><b>(.*?)</b>", page.read_text())


def test_a_recording_beside_a_prediction(corpus, ours, tmp_path):
    opened = FaceCorpus(corpus, "all")
    true, out = opened[NAME].vertices, tmp_path / "page.html"
    cli_view([corpus / "vertices_npy" / f"{NAME}.npy", ours], out, corpus_root=corpus)
    data, text = data_of(out), out.read_text()
    assert data["fps"] == opened.fps and data["n_frames"] == len(true)  # stored at twice the rate
    assert [each["frames"] for each in data["sequences"]] == [len(true), len(true) - 2]
    assert data["phones"] == [["sil", 0.0, 0.5], ["m", 0.5, 0.75]]
    assert "<audio" in text and f"<title>{NAME}" in text  # the utterance's own
    assert curves(out) == ["Lip opening", f"Distance to {NAME}, lips"]
    lips, apart = (opened.regions["lips"].numpy(), np.load(ours) - true.numpy()[:-2])
    expected = 1000 * np.linalg.norm(apart.reshape(len(apart), -1, 3)[:, lips], axis=-1).mean(-1)
    np.testing.assert_allclose(data["values"][1][1], expected, atol=1e-3)
    centres = [opened.regions[name].numpy() for name in ("upper_lip", "lower_lip")]
    upper, lower = (true.numpy().reshape(len(true), -1, 3)[:, index].mean(1) for index in centres)
    np.testing.assert_allclose(data["values"][0][0], 1000 * np.linalg.norm(upper - lower, axis=-1), atol=1e-3)
    look = corpus_look(opened, [true.numpy(), np.load(ours)], "S0")
    assert data["camera"]["half_height"] == look["camera"].half_height


def test_scores_of_a_reward(corpus, ours, tmp_path):
    opened = FaceCorpus(corpus, "all")
    torch.manual_seed(0)
    model = RewardModel(
        SpeechMeshTransformer(3 * opened.n_vertices, width=16, depth=1, n_heads=2), ScoreHead(16, 16, 8)
    )
    model.save(tmp_path / "reward")
    cli_view([ours], tmp_path / "page.html", corpus_root=corpus, reward=tmp_path / "reward", captions=["ours"])
    values = dict(zip(curves(tmp_path / "page.html"), data_of(tmp_path / "page.html")["values"], strict=True))
    expected = model.score(torch.from_numpy(np.load(ours)), opened[NAME].mel_clips)
    assert [name for name in values if name.startswith("Reward")] == ["Reward: lip", "Reward: real"]
    for name in ("lip", "real"):
        (found,), there = values[f"Reward: {name}"], expected["score_mask"].numpy()
        assert [value is not None for value in found] == there.tolist() and there.sum() > 20
        scores = expected[f"{name}_score"].detach().numpy()[there]
        np.testing.assert_allclose([value for value in found if value is not None], scores, atol=1e-4)
    with pytest.raises(UserError, match="against speech; give --audio"):
        np.save(tmp_path / "face.npy", np.load(ours))
        cli_view([tmp_path / "face.npy"], tmp_path / "page.html", corpus_root=corpus, reward=tmp_path / "reward")


def test_without_a_corpus(tmp_path, capsys, caplog):
    vertices, faces = ball()
    np.save(tmp_path / "a.npy", np.repeat(vertices[None], 6, 0).reshape(6, -1))
    lines = [f"v {x} {y} {z}" for x, y, z in vertices] + [f"f {a} {b} {c}" for a, b, c in faces + 1]
    (tmp_path / "ball.obj").write_text("\n".join(lines))
    a, out = str(tmp_path / "a.npy"), str(tmp_path / "page.html")
    assert cli.main(["view", a, a, "--out", out, "--mesh", str(tmp_path / "ball.obj"), "--fps", "60"]) == 0
    data = data_of(tmp_path / "page.html")
    assert data["fps"] == 60 and data["faces"] is not None and [e["name"] for e in data["sequences"]] == ["a", "a (2)"]
    assert curves(tmp_path / "page.html") == ["Distance to a, whole face"]
    assert cli.main(["view", a, "--out", out]) == 0
    data = data_of(tmp_path / "page.html")
    assert data["fps"] == 30 and data["faces"] is None and data["dot_radius"] > 0
    assert capsys.readouterr().out == f"{out}\n{out}\n" and "metres" not in caplog.text
    np.save(tmp_path / "mm.npy", 1000 * np.load(a))
    cli_view([tmp_path / "mm.npy"], out)
    assert "mm.npy: in metres it is 200 m long; if its unit is another" in caplog.text


def test_mistakes_are_told(corpus, ours, tmp_path, capsys):
    out = tmp_path / "page.html"
    for message, more in {
        "--fps: a corpus has its own": {"corpus_root": corpus, "fps": 30.0},
        "--mesh: a corpus has its own": {"corpus_root": corpus, "mesh": "ball.obj"},
        "2 captions for 1 sequences": {"captions": ["a", "b"]},
        "ball.stl: no mesh that is read here": {"mesh": "ball.stl"},
        "ends in .html": {"out": tmp_path / "page.mp4"},
        "error_mm is 0": {"error_mm": 0.0},
    }.items():
        with pytest.raises(UserError, match=message):
            cli_view([ours], **{"out": out, **more})
    assert cli.main(["view", str(tmp_path / "gone.npy"), "--out", str(out)]) == 2
    assert "gone.npy: no such file" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_table_and_an_utterance_of_a_split(corpus, tmp_path):
    test = FaceCorpus(corpus, "test")
    utterance = test[0]
    show_utterance(
        test, [utterance.vertices], ["truth"], tmp_path / "page.html",
        utterance=utterance.name, table=Table("Means", {"truth": {"LVE": "0.00"}, "PPO": {"closure": "0.9"}}),
    )  # fmt: skip
    text = (tmp_path / "page.html").read_text()
    assert (
        '<th scope="row">PPO</th><td>-</td><td>0.9</td>' in text and '<th scope="row">truth</th><td>0.00</td>' in text
    )


def test_distances_end_with_the_shorter_of_both():
    frames = np.zeros((4, 5, 3), np.float32)
    (measured,) = face_measures([frames[:2], frames + [0, 0.003, 0.004]], "a", {})
    np.testing.assert_allclose(measured.values[1], [5, 5, np.nan, np.nan], rtol=1e-5)
    assert measured.values[0] is None and measured.title == "Distance to a, whole face"


def test_animate_writes_a_page(corpus, tmp_path):
    from s2f_rl.evaluation.animate import animate
    from s2f_rl.models import FaceFormer, MelAudioEncoder
    from s2f_rl.models.checkpoint import actor_payload
    from s2f_rl.runs import save_checkpoint

    opened = FaceCorpus(corpus, "train")
    actor = FaceFormer(MelAudioEncoder(width=8), opened.n_vertices, feature_dim=16, n_subjects=len(opened.subjects))
    mouth = {name: opened.regions[name] for name in ("lips", "upper_lip", "lower_lip")}
    templates = {name: opened.template(name) for name in opened.subjects}
    payload = actor_payload(actor, list(opened.subjects), templates=templates, **mouth)
    save_checkpoint(tmp_path / "best.pt", {"actor": payload})
    wav = corpus / "wav" / f"{NAME}.wav"
    animate(wav, tmp_path / "best.pt", tmp_path / "motion.npy")
    animate(wav, tmp_path / "best.pt", tmp_path / "page.html")
    data, motion = data_of(tmp_path / "page.html"), np.load(tmp_path / "motion.npy")
    assert data["n_frames"] == len(motion) and [e["name"] for e in data["sequences"]] == [opened.subjects[0]]
    upper, lower = (motion.reshape(len(motion), -1, 3)[:, mouth[n].numpy()].mean(1) for n in ("upper_lip", "lower_lip"))
    np.testing.assert_allclose(data["values"][0][0], 1000 * np.linalg.norm(upper - lower, axis=-1), atol=1e-3)
    animate(wav, tmp_path / "best.pt", tmp_path / "known.html", corpus=corpus)
    assert curves(tmp_path / "known.html") == ["Lip opening"]
    near = data_of(tmp_path / "known.html")  # as a film is, and in the corpus's colours
    look = corpus_look(opened, [templates[opened.subjects[0]].numpy()[None]], opened.subjects[0])
    assert near["camera"]["half_height"] == pytest.approx(look["camera"].half_height)
    assert near["camera"]["half_height"] != pytest.approx(data["camera"]["half_height"], rel=0.05)
    colours = np.frombuffer(base64.b64decode(near["colours"]), np.uint8).reshape(-1, 4)[:, :3]
    assert np.array_equal(colours, look["colours"]) and len(np.unique(colours, axis=0)) > 1
    assert "<audio" in (tmp_path / "page.html").read_text()
