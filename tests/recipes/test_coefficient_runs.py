"""Corpora of coefficients through the recipes and commands: with a basis all of it, without one what needs no mesh."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
import torch
from recipe_tools import load_recipe

from s2f_rl.data import FaceCorpus
from s2f_rl.data.coefficients.basis_files import read_basis
from s2f_rl.data.coefficients.tracks import read_track
from s2f_rl.errors import UserError
from s2f_rl.evaluation import evaluate_checkpoint
from s2f_rl.evaluation.animate import animate
from s2f_rl.exchange.command import convert
from s2f_rl.metrics.coefficients import coefficient_error
from s2f_rl.models.checkpoint import load_actor
from s2f_rl.render.regions import corpus_regions_picture
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from s2f_rl.runs import read_rows
from s2f_rl.runs.report.write import read_config, run_faces
from s2f_rl.view.command import cli_view
from tests.coefficient_corpora import NAMES, make_coefficient_corpus

TINY = ["actor.audio.width=8", "actor.audio.n_layers=1", "actor.feature_dim=16", "progress=false", "device=cpu"]


@pytest.fixture(scope="module", params=[True, False], ids=["with a basis", "without"])
def trained(request, tmp_path_factory):
    """A corpus and a supervised run on it, in one folder; whether there is a basis."""
    folder = tmp_path_factory.mktemp("coefficients")
    root = make_coefficient_corpus(folder / "corpus", basis=request.param, n_sentences=3, seconds=(0.9, 1.4))
    load_recipe("supervised").run(
        [f"corpus.root={root}", f"root={folder}", "name=start", "iterations=30", "batch_size=2", "evaluation.every=15",
         "optimizer.lr=5e-3", "optimizer.final_lr=5e-3", *TINY]
    )  # fmt: skip
    return folder, request.param


def test_supervised_learns_coefficients(trained):
    folder, _ = trained
    rows = read_rows(folder / "start" / "metrics.jsonl")
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"] and math.isfinite(rows[-1]["validation/lve"])
    actor, about = load_actor(folder / "start")
    assert actor.controls.names == NAMES and about["subjects"] == ["S0", "S1"]


def test_animates_coefficients_within_their_bounds(trained, tmp_path):
    folder, has_mesh = trained
    speech = folder / "corpus" / "wav" / "S2_sentence01.wav"
    for name, form in (("face.csv", None), ("app.csv", "livelink"), ("face.npy", None)):
        animate(speech, folder / "start", tmp_path / name, coefficients=True, form=form)
    heads = [(tmp_path / name).read_text().partition(",")[0] for name in ("face.csv", "app.csv")]
    assert heads == ["time_s", "Timecode"]
    with pytest.raises(UserError, match=r"--form livelink: is a .csv"):
        animate(speech, folder / "start", tmp_path / "face.npy", form="livelink")
    values = np.load(tmp_path / "face.npy")
    assert values.shape[1] == 3 and values.min() >= 0 and values.max() <= 1 and np.ptp(values) > 0
    for track in (read_track(tmp_path / "face.csv"), read_track(tmp_path / "app.csv")):
        np.testing.assert_allclose(track.values[:, [track.names.index(n) for n in NAMES]], values, rtol=0, atol=1e-5)
    if not has_mesh:
        for name in ("face.mp4", "face.glb"):
            with pytest.raises(UserError, match="coefficients without a face"):
                animate(speech, folder / "start", tmp_path / name)
        return
    animate(speech, folder / "start", tmp_path / "vertices.npy")
    corpus = FaceCorpus(folder / "corpus")
    made = corpus.rig.basis.vertices(torch.from_numpy(values)).numpy()
    free = (values > 0).all(1) & (values < 1).all(1)  # vertices are not clamped
    assert free.any()
    np.testing.assert_allclose(np.load(tmp_path / "vertices.npy")[free], made[free], rtol=0, atol=1e-6)
    rig = read_basis(animate(speech, folder / "start", tmp_path / "face.glb"))  # the rig itself, no vertices of frames
    assert rig.names == NAMES
    np.testing.assert_allclose(rig.vertices(torch.from_numpy(values)).numpy(), made, rtol=0, atol=1e-6)


def test_evaluates_in_the_terms_that_there_are(trained, tmp_path):
    folder, has_mesh = trained
    summary = evaluate_checkpoint(folder / "start", folder / "corpus", tmp_path, progress=False)
    assert math.isfinite(summary["style_dependent"]["lve"])
    assert ("coefficient_error" in summary["style_dependent"]) == (not has_mesh)
    if has_mesh:
        return
    with open(tmp_path / "sequences.csv", newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["condition"] == "S1")
    corpus = FaceCorpus(folder / "corpus", "test")
    utterance, (actor, _) = corpus[row["utterance"]], load_actor(folder / "start")
    features = actor.encode(utterance.waveform[None])
    found = actor.coefficients(actor.generate(features, torch.tensor([[0.0, 1.0]])))[0, : utterance.n_frames]
    errors = (found.detach() - utterance.coefficients[: len(found)]).abs().mean(0)
    for name, error in zip(NAMES, errors, strict=True):
        assert float(row[f"error_{name}"]) == pytest.approx(float(error), rel=1e-3)
    assert float(row["coefficient_error"]) == pytest.approx(float(errors.mean()), rel=1e-3)


def test_rewards_need_a_mesh(trained, tmp_path):
    folder, has_mesh = trained
    given = [f"corpus.root={folder / 'corpus'}", f"root={tmp_path}", "name=reward", "progress=false"]
    if has_mesh:
        return
    for recipe in ("reward", "judge", "articulation", "rloo"):
        more = [f"start={folder / 'start'}", f"reward.folder={tmp_path}"] if recipe == "rloo" else []
        with pytest.raises(UserError, match="holds 3 coefficients and no basis.npz"):
            load_recipe(recipe).run([*given, *more])
        assert not (tmp_path / "reward").exists()
    with pytest.raises(UserError, match="a reward needs one"):
        evaluate_checkpoint(folder / "start", folder / "corpus", tmp_path, reward=tmp_path, progress=False)


def test_faces_are_shown_where_there_are_faces(trained, tmp_path):
    folder, has_mesh = trained
    corpus, run = folder / "corpus", folder / "start"
    take = corpus / "coefficients_npy" / "S0_sentence01.npy"
    shown = {
        "a picture": lambda: corpus_regions_picture(corpus, tmp_path / "regions.png"),
        "a page": lambda: cli_view([take], tmp_path / "page.html", corpus_root=corpus),
        "a file": lambda: list(convert([take], tmp_path / "face.glb", corpus=corpus)),
        "a picture of a run": lambda: run_faces(run, read_config(run), False),
    }
    for what, show in shown.items():
        if has_mesh:
            assert show() is not None
        else:
            with pytest.raises(UserError, match=f"no basis.npz, so there is no face: {what}"):
                show()
    assert len(list(tmp_path.iterdir())) == (3 if has_mesh else 0)


def test_coefficients_go_into_files_of_numbers(trained, tmp_path):
    folder, _ = trained
    speech = folder / "corpus" / "wav" / "S2_sentence01.wav"
    for name in ("face.mp4", "face.html", "face.glb"):
        with pytest.raises(UserError, match="face.*: no file for coefficients; leave out --coefficients"):
            animate(speech, folder / "start", tmp_path / name, coefficients=True)
    assert list(tmp_path.iterdir()) == []


def test_coefficient_error_by_hand():
    truth = torch.zeros(1, 2, 6)
    moved = truth.clone()
    moved[0, :, 0], moved[0, 1, 3] = 0.01, -0.02  # coefficient 0 off by 1, coefficient 1 by 0 and 2
    assert coefficient_error(moved, truth).tolist() == [[pytest.approx(1.0), pytest.approx(1.0)]]


def test_rl_tunes_the_coefficients(trained, tmp_path):
    """Its output map is constant and the policy learns; no batch holds vertices."""
    folder, has_mesh = trained
    if not has_mesh:
        return
    torch.manual_seed(0)
    RewardModel(SpeechMeshTransformer(120, width=16, depth=1, n_heads=2), ScoreHead(16, 16, 8)).save(
        tmp_path / "reward"
    )
    given = [f"corpus.root={folder / 'corpus'}", f"start={folder / 'start'}", f"reward.folder={tmp_path / 'reward'}",
             f"root={tmp_path}", "lanes=4", "group_size=2", "evaluation.every=1", "progress=false"]  # fmt: skip
    load_recipe("ppo").run([*given, "name=run", "iterations=1"])
    load_recipe("ppo").run([*given, "name=run", "iterations=2", "resume=true"])
    load_recipe("ppo").run([*given, "name=whole", "iterations=2"])
    before, after = (load_actor(place)[0] for place in (folder / "start", tmp_path / "run" / "last.pt"))
    assert after.controls.names == NAMES
    for name, tensor in before.state_dict().items():
        same = torch.equal(tensor, after.state_dict()[name])
        assert same or "vertice_map_r" not in name and "basis" not in name, name
    assert not torch.equal(before.decoder.layer.linear1.weight, after.decoder.layer.linear1.weight)
    rows = [read_rows(tmp_path / name / "metrics.jsonl") for name in ("run", "whole")]
    assert rows[0][-1]["reward"] == rows[1][-1]["reward"] and rows[0][-1]["grad_norm_policy"] > 0
    for name, tensor in load_actor(tmp_path / "run" / "last.pt")[0].state_dict().items():
        assert torch.equal(tensor, load_actor(tmp_path / "whole" / "last.pt")[0].state_dict()[name]), name
