"""What a run reads, by content: changes are refused by name, copies and other forms of the same content are not."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from s2f_rl.data.mesh_identity import MeshIdentity
from s2f_rl.data.tensor_files import content_hash
from s2f_rl.errors import UserError
from s2f_rl.models import FaceFormer, MelAudioEncoder
from s2f_rl.models.checkpoint import actor_payload
from s2f_rl.models.codetalker import Codebook, TrainedCodebook
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from s2f_rl.runs.configs import compose_config
from s2f_rl.runs.folder import RunFolder
from s2f_rl.runs.inputs import FILE, READERS
from tests.tiny import make_tiny_corpus


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make_tiny_corpus(tmp_path / "corpus")
    save_actor(tmp_path / "start" / "best.pt", 0)
    save_actor(tmp_path / "policy.pt", 1)
    for seed, name in enumerate(("reward", "backbone")):
        model(seed).save(tmp_path / name)
    save_codebook(tmp_path / "codebook", 2)
    (tmp_path / "samples").mkdir()
    np.save(tmp_path / "samples" / "a.npy", np.arange(3.0))
    return tmp_path


def save_actor(path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    actor = FaceFormer(MelAudioEncoder(width=8), 40, n_subjects=2, feature_dim=16)
    path.parent.mkdir(exist_ok=True)
    torch.save({"actor": actor_payload(actor, ["S0", "S1"])}, path)


def model(seed: int) -> RewardModel:
    torch.manual_seed(seed)
    return RewardModel(SpeechMeshTransformer(120, width=16, depth=1, n_heads=2), ScoreHead(16, 16, 8))


def flat(cfg: Any, prefix: str = "") -> set[str]:
    """Dotted keys of a config, those of values only."""
    found = set()
    for key in cfg:
        inner = None if OmegaConf.is_missing(cfg, key) else cfg[key]
        found |= flat(inner, f"{prefix}{key}.") if OmegaConf.is_dict(inner) else {f"{prefix}{key}"}
    return found


def save_codebook(folder: Path, seed: int) -> None:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(seed)
    TrainedCodebook(Codebook(9, 4, 4, 1, 2, 3, 2, 2), 30.0, MeshIdentity(3), {}).save(folder)


def open_run(place: Path, resume: bool = True, **changes: Any) -> None:
    config = {
        "seed": 0,
        "corpus": {"root": str(place / "corpus"), "topology": None},
        "start": str(place / "start"),
        "policy": str(place / "policy.pt"),
        "reward": {"folder": str(place / "reward"), "weights": {"lip_score": 1.0}},
        "backbone": str(place / "backbone"),
        "actor": {"codebook": str(place / "codebook")},
        "policy_samples": str(place / "samples"),
        **changes,
    }
    RunFolder("run", root=place, config=config, resume=resume).close()


def change_head(folder: Path) -> None:
    content = torch.load(folder / "v4_best.pt", weights_only=True)
    name = next(name for name in content["head"] if name.endswith("weight") and "value" not in name)
    content["head"][name] *= -3
    torch.save(content, folder / "v4_best.pt")


CHANGES = {
    "start": lambda place: save_actor(place / "start" / "best.pt", 5),
    "policy": lambda place: save_actor(place / "policy.pt", 5),
    "reward.folder": lambda place: change_head(place / "reward"),
    "backbone": lambda place: model(5).save(place / "backbone"),
    "actor.codebook": lambda place: save_codebook(place / "codebook", 5),
    "policy_samples": lambda place: np.save(place / "samples" / "a.npy", np.arange(3.0)[::-1]),
}


class TestInputs:
    def test_every_reader_is_tried_and_every_key_is_one_of_a_recipe(self) -> None:
        assert set(CHANGES) == set(READERS)
        conf = Path(__file__).resolve().parents[2] / "recipes" / "conf"
        configs = [compose_config(conf, recipe) for recipe in ("ppo", "supervised", "reward", "judge")]
        configs.append(compose_config(conf, "supervised", ["actor=codetalker"]))
        known = {key for key in READERS for cfg in configs if key in flat(cfg)}
        assert known == set(READERS) and all("corpus.root" in flat(cfg) for cfg in configs)

    @pytest.mark.parametrize("key", CHANGES)
    def test_a_changed_model_is_named(self, place: Path, key: str) -> None:
        open_run(place, resume=False)
        before = {file.name: file.read_bytes() for file in (place / "run").iterdir()}
        CHANGES[key](place)
        with pytest.raises(UserError, match=f"the content of {key}=[^,()]* has changed"):
            open_run(place)
        assert {file.name: file.read_bytes() for file in (place / "run").iterdir()} == before

    def test_of_several_actors_the_changed_one_is_named(self, place: Path) -> None:
        both = [str(place / "policy.pt"), str(place / "start")]
        open_run(place, policy=both, start=None)
        (place / "run" / "last.pt").touch()
        open_run(place, policy=both, start=None)
        save_actor(place / "start" / "best.pt", 5)
        with pytest.raises(UserError) as caught:
            open_run(place, policy=both, start=None)
        assert f"({place / 'start'})" in str(caught.value) and f"({place / 'policy.pt'}" not in str(caught.value)

    def test_a_changed_corpus_is_named_with_its_part(self, place: Path) -> None:
        open_run(place, resume=False)
        path = place / "corpus" / "vertices_npy" / "S0_sentence01.npy"
        np.save(path, np.load(path)[::-1])
        CHANGES["start"](place)
        with pytest.raises(UserError, match=r"the content of corpus.root=\S* \(vertices_npy\), start=\S* has changed"):
            open_run(place)

    def test_the_same_content_goes_on(self, place: Path) -> None:
        """Copied, touched, saved again, in the other form: none of this is a change."""
        open_run(place, resume=False)
        shutil.copytree(place / "corpus", place / "copy", copy_function=shutil.copyfile)
        shutil.rmtree(place / "corpus")
        (place / "copy").rename(place / "corpus")
        for file in (place / "start").iterdir():
            os.utime(file, (1, 1))
        content = torch.load(place / "start" / "best.pt", weights_only=True)
        before = (place / "start" / "best.pt").read_bytes()
        torch.save(content, place / "start" / "again.pt")
        (place / "start" / "again.pt").replace(place / "start" / "best.pt")
        assert (place / "start" / "best.pt").read_bytes() != before
        reward = RewardModel.load(place / "reward")
        shutil.rmtree(place / "reward")
        reward.save_pretrained(place / "reward")
        open_run(place)

    def test_a_run_from_before_goes_on_and_is_told_once(self, place: Path, caplog: pytest.LogCaptureFixture) -> None:
        open_run(place, resume=False)
        (place / "run" / FILE).unlink()
        (place / "run" / "last.pt").write_bytes(b"")
        with caplog.at_level(logging.WARNING, logger="s2f_rl"):
            open_run(place)
            open_run(place)
        assert [record.getMessage().split(": ")[1][:17] for record in caplog.records] == ["made by a version"]
        CHANGES["start"](place)
        with pytest.raises(UserError, match="start="):
            open_run(place)

    def test_an_input_that_is_not_known_yet_is_added(self, place: Path) -> None:
        open_run(place, resume=False)
        path = place / "run" / FILE
        known = json.loads(path.read_text())
        start = known.pop("start")
        path.write_text(json.dumps(known))
        open_run(place)
        assert json.loads(path.read_text())["start"] == start

    def test_a_broken_record_is_named(self, place: Path) -> None:
        open_run(place, resume=False)
        (place / "run" / FILE).write_text("[]")
        with pytest.raises(UserError, match=f"{FILE}: holds no inputs"):
            open_run(place)


class TestContentHash:
    def test_what_is_in_it(self) -> None:
        base = {"a": torch.arange(4.0), "b": [1, True, None, "x"], "c": {"d": torch.tensor(2)}}
        assert content_hash(base) == content_hash({key: base[key] for key in "cba"})
        others = [
            {**base, "a": -base["a"]},
            {**base, "a": base["a"].double()},
            {**base, "a": base["a"].reshape(2, 2)},
            {**base, "b": [1, 1, None, "x"]},
            {**base, "b": [1, [True, None], "x"]},
            {**base, "c": {"e": torch.tensor(2)}},
            {**base, "a": torch.arange(8.0)[::2]},
        ]
        assert len({content_hash(each) for each in [base, *others]}) == 8
        assert content_hash(torch.zeros(0)) == content_hash(torch.zeros(0))

    def test_what_is_shared_is_hashed_once(self) -> None:
        value: list[Any] = [torch.zeros(3)]
        for _ in range(100):
            value = [value, value]
        assert len(content_hash(value)) == 64
