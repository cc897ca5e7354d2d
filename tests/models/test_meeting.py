"""Where an actor meets a corpus: mesh, rate and style columns, and the unit of its file."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from s2f_rl.data import FaceCorpus
from s2f_rl.errors import UserError
from s2f_rl.evaluation import evaluate_actor
from s2f_rl.models import FaceFormer, MelAudioEncoder, Wav2Vec2AudioEncoder
from s2f_rl.models.checkpoint import actor_payload, load_actor
from s2f_rl.models.meeting import load_actor_for, refuse_other_corpus
from s2f_rl.training.setup import actor_entry, load_start
from tests.conftest import METRES_PER_UNIT, Awkward
from tests.tiny import WAV2VEC2, make_tiny_corpus


def actor_for(corpus: FaceCorpus, fps: float | None = None) -> FaceFormer:
    torch.manual_seed(0)
    encoder = MelAudioEncoder(width=8, fps=fps or corpus.fps, features_per_frame=corpus.audio_features_per_frame)
    actor = FaceFormer(encoder, corpus.n_vertices, feature_dim=16, n_subjects=len(corpus.subjects))
    torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=1e-3)
    torch.nn.init.normal_(actor.decoder.vertice_map.weight, std=10.0)
    return actor.eval()


def saved(path: Path, entry: dict) -> Path:
    torch.save({"actor": entry}, path)
    return path


@pytest.fixture
def corpus(awkward: Awkward) -> FaceCorpus:
    return FaceCorpus(awkward.own, "train")


class TestMeeting:
    def test_what_a_file_says_comes_back(self, corpus: FaceCorpus, tmp_path: Path) -> None:
        path = saved(tmp_path / "a.pt", actor_entry(actor_for(corpus), corpus))
        actor, about = load_actor_for(path, corpus)
        assert actor.styles == ("zoe", "adam") and actor.fps == 25 and about["unit"] == "metres"
        assert actor.mesh_identity == corpus.mesh_identity
        torch.testing.assert_close(about["templates"]["zoe"], corpus.template("zoe"))

    def test_another_rate(self, corpus: FaceCorpus, tmp_path: Path) -> None:
        path = saved(tmp_path / "a.pt", actor_entry(actor_for(corpus, fps=30), corpus))
        with pytest.raises(UserError, match=r"start=.*a\.pt and .* run at 30 fps and 25 fps; resample"):
            load_start(path, corpus)

    def test_the_same_columns_in_another_order(self, corpus: FaceCorpus, tmp_path: Path) -> None:
        path = saved(tmp_path / "a.pt", actor_payload(actor_for(corpus), ["adam", "zoe"]))
        with pytest.raises(UserError, match="style columns adam, zoe, .* trains on zoe, adam; name the training_subj"):
            load_actor_for(path, corpus)
        actor, _ = load_actor(path)
        with pytest.raises(UserError, match="style columns adam, zoe"):
            evaluate_actor(actor, corpus)

    def test_the_same_vertices_in_another_order(self, tmp_path: Path) -> None:
        root = make_tiny_corpus(tmp_path / "c", n_vertices=120)
        corpus = FaceCorpus(root, "train")
        path = saved(tmp_path / "a.pt", actor_entry(actor_for(corpus), corpus))
        order = np.random.default_rng(0).permutation(120)
        templates = pickle.loads((root / "templates.pkl").read_bytes())
        templates = {subject: face[order] for subject, face in templates.items()}
        (root / "templates.pkl").write_bytes(pickle.dumps(templates))
        for file in (root / "vertices_npy").iterdir():
            stored = np.load(file)
            np.save(file, stored.reshape(len(stored), -1, 3)[:, order].reshape(len(stored), -1))
        np.save(root / "faces.npy", np.argsort(order)[np.load(root / "faces.npy")].astype(np.int32))
        with pytest.raises(UserError, match="different meshes: the same 120 vertices, but in another order"):
            load_actor_for(path, FaceCorpus(root, "train"))

    def test_names_that_are_not_known_are_not_compared(self, corpus: FaceCorpus) -> None:
        refuse_other_corpus(actor_for(corpus), corpus)

    def test_a_file_of_before_knows_its_mesh_by_its_templates(self, tmp_path: Path) -> None:
        root = make_tiny_corpus(tmp_path / "c", n_vertices=120)
        corpus = FaceCorpus(root, "train")
        entry = actor_entry(actor_for(corpus), corpus)
        del entry["mesh"]
        actor, _ = load_actor(saved(tmp_path / "a.pt", entry))
        assert actor.mesh_identity is not None and actor.mesh_identity.triangles == corpus.mesh_identity.triangles
        refuse_other_corpus(actor, corpus)


class TestUnitOfAFile:
    """The same faces, whatever unit the weights were trained in."""

    def test_an_actor_of_before(self, corpus: FaceCorpus, tmp_path: Path) -> None:
        actor = actor_for(corpus)
        entry = actor_payload(actor, ["zoe", "adam"], templates={"zoe": 1e3 * corpus.template("zoe")}, units="mm")
        del entry["unit"], entry["mesh"]
        weights = entry["state_dict"]
        weights["decoder.vertice_map_r.weight"] *= 1e3  # trained on millimetres
        weights["decoder.vertice_map_r.bias"] *= 1e3
        weights["decoder.vertice_map.weight"] /= 1e3
        loaded, about = load_actor_for(saved(tmp_path / "a.pt", entry), corpus)
        audio, style = torch.randn(1, 9, 2, 8), torch.eye(2)[:1]
        ours, theirs = (a.decoder.decode(a.generate(audio, style)) for a in (loaded, actor))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-8)
        torch.testing.assert_close(about["templates"]["zoe"], corpus.template("zoe"))
        assert load_start(tmp_path / "a.pt", corpus).moments is None

    def test_published_biwi(self, awkward: Awkward, tmp_path: Path) -> None:
        torch.manual_seed(0)
        published = FaceFormer(Wav2Vec2AudioEncoder(WAV2VEC2, "biwi"), 40, feature_dim=16, n_subjects=2)
        torch.nn.init.normal_(published.decoder.vertice_map_r.weight, std=1e-2)
        torch.nn.init.normal_(published.decoder.vertice_map.weight, std=1.0)
        torch.save(published.to_reference(), tmp_path / "biwi.pth")
        wave, style = torch.randn(1, 9000), torch.eye(2)[:1]
        template = torch.randn(1, 120)
        expected = published.predict(wave, template, style)
        for size in (None, METRES_PER_UNIT):
            factor = 0.1856 if size is None else size
            actor, _ = load_actor(tmp_path / "biwi.pth", "biwi", WAV2VEC2, metres_per_unit=size)
            found = actor.predict(wave, factor * template, style)
            torch.testing.assert_close(found, factor * expected, rtol=1e-4, atol=1e-6)

    def test_another_unit_is_refused(self, corpus: FaceCorpus, tmp_path: Path) -> None:
        entry = actor_payload(actor_for(corpus), ["zoe", "adam"]) | {"unit": "feet"}
        with pytest.raises(UserError, match="its unit is 'feet', not metres"):
            load_actor(saved(tmp_path / "a.pt", entry))


def test_an_encoder_of_before_says_topology(corpus: FaceCorpus) -> None:
    config = json.loads(json.dumps(actor_for(corpus).config()))
    assert config["audio"] == {
        "kind": "mel", "fps": 25, "features_per_frame": 2, "width": 8, "n_mels": 40, "n_layers": 3
    }  # fmt: skip
    for key in ("fps", "features_per_frame"):
        del config["audio"][key]
    old = FaceFormer.from_config({**config, "audio": {**config["audio"], "topology": "biwi"}})
    assert old.audio_encoder.clock == corpus.clock
