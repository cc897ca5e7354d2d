"""SpeechMeshTransformer against the golden file, the published layout, and a slow clip-by-clip reference."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from s2f_rl.errors import UserError
from s2f_rl.rewards import SpeechMeshTransformer, info_nce
from s2f_rl.rewards.model.speech_mesh import flat_vertices, short_attention, sinusoid_table

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN / "speech_mesh.npz", allow_pickle=False) as file:
        return {key: torch.from_numpy(np.array(file[key])) for key in file.files}


@pytest.fixture(scope="module")
def state_dict(golden: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key[3:]: value for key, value in golden.items() if key.startswith("sd/")}


@pytest.fixture(scope="module")
def backbone(state_dict: dict[str, Tensor]) -> SpeechMeshTransformer:
    return SpeechMeshTransformer.from_state_dict(state_dict, n_heads=4).eval()


def test_attention_of_few_tokens() -> None:
    """What CUDA takes for the five frames of a clip: the numbers and gradients of torch's own."""
    torch.manual_seed(0)
    qkv = torch.randn(7, 5, 3, 4, 8, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
    found, pull = short_attention(qkv), torch.randn_like(expected)
    torch.testing.assert_close(found, expected)
    of_found, of_expected = (torch.autograd.grad(each, qkv, pull)[0] for each in (found, expected))
    torch.testing.assert_close(of_found, of_expected)


class TestGolden:
    def test_features_and_loss(self, golden: dict[str, Tensor], backbone: SpeechMeshTransformer) -> None:
        with torch.no_grad():
            mesh, audio = backbone(golden["in/mesh"], golden["in/mel"])
            mesh_pooled = backbone.pool_mesh(backbone.embed_frames(golden["in/mesh"]))
            audio_pooled = backbone.pool_audio(golden["in/mel"][:, 0])
            loss = info_nce(mesh, audio, float(golden["out/temperature"]))
        for found, key in (
            (mesh, "mesh_feature"), (audio, "audio_feature"), (mesh_pooled, "mesh_pooled"),
            (audio_pooled, "audio_pooled"), (loss, "percp_loss"),
        ):  # fmt: skip
            assert (found - golden[f"out/{key}"]).abs().max() < 1e-5, key

    def test_sizes_are_read_off_the_tensors(self, backbone: SpeechMeshTransformer) -> None:
        sizes = (backbone.n_coordinates, backbone.n_vertices, backbone.width, backbone.depth, backbone.mlp_width)
        assert sizes == (45, 15, 32, 2, 128)

    def test_names_and_shapes_of_the_published_layout(self) -> None:
        layout = json.loads((GOLDEN / "checkpoint_layout_speech_mesh.json").read_text())
        config = layout["config"]
        with torch.device("meta"):
            model = SpeechMeshTransformer(config["V"], config["dim"], config["depth"], config["n_heads"])
        assert {name: list(tensor.shape) for name, tensor in model.state_dict().items()} == layout["entries"]
        assert sum(p.numel() for p in model.parameters()) == layout["n_parameters"]


class TestPaths:
    def test_shared_frames_equal_the_clip_path(
        self, golden: dict[str, Tensor], backbone: SpeechMeshTransformer
    ) -> None:
        vertices = golden["plrs/vertices"]
        clips = torch.stack([vertices[i : i + 5] for i in range(len(vertices) - 4)])
        with torch.no_grad():
            slow, _ = backbone(clips, golden["in/mel"][:1].expand(len(clips), -1, -1, -1))
            fast = backbone.encode_mesh(torch.stack([vertices, vertices.flip(0)]), max_clips=7)
        assert fast.shape == (2, 39, 32)
        assert (fast[0] - slow).abs().max() < 1e-6
        assert not torch.allclose(fast[1], fast[0])

    def test_chunks_do_not_change_audio_features(
        self, golden: dict[str, Tensor], backbone: SpeechMeshTransformer
    ) -> None:
        with torch.no_grad():
            whole = backbone.encode_audio(golden["plrs/mel"], max_clips=1000)
            parts = backbone.encode_audio(golden["plrs/mel"], max_clips=4)
        assert (whole - parts).abs().max() < 1e-6
        assert torch.allclose(whole.norm(dim=-1), torch.ones(39), atol=1e-6)

    def test_short_sequences_have_no_clip(self, backbone: SpeechMeshTransformer) -> None:
        for n_frames in range(5):
            assert backbone.encode_mesh(torch.zeros(2, n_frames, 45)).shape == (2, 0, 32)

    def test_meshes_of_both_shapes(self, golden: dict[str, Tensor], backbone: SpeechMeshTransformer) -> None:
        with torch.no_grad():
            flat, _ = backbone(golden["in/mesh"], golden["in/mel"])
            points, _ = backbone(golden["in/mesh"].unflatten(-1, (15, 3)), golden["in/mel"])
        assert torch.equal(flat, points)
        with pytest.raises(UserError, match="meshes of 15 vertices"):
            flat_vertices(torch.zeros(2, 5, 48), 45)


def test_sinusoid_table_by_hand() -> None:
    table = sinusoid_table(3, 4)
    assert table[2, 0].item() == pytest.approx(math.sin(2.0), abs=1e-7)
    assert table[2, 1].item() == pytest.approx(math.cos(2.0), abs=1e-7)
    assert table[2, 3].item() == pytest.approx(math.cos(2.0 / 100.0), abs=1e-7)


def test_info_nce_by_hand() -> None:
    mesh, audio = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    similarity = [[1.0, 0.6], [0.0, 0.8]]
    rows = [-s[i] + math.log(sum(math.exp(x) for x in s)) for i, s in enumerate(similarity)]
    columns = [[similarity[0][j], similarity[1][j]] for j in range(2)]
    cols = [-s[j] + math.log(sum(math.exp(x) for x in s)) for j, s in enumerate(columns)]
    assert info_nce(mesh, audio, 1.0).item() == pytest.approx((sum(rows) + sum(cols)) / 4, abs=1e-6)


class TestStateDicts:
    @pytest.mark.parametrize("wrap", [
        lambda s: {"model": s},
        lambda s: {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {"model": {"state_dict": {f"module.model.{k}": v for k, v in s.items()}}, "optimizer": {}},
    ])  # fmt: skip
    def test_wrappers(self, state_dict: dict[str, Tensor], backbone: SpeechMeshTransformer, wrap) -> None:
        loaded = SpeechMeshTransformer.from_state_dict(wrap(state_dict), n_heads=4)
        for name, tensor in backbone.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor)

    def test_extra_entries_are_warned_about(self, state_dict: dict[str, Tensor], caplog) -> None:
        SpeechMeshTransformer.from_state_dict({**state_dict, "decoder.mask": torch.zeros(3)}, n_heads=4)
        assert "decoder.mask" in caplog.text

    def test_loading_does_not_share_memory(self, state_dict: dict[str, Tensor]) -> None:
        loaded = SpeechMeshTransformer.from_state_dict(state_dict, n_heads=4)
        with torch.no_grad():
            loaded.encoder.norm.weight.add_(1.0)
        assert not torch.equal(loaded.encoder.norm.weight, state_dict["encoder.norm.weight"])

    @pytest.mark.parametrize(("change", "message"), [
        (lambda s: s.pop("encoder_audio.blocks.1.mlp.fc2.bias"), "lacks 'encoder_audio.blocks.1.mlp.fc2.bias'"),
        (lambda s: s.pop("encoder.patch_embed.weight"), "lacks 'encoder.patch_embed.weight'"),
        (lambda s: s.update({"encoder.norm.bias": torch.zeros(31)}), "shape"),
        (lambda s: s.update({"encoder.norm.bias": torch.full((32,), math.nan)}), "NaN"),
        (lambda s: s.update({"encoder.norm.bias": torch.zeros(32).to_sparse()}), "dense"),
        (lambda s: s.update({"encoder.patch_embed.weight": torch.zeros(32, 46)}), "multiple of 3"),
        (lambda s: s.update({"encoder.patch_embed.weight": torch.zeros(32)}), "misshapen"),
    ])  # fmt: skip
    def test_refused_in_one_line(self, state_dict: dict[str, Tensor], change, message: str) -> None:
        spoiled = dict(state_dict)
        change(spoiled)
        with pytest.raises(UserError, match=message) as caught:
            SpeechMeshTransformer.from_state_dict(spoiled, n_heads=4)
        assert "\n" not in str(caught.value)

    def test_heads_must_divide_the_width(self, state_dict: dict[str, Tensor]) -> None:
        with pytest.raises(UserError, match="n_heads=5"):
            SpeechMeshTransformer.from_state_dict(state_dict, n_heads=5)
