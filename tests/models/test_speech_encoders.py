"""The speech models of transformers: their features, their files, and what is refused."""

from __future__ import annotations

import json
import pickle
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny import WAV2VEC2, WAV2VEC2_BERT

from s2f_rl.data.audio import conv_frames
from s2f_rl.errors import UserError
from s2f_rl.models import FaceFormer, SpeechAudioEncoder, build_audio_encoder
from s2f_rl.models.checkpoint import actor_payload, load_actor
from s2f_rl.models.encoder_kinds import packed_encoder
from s2f_rl.models.log_mel import paired_log_mel
from s2f_rl.models.speech_models import SPEECH_MODELS

STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {  # name -> model type, settings
    "wav2vec2": ("wav2vec2", WAV2VEC2),
    "XLS-R": ("wav2vec2", {**WAV2VEC2, **STABLE}),
    "MMS": ("wav2vec2", {**WAV2VEC2, **STABLE, "adapter_attn_dim": 4}),
    "HuBERT": ("hubert", WAV2VEC2),
    "HuBERT large": ("hubert", {**WAV2VEC2, **STABLE}),
    "mHuBERT": ("hubert", {**WAV2VEC2, "conv_pos_batch_norm": True, "feat_proj_layer_norm": False}),
    "WavLM": ("wavlm", {**WAV2VEC2, "num_hidden_layers": 2, "num_buckets": 8, "max_bucket_distance": 20}),
    "WavLM large": ("wavlm", {**WAV2VEC2, **STABLE}),
    "data2vec": ("data2vec-audio", {**WAV2VEC2, "conv_pos_kernel_size": 5}),
    "UniSpeech": ("unispeech", WAV2VEC2),
    "UniSpeech-SAT": ("unispeech-sat", WAV2VEC2),
    "wav2vec2-BERT": ("wav2vec2-bert", WAV2VEC2_BERT),
    "wav2vec2-BERT relative": ("wav2vec2-bert", {**WAV2VEC2_BERT, "position_embeddings_type": "relative"}),
    "wav2vec2-BERT rotary": ("wav2vec2-bert", {**WAV2VEC2_BERT, "position_embeddings_type": "rotary"}),
}


def random_model(name: str) -> Any:
    """A model of transformers with random weights, made without this package."""
    model_type, settings = MODELS[name]
    torch.manual_seed(0)
    return transformers.AutoModel.from_config(transformers.AutoConfig.for_model(model_type, **settings)).eval()


def folder_of(model: Any, folder: Path) -> str:
    model.save_pretrained(folder)
    assert (folder / "model.safetensors").exists()
    return str(folder)


def edit_config(folder: str, **changes: Any) -> None:
    path = Path(folder) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


class Touch:
    """Code in a pickle: whoever runs it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


def at_frames(features: np.ndarray, topology: str) -> np.ndarray:
    """FaceFormer's two rules, by hand: [C, D] at 50 Hz to 30 fps, end points aligned, or cut to pairs at 25 fps."""
    n = len(features)
    if topology == "biwi":
        return features[: n // 2 * 2]
    times = np.linspace(0, n - 1, int(n / 50 * 30))
    return np.stack([np.interp(times, np.arange(n), column) for column in features.T], axis=1)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: Any, **__: Any) -> None:
        pytest.fail("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", asked)
    monkeypatch.setattr(socket, "getaddrinfo", asked)


@pytest.mark.parametrize("topology", ["vocaset", "biwi"])
@pytest.mark.parametrize("name", MODELS)
def test_features_are_the_models_own(name: str, topology: str, tmp_path: Path) -> None:
    """As the model's own forward gives them with its front end's features at the video's frames; float64."""
    model = random_model(name)
    encoder = build_audio_encoder("speech", pretrained=folder_of(model, tmp_path), topology=topology).eval().double()
    assert encoder.kind == MODELS[name][0] and encoder.width == 16
    wave = torch.randn(1, 13_100, dtype=torch.float64)
    model = model.double()
    with torch.no_grad():
        if encoder.kind == "wav2vec2-bert":  # whose features are tested below
            frames = at_frames(encoder.conv_features(wave)[0].numpy(), topology)
            expected = model(torch.from_numpy(frames)[None]).last_hidden_state
        else:
            frames = at_frames(model.feature_extractor(wave)[0].T.numpy(), topology)
            model.feature_extractor.forward = lambda _: torch.from_numpy(frames.T)[None]
            expected = model(wave).last_hidden_state
        found = encoder(wave)
    assert found.shape == expected.shape and encoder.n_frames(13_100) * encoder.features_per_frame == len(frames)
    assert float((found - expected).abs().max()) < 1e-9 * float(expected.abs().max())


@pytest.mark.parametrize("n_samples", [1700, 16000, 16079, 16080, 16239, 16240, 23457])
def test_log_mel_is_that_of_the_published_feature_extractor(n_samples: int) -> None:
    """Odd and even numbers of windows; speech-like, so that no band lies at the floor."""
    rng = np.random.default_rng(n_samples)
    wave = np.cumsum(rng.normal(size=n_samples)).astype(np.float32)
    wave = (wave - wave.mean()) / wave.std()
    published = transformers.SeamlessM4TFeatureExtractor()(wave, sampling_rate=16000, return_tensors="np")
    found = paired_log_mel(torch.from_numpy(wave)[None])
    assert found.shape == (1, conv_frames(n_samples), 160) and found.dtype == torch.float32
    assert np.abs(found.numpy() - published["input_features"]).max() < 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_a_checkpoint_holds_the_whole_encoder(name: str, tmp_path: Path) -> None:
    encoder = build_audio_encoder("speech", pretrained=folder_of(random_model(name), tmp_path / "published"))
    actor = FaceFormer(encoder, 8, feature_dim=16, n_subjects=2).eval()
    torch.save({"actor": actor_payload(actor, ["a", "b"])}, tmp_path / "best.pt")
    again = load_actor(tmp_path)[0]
    assert again.config() == actor.config() and again.config()["audio"]["kind"] == MODELS[name][0]
    wave = torch.randn(1, 8000)
    assert torch.equal(again.audio_encoder(wave), encoder(wave))


def test_masks_are_for_training_alone() -> None:
    """Spans are masked in training, after the convolutions; not in evaluation, and not where it is switched off."""
    settings = {**WAV2VEC2, "hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    settings |= {"layerdrop": 0.0, "mask_time_prob": 0.5}
    for kind in ("hubert", "wavlm"):
        encoder = build_audio_encoder(kind, config=settings)
        wave = torch.randn(1, 16000)
        whole = encoder.eval()(wave)
        assert float((encoder.train()(wave) - whole).detach().abs().max()) > 1e-2
        encoder.spec_augment = False
        torch.testing.assert_close(encoder(wave), whole)


class TestPublished:
    @pytest.mark.parametrize("kind", [None, "hubert"])
    def test_a_kind_that_is_named(self, kind: str | None, tmp_path: Path) -> None:
        folder = folder_of(random_model("HuBERT"), tmp_path)
        assert SpeechAudioEncoder(pretrained=folder, kind=kind).kind == "hubert"

    def test_with_a_head_and_in_half_precision(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        model = transformers.HubertForCTC(transformers.HubertConfig(**WAV2VEC2, vocab_size=40)).half()
        encoder = build_audio_encoder("speech", pretrained=folder_of(model, tmp_path))
        own = dict(encoder.model.named_parameters())
        assert all(torch.equal(own[name], value.float()) for name, value in model.hubert.named_parameters())
        assert {value.dtype for value in own.values()} == {torch.float32}
        assert "vocab_size" not in encoder.config()["config"]

    @pytest.mark.parametrize(
        ("kind", "changes", "match"),
        [
            ("wav2vec2", {}, "holds hubert, not wav2vec2; set actor.audio.kind=hubert, or actor=speech"),
            ("speech", {"model_type": "whisper"}, "says 'whisper'; known are wav2vec2, hubert"),
            ("speech", {"model_type": None}, "says 'None'; known are"),
            ("speech", {"conv_stride": [5, 2, 2, 2, 2, 2, 4]}, "50 features a second.*theirs are of 400 every 640"),
            ("speech", {"conv_stride": [5, 2, 2]}, "incorrect"),
            ("speech", {"hidden_size": "16"}, "hidden_size is 16; it cannot be"),
            ("speech", {"hidden_act": "owner/name"}, "owner/name"),
            ("speech", {"num_attention_heads": 3}, "divisible"),
            ("speech", {"num_hidden_layers": 2}, "its weights lack encoder.layers.1"),
            ("speech", {"num_attention_heads": 0}, "zero; give the folder of a whole hubert"),
            ("speech", {"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000; it cannot be"),
            ("speech", {"hidden_size": 32}, "pretrained=.*other sizes than its config.json.*folder of a whole hubert"),
            ("speech", {"quantization_config": {"quant_method": "gptq"}}, "its weights are quantised"),
        ],
    )
    def test_what_does_not_fit(self, kind: str, changes: dict[str, Any], match: str, tmp_path: Path) -> None:
        folder = folder_of(random_model("HuBERT"), tmp_path)
        edit_config(folder, **changes)
        with pytest.raises(UserError, match=match) as caught:
            build_audio_encoder(kind, pretrained=folder)
        assert f"actor.audio.pretrained={folder}" in str(caught.value) and len(str(caught.value)) < 500

    @pytest.mark.parametrize(
        ("name", "changes", "match"),
        [
            ("wav2vec2", {"add_adapter": True}, "adapter .* changes the rate of 50 features"),
            ("wav2vec2-BERT", {"add_adapter": True}, "adapter .* changes the rate of 50 features"),
            ("wav2vec2-BERT", {"feature_projection_input_dim": 80}, "is 80; it must be 160"),
            ("wav2vec2-BERT", {"position_embeddings_type": "x"}, "position_embeddings_type"),
            ("wav2vec2-BERT", {"max_source_positions": 10**6}, "max_source_positions is 1000000; it cannot be"),
        ],
    )
    def test_other_rates(self, name: str, changes: dict[str, Any], match: str, tmp_path: Path) -> None:
        folder = folder_of(random_model(name), tmp_path)
        edit_config(folder, **changes)
        with pytest.raises(UserError, match=match):
            build_audio_encoder("speech", pretrained=folder)

    def test_weights_that_cannot_be(self, tmp_path: Path) -> None:
        """Half a file, numbers that are not finite, and code in place of weights."""
        model = random_model("HuBERT")
        for name in ("half", "nan", "code"):
            folder_of(model, tmp_path / name)
        weights = (tmp_path / "half" / "model.safetensors").read_bytes()
        (tmp_path / "half" / "model.safetensors").write_bytes(weights[: len(weights) // 2])
        with torch.no_grad():
            model.encoder.layer_norm.bias[0] = float("nan")
        folder_of(model, tmp_path / "nan")
        (tmp_path / "code" / "model.safetensors").unlink()
        torch.save({"a": Touch(str(tmp_path / "ran"))}, tmp_path / "code" / "pytorch_model.bin")
        for name, match in (("half", "deserializing"), ("nan", "layer_norm.bias' holds NaN"), ("code", "than tensors")):
            with pytest.raises(UserError, match=f"actor.audio.pretrained={tmp_path / name}: .*{match}"):
                build_audio_encoder("speech", pretrained=str(tmp_path / name))
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", "3"])
    def test_no_config(self, content: str | None, tmp_path: Path) -> None:
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(UserError, match="actor.audio.pretrained="):
            build_audio_encoder("speech", pretrained=str(tmp_path))

    def test_no_code_and_no_kernels(self, tmp_path: Path) -> None:
        folder = folder_of(random_model("WavLM"), tmp_path)
        sound = build_audio_encoder("speech", pretrained=folder)
        (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nEvil = EvilModel = None")
        kernels = dict.fromkeys(["attn_implementation", "_attn_implementation"], "kernels-community/x")
        code = {"AutoConfig": "evil.Evil", "AutoModel": "evil.EvilModel"}
        edit_config(folder, **kernels, auto_map=code)
        assert build_audio_encoder("speech", pretrained=folder).config() == sound.config()
        assert not (tmp_path / "ran").exists()

    def test_neither_a_folder_nor_a_kind(self) -> None:
        with pytest.raises(UserError, match=r"actor\.audio\.pretrained: name a folder, or actor\.audio\.kind"):
            build_audio_encoder("speech")
        with pytest.raises(UserError, match=r"actor\.audio\.config: .*divisible"):
            build_audio_encoder("wavlm", config={**WAV2VEC2, "num_attention_heads": 3})


@pytest.mark.parametrize("kind", SPEECH_MODELS)
@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("hidden_size", 10**6, "its config asks for"),
        ("hidden_size", 10**12, "hidden_size is 1000000000000; it cannot be"),
        ("num_hidden_layers", 999, "asks for 999 layers, the file holds"),
        ("hidden_dropout", 7, "hidden_dropout is 7; it cannot be"),
        ("layer_norm_eps", float("nan"), "layer_norm_eps is nan"),
        ("hidden_act", ["gelu"], "hidden_act is"),
        ("add_adapter", True, "adapter|no settings"),
    ],
)
def test_files_that_ask_for_another_model(
    kind: str, name: str, value: object, match: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = WAV2VEC2_BERT if kind == "wav2vec2-bert" else WAV2VEC2
    payload = actor_payload(FaceFormer(build_audio_encoder(kind, config=settings), 8, 16, n_subjects=2), ["a", "b"])
    payload["config"]["audio"]["config"][name] = value
    torch.save({"actor": payload}, tmp_path / "best.pt")
    if name == "add_adapter" and kind in ("hubert", "unispeech", "unispeech-sat"):  # which have none
        load_actor(tmp_path)
        assert "the file's add_adapter are no settings" in caplog.text
        return
    with pytest.raises(UserError, match=rf"best\.pt: no actor of this project inside \(.*({match})"):
        load_actor(tmp_path)


@pytest.mark.parametrize("name", ["mel", "listener", *MODELS])
def test_in_another_process_it_is_the_same(name: str) -> None:
    """Torch does not pickle wav2vec2 itself, so a worker that hears gets what it is made of."""
    torch.manual_seed(0)
    kind, settings = (name, None) if name in ("mel", "listener") else MODELS[name]
    options = {"width": 16} if settings is None else {"config": settings}
    encoder = build_audio_encoder(kind, **options, fps=30.0, features_per_frame=1).eval()
    if name == "wav2vec2":
        with pytest.raises(RuntimeError, match="Serialization"):
            pickle.dumps(encoder)
    torch.manual_seed(1)
    again = pickle.loads(pickle.dumps(packed_encoder(encoder)))()
    assert not again.training and not any(p.requires_grad for p in again.parameters())
    assert {k: v.tolist() for k, v in again.state_dict().items()} == {
        k: v.tolist() for k, v in encoder.state_dict().items()
    }  # which name its features in a cache
    with torch.no_grad():
        waveform = torch.randn(1, 8000)
        assert torch.equal(again(waveform), encoder(waveform))


class OwnEncoder(SpeechAudioEncoder):
    """One that no file can name, and that pickles."""

    def __init__(self) -> None:
        super().__init__({**WAV2VEC2_BERT}, kind="wav2vec2-bert", fps=30.0, features_per_frame=1)


def test_an_encoder_of_ones_own_goes_as_it_is() -> None:
    encoder = OwnEncoder().eval()
    again = pickle.loads(pickle.dumps(packed_encoder(encoder)))()
    waveform = torch.randn(1, 8000)
    assert type(again) is OwnEncoder and again is not encoder
    with torch.no_grad():
        assert torch.equal(again(waveform), encoder(waveform))
