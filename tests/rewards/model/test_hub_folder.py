"""Rewards as hub folders: the same model back, no network for a folder, hostile files in one line."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from s2f_rl.errors import UserError
from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
from s2f_rl.rewards.model.checkpoint_files import CONFIG_FILE, WEIGHTS_FILE
from s2f_rl.rewards.model.hub_folder import CARD_FILE


def make(head: bool = True, activation: str = "tanh", seed: int = 0) -> RewardModel:
    torch.manual_seed(seed)
    backbone = SpeechMeshTransformer(30, width=8, depth=2, n_heads=4, mlp_width=12)
    return RewardModel(backbone, ScoreHead(8, 8, 6, out_activation=activation) if head else None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make().save_pretrained(tmp_path / "reward", corpus="VOCASET, training split")
    return tmp_path / "reward"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)


class TestRoundTrip:
    @pytest.mark.parametrize("head", [True, False])
    def test_same_model(self, tmp_path: Path, head: bool, no_network: None) -> None:
        model = make(head)
        model.save_pretrained(tmp_path / "m")
        found = RewardModel.from_pretrained(tmp_path / "m")
        assert found.content_hash() == model.content_hash() and found.audio_hash() == model.audio_hash()
        assert found.backbone.n_heads == 4 and (found.head is None) == (not head)
        for name, tensor in model.state_dict().items():
            assert torch.equal(found.state_dict()[name], tensor), name
        vertices, mel = torch.randn(9, 30), torch.randn(5, 20, 128)
        for key, value in model.score(vertices, mel).items():
            assert torch.equal(found.score(vertices, mel)[key], value)

    def test_load_reads_it_and_prefers_the_published_files(self, folder: Path) -> None:
        assert RewardModel.load(folder).content_hash() == make().content_hash()
        other = make(seed=1)
        other.save(folder)
        assert RewardModel.load(folder).content_hash() == other.content_hash()

    def test_card_and_config(self, folder: Path) -> None:
        config = json.loads((folder / CONFIG_FILE).read_text())
        sizes = {"n_vertices": 10, "width": 8, "depth": 2, "n_heads": 4, "mlp_width": 12}
        assert {key: config[key] for key in sizes} == sizes
        assert config["head"] == {"hidden": 6, "out_activation": "tanh"}
        card = (folder / CARD_FILE).read_text()
        for words in (make().content_hash(), "| n_vertices | 10 |", "VOCASET, training split"):
            assert words in card
        assert sorted(p.name for p in folder.iterdir()) == sorted([CARD_FILE, CONFIG_FILE, WEIGHTS_FILE])

    def test_trained_critic_travels(self, tmp_path: Path) -> None:
        model = make()
        torch.nn.init.normal_(model.head.value.weight)
        model.save_pretrained(tmp_path)
        assert torch.equal(RewardModel.from_pretrained(tmp_path).head.value.weight, model.head.value.weight)


class TestHostile:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"width": -8}, "width is -8"),
            ({"depth": "2"}, "depth is 2"),
            ({"depth": True}, "depth is True"),
            ({"n_heads": 0}, "n_heads is 0"),
            ({"n_heads": 3}, "n_heads=3"),
            ({"n_heads": 2}, "content_hash"),
            ({"n_vertices": 10**30}, "n_vertices"),
            ({"n_vertices": 11}, "n_vertices is 11"),
            ({"mlp_width": None}, "mlp_width"),
            ({"head": None}, "head does not fit"),
            ({"head": [1]}, "head must be"),
            ({"head": {"hidden": 7, "out_activation": "tanh"}}, "head is"),
            ({"head": {"hidden": -1, "out_activation": "tanh"}}, "head.hidden is -1"),
            ({"head": {"hidden": 6, "out_activation": "evil"}}, "evil"),
            ({"model_type": "bert"}, "model_type"),
            ({"format": 2}, "format 2"),
            ({"content_hash": "0" * 64}, "content_hash"),
            ({"content_hash": None}, "content_hash"),
        ],
    )
    def test_config(self, folder: Path, change: dict[str, Any], message: str) -> None:
        path = folder / CONFIG_FILE
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(UserError, match=message) as caught:
            RewardModel.from_pretrained(folder)
        assert str(folder) in str(caught.value) and "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
    def test_damaged_and_missing(self, folder: Path, name: str) -> None:
        whole = (folder / name).read_bytes()
        for content in (b"", whole[: len(whole) // 2], b"[" * 100000):
            (folder / name).write_bytes(content)
            with pytest.raises(UserError, match=name):
                RewardModel.from_pretrained(folder)
        (folder / name).unlink()
        with pytest.raises(UserError, match=name):
            RewardModel.from_pretrained(folder)

    def test_another_models_weights(self, folder: Path, tmp_path: Path) -> None:
        make(seed=1).save_pretrained(tmp_path / "other")
        (folder / WEIGHTS_FILE).write_bytes((tmp_path / "other" / WEIGHTS_FILE).read_bytes())
        with pytest.raises(UserError, match="content_hash"):
            RewardModel.from_pretrained(folder)

    def test_not_written_halfway(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """New weights beside an old config, as a kill can leave them, are refused."""

        def stop(*_: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("s2f_rl.rewards.model.hub_folder.atomic_write_text", stop)
        with pytest.raises(KeyboardInterrupt):
            make(seed=1).save_pretrained(folder)
        with pytest.raises(UserError, match=CONFIG_FILE):
            RewardModel.from_pretrained(folder)


class TestRepository:
    def test_downloads_two_files(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def download(repository: str, name: str, **options: Any) -> str:
            asked.append((repository, name, options["revision"]))
            return str(folder / name)

        monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
        model = RewardModel.from_pretrained("somebody/reward", revision="v1")
        assert asked == [("somebody/reward", CONFIG_FILE, "v1"), ("somebody/reward", WEIGHTS_FILE, "v1")]
        assert model.content_hash() == make().content_hash()

    def test_failures_are_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise OSError("cannot reach\nthe hub")

        monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
        with pytest.raises(UserError, match="somebody/reward.*cannot reach the hub"):
            RewardModel.from_pretrained("somebody/reward")

    @pytest.mark.parametrize("source", ["./nothing/here", "nothing", "a/b/c", "../x", "/absent/folder", ""])
    def test_paths_are_no_repositories(self, source: str, no_network: None) -> None:
        with pytest.raises(UserError):
            RewardModel.from_pretrained(source)

    def test_a_folder_has_no_revision(self, folder: Path) -> None:
        with pytest.raises(UserError, match="revision"):
            RewardModel.from_pretrained(folder, revision="v1")
