"""Actors whose files ask for a model that cannot be, or that the file does not hold."""

from __future__ import annotations

import functools
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from s2f_rl.errors import UserError
from s2f_rl.models import FaceFormer, ListenerAudioEncoder, MelAudioEncoder, Wav2Vec2AudioEncoder
from s2f_rl.models.checkpoint import actor_payload, load_actor
from tests.tiny import WAV2VEC2


def _payload(kind: str) -> dict[str, Any]:
    encoder = {
        "mel": lambda: MelAudioEncoder(width=12),
        "listener": lambda: ListenerAudioEncoder(width=12, ear_width=8, ear_layers=2),
        "wav2vec2": lambda: Wav2Vec2AudioEncoder(WAV2VEC2),
    }[kind]()
    return actor_payload(FaceFormer(encoder, 8, feature_dim=16, n_subjects=2), ["a", "b"])


@pytest.fixture(scope="module", params=["mel", "listener", "wav2vec2"])
def payload(request: pytest.FixtureRequest) -> dict[str, Any]:
    return _payload(request.param)


@pytest.fixture(scope="module")
def mel() -> dict[str, Any]:
    return _payload("mel")


@pytest.fixture(scope="module")
def wav2vec2() -> dict[str, Any]:
    return _payload("wav2vec2")


def _load(payload: dict[str, Any], tmp_path: Path, **changes: Any) -> FaceFormer:
    torch.save({"actor": {**payload, **changes}}, tmp_path / "best.pt")
    return load_actor(tmp_path)[0]


def _refused(payload: dict[str, Any], tmp_path: Path, match: str, **changes: Any) -> None:
    with pytest.raises(UserError, match=rf"best\.pt: no actor of this project inside \(.*{match}"):
        _load(payload, tmp_path, **changes)


def test_what_it_writes_it_reads(payload: dict[str, Any], tmp_path: Path) -> None:
    assert _load(payload, tmp_path).config() == payload["config"]


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("n_vertices", 4_000_000, r"decoder.vertice_map.weight is \[16, 24\], its config asks for \[16, 12000000\]"),
        ("feature_dim", 1_000_000, r"its config asks for \[1000000, "),
        ("n_subjects", 10**6, r"decoder.obj_vector.weight is \[16, 2\]"),
        ("n_subjects", 10**9, "n_subjects is 1000000000; it must be a whole number from 1 to 1000000"),
        ("n_head", 3, "n_head is 3, which does not divide feature_dim"),
        ("n_head", 0, "n_head is 0"),
        ("n_head", 10**9, "n_head is 1000000000"),
        ("period", 0, "period is 0; it must be a whole number from 1 to 1000"),
        ("period", -30, "period is -30"),
        ("period", 10**6, "period is 1000000"),
        ("period", "30", "period is 30"),
        ("period", True, "period is True"),
        ("period", 30.0, r"period is 30\.0"),
        ("period", None, "period is None"),
        ("dropout", 7, "dropout is 7"),
        ("dropout", -0.1, r"dropout is -0\.1"),
        ("dropout", float("nan"), "dropout is nan"),
        ("dropout", "x" * 10**5, "dropout is a text of 100000 letters"),
        ("audio", "mel", "config.audio.kind is 'None'"),
        ("audio", {"kind": ["mel"]}, "config.audio.kind is"),
        ("something", 1, "'something', which is no setting that a file may have"),
        ("self", 1, "'self', which is no setting"),
    ],
)
def test_sizes_are_compared_before_anything_is_built(
    payload: dict[str, Any], name: str, value: Any, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = []  # devices on which an actor was built
    build = FaceFormer.__init__

    @functools.wraps(build)
    def noted(self: FaceFormer, *arguments: Any, **settings: Any) -> None:
        places.append(torch.empty(0).device.type)
        build(self, *arguments, **settings)

    monkeypatch.setattr(FaceFormer, "__init__", noted)
    _refused(payload, tmp_path, match, config={**payload["config"], name: value})
    assert "cpu" not in places


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("width", 10**6, r"is \[12, 80\], its config asks for \[1000000, 80\]|is \[16, 12\]"),
        ("n_layers", 10**9, "n_layers is 1000000000"),
        ("n_layers", 900, "n_layers is 900, but the file holds"),
        ("n_mels", 10**7, "n_mels is 10000000"),
        ("topology", "x", "topology='x' is unknown"),
        ("pretrained", "owner/name", "'pretrained', which is no setting"),
    ],
)
def test_the_mel_encoder(mel: dict[str, Any], name: str, value: Any, match: str, tmp_path: Path) -> None:
    config = mel["config"]
    _refused(mel, tmp_path, match, config={**config, "audio": {**config["audio"], name: value}})


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("hidden_size", 10**6, "its config asks for"),
        ("hidden_size", 10**12, "config.audio.config.hidden_size is 1000000000000"),
        ("hidden_size", True, "hidden_size is True"),
        ("intermediate_size", -1, "intermediate_size is -1"),
        ("num_hidden_layers", 999, "asks for 999 layers, the file holds"),
        ("conv_dim", [8] * 500, "asks for 500 layers"),
        ("conv_dim", ["8"] * 7, "conv_dim is"),
        ("conv_stride", [1] * 7, "must make 50 features a second"),
        ("conv_kernel", [10**6] * 7, "must make 50 features a second"),
        ("hidden_dropout", 7, "hidden_dropout is 7"),
        ("layer_norm_eps", float("nan"), "layer_norm_eps is nan"),
        ("num_attention_heads", 0, ""),
        ("num_conv_pos_embedding_groups", 3, ""),
        ("hidden_act", "owner/name", ""),
    ],
)
def test_the_wav2vec2_encoder(wav2vec2: dict[str, Any], name: str, value: Any, match: str, tmp_path: Path) -> None:
    config, audio = wav2vec2["config"], wav2vec2["config"]["audio"]
    changed = {**audio, "config": {**audio["config"], name: value}}
    _refused(wav2vec2, tmp_path, match, config={**config, "audio": changed})


class TestNoHub:
    """Whatever a file says, no hub is asked and no code is named."""

    @pytest.fixture(autouse=True)
    def no_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def asked(*_: Any, **__: Any) -> None:
            pytest.fail("the network was asked")

        monkeypatch.setattr(socket.socket, "connect", asked)
        monkeypatch.setattr(socket, "getaddrinfo", asked)

    @pytest.mark.parametrize("name", ["pretrained", "local_files_only", "revision", "kwargs"])
    def test_arguments_of_the_encoder(self, wav2vec2: dict[str, Any], name: str, tmp_path: Path) -> None:
        audio = {**wav2vec2["config"]["audio"], "pretrained": "owner/name", name: False}
        _refused(wav2vec2, tmp_path, "no setting that a file may have", config={**wav2vec2["config"], "audio": audio})

    @pytest.mark.parametrize("name", ["attn_implementation", "_attn_implementation", "auto_map", "name_or_path", "x"])
    def test_settings_of_transformers(
        self, wav2vec2: dict[str, Any], name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """They are left out, with a warning: transformers would fetch attention kernels from the hub."""
        audio = wav2vec2["config"]["audio"]
        changed = {**audio, "config": {**audio["config"], name: "kernels-community/x"}}
        actor = _load(wav2vec2, tmp_path, config={**wav2vec2["config"], "audio": changed})
        assert actor.config() == wav2vec2["config"] and f"the file's {name} are no settings" in caplog.text

    def test_a_folder_of_published_weights(self, wav2vec2: dict[str, Any], tmp_path: Path) -> None:
        encoder = Wav2Vec2AudioEncoder(WAV2VEC2)
        encoder.model.save_pretrained(tmp_path)
        text = (tmp_path / "config.json").read_text()
        (tmp_path / "config.json").write_text(text.replace("{", '{"attn_implementation": "kernels-community/x",', 1))
        again = Wav2Vec2AudioEncoder(pretrained=str(tmp_path))
        assert again.config() == encoder.config()
        assert all(torch.equal(a, b) for a, b in zip(again.parameters(), encoder.parameters(), strict=True))


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (torch.zeros(1).expand(16, 24), "its config asks for|decoder"),
        (torch.zeros(16, 24).to_sparse(), "cannot be read|dense"),
        ("text", "holds str, expected dense floats"),
        ([1.0], "holds list, expected dense floats"),
        (torch.zeros(16, 25), r"decoder.vertice_map.weight is \[16, 25\]"),
    ],
)
def test_tensors_of_another_kind(mel: dict[str, Any], value: Any, match: str, tmp_path: Path) -> None:
    state = {**mel["state_dict"], "decoder.vertice_map.weight": value}
    if isinstance(value, torch.Tensor) and value.shape == (16, 24) and not value.is_sparse:
        assert torch.equal(_load(mel, tmp_path, state_dict=state).decoder.vertice_map.weight, value)  # small: harmless
        return
    with pytest.raises(UserError, match=match):
        _load(mel, tmp_path, state_dict=state)


@pytest.mark.parametrize("subjects", [None, "ab", ["a"], ["a", 1], {"a": 1, "b": 2}])
def test_subjects_are_names(mel: dict[str, Any], subjects: Any, tmp_path: Path) -> None:
    _refused(mel, tmp_path, "its subjects are not 2 names", subjects=subjects)


def test_published_weights_of_a_huge_model(tmp_path: Path) -> None:
    """A megabyte of strides of 0 that would make a decoder of 90 GB; and widths that no head divides."""
    state = FaceFormer(Wav2Vec2AudioEncoder(WAV2VEC2), 8, feature_dim=16, n_subjects=2).to_reference()
    for shape, match in (((87_380, 3), "wrong shape"), ((18, 24), "not a multiple of the 4"), ((0, 24), "lacks")):
        torch.save({**state, "vertice_map.weight": torch.zeros(1).expand(shape)}, tmp_path / "a.pth")
        with pytest.raises(UserError, match=rf"a\.pth: .*{match}"):
            load_actor(tmp_path / "a.pth", audio_config=WAV2VEC2)
