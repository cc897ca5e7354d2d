"""FaceFormer against numbers computed from the public reference implementation (tests/golden/README.md)."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from golden_faceformer import GOLDEN, load

from s2f_rl.data.audio import conv_frames
from s2f_rl.errors import UserError
from s2f_rl.models import FaceFormer
from s2f_rl.models.audio_encoders import frames_from_conv
from s2f_rl.models.decoder import temporal_bias
from s2f_rl.models.decoder_parts import alibi_slopes, periodic_positions

TOLERANCE = {"conv": 1e-4, "hidden": 2e-4, "vertices": 5e-5, "loss": 1e-6}


def difference(a, b) -> float:
    assert tuple(a.shape) == tuple(b.shape)
    return float(np.abs(a.detach().numpy() - b).max())


@pytest.mark.parametrize("topology", ["vocaset", "biwi"])
class TestGolden:
    def test_encoder(self, topology):
        data, model, (audio, _, _), _ = load(topology)
        assert difference(model.audio_encoder.conv_features(audio), data["predict/conv_features"]) < TOLERANCE["conv"]
        assert difference(model.audio_encoder(audio), data["predict/hidden"]) < TOLERANCE["hidden"]

    def test_predict(self, topology):
        data, model, inputs, _ = load(topology)
        model.train()  # predict is deterministic whatever the mode
        assert difference(model.predict(*inputs), data["predict/vertices"]) < TOLERANCE["vertices"]
        assert model.training

    @pytest.mark.parametrize("case", ["nat", "short", "long"])
    @torch.no_grad()
    def test_cases(self, topology, case):
        data, model, (audio, template, style), _ = load(topology)
        truth = torch.from_numpy(data[f"case_{case}/vertice"])
        n = int(data[f"case_{case}/frame_num"])
        assert difference(model.audio_encoder(audio, n), data[f"case_{case}/hidden"]) < TOLERANCE["hidden"]
        for mode, predicted in (
            ("tf", model.teacher_forced(audio, template, style, truth)),
            ("ar", model.autoregressive(audio, template, style, n)),
        ):
            assert difference(predicted, data[f"case_{case}/pred_{mode}"]) < TOLERANCE["vertices"]
            loss = (predicted - truth[:, : predicted.shape[1]]).square().mean()
            assert abs(float(loss) - float(data[f"case_{case}/loss_{mode}"])) < TOLERANCE["loss"]

    def test_frame_table(self, topology):
        data, _, _, _ = load(topology)
        for n_conv, n_frames in data["frame_table"]:
            assert frames_from_conv(int(n_conv), topology) == n_frames
        for n_samples, n_conv in data["conv_len_table"]:
            assert conv_frames(int(n_samples)) == n_conv

    def test_round_trip(self, topology):
        _, model, inputs, state = load(topology)
        back = model.to_reference()
        assert back.keys() == state.keys()
        assert all(back[k].shape == state[k].shape and torch.allclose(back[k], state[k], atol=1e-6) for k in state)
        old = {
            k.replace("parametrizations.weight.original0", "weight_g").replace(
                "parametrizations.weight.original1", "weight_v"
            ): v
            for k, v in state.items()
        }
        assert "audio_encoder.encoder.pos_conv_embed.conv.weight_g" in old
        again = FaceFormer.from_reference({f"module.{k}": v for k, v in old.items()}, topology, None,
                                          model.audio_encoder.config()["config"])  # fmt: skip
        assert torch.equal(again.predict(*inputs), model.predict(*inputs))

    def test_bad_checkpoints(self, topology):
        _, model, _, state = load(topology)
        config = model.audio_encoder.config()["config"]
        with pytest.raises(UserError, match="missing: vertice_map_r.weight"):
            FaceFormer.from_reference(
                {k: v for k, v in state.items() if k != "vertice_map_r.weight"}, topology, None, config
            )
        with pytest.raises(UserError, match="unknown: stray"):
            FaceFormer.from_reference({**state, "stray": torch.zeros(1)}, topology, None, config)
        with pytest.raises(UserError, match="wrong shape: vertice_map.bias"):
            FaceFormer.from_reference({**state, "vertice_map.bias": torch.zeros(3)}, topology, None, config)


def test_masks_and_positions():
    data = np.load(GOLDEN / "biased_mask.npz")
    for i in range(2):
        heads, length, period = (int(data[f"mask{i}/{k}"]) for k in ("n_head", "max_seq_len", "period"))
        mask = temporal_bias(torch.tensor(alibi_slopes(heads)), length, period)
        expected = next(data[k] for k in data.files if k.startswith(f"mask{i}/") and data[k].ndim == 3)
        assert np.array_equal(mask.numpy(), expected)
    for i in range(2):
        expected = next(data[k] for k in data.files if k.startswith(f"ppe{i}/") and data[k].ndim == 3)
        period = {0: 30, 1: 25}[i]
        table = periodic_positions(expected.shape[2], period).repeat(expected.shape[1] // period, 1)
        # sine of position x frequency: near 29 float32 has steps of 2^-19, and product and frequency are rounded twice
        assert np.abs(table.numpy() - expected[0]).max() < 4 * 2**-19


@pytest.mark.parametrize("topology", ["vocaset", "biwi"])
def test_published_layout(topology):
    """Names and shapes at full size (239 entries), with wav2vec2-base, without allocating the weights."""
    layout = json.loads((GOLDEN / f"checkpoint_layout_faceformer_{topology}.json").read_text())
    config = layout["config"]
    from s2f_rl.models import Wav2Vec2AudioEncoder

    with torch.device("meta"):
        encoder = Wav2Vec2AudioEncoder({}, topology)
        model = FaceFormer(encoder, config["vertice_dim"] // 3, config["feature_dim"], config["n_train_subjects"])
    ours = {k: list(v.shape) for k, v in model.to_reference().items()}
    expected = {k: v for k, v in layout["entries"].items() if k not in layout["only_2022"]}
    assert ours == expected
