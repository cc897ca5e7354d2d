"""CodeTalker against numbers computed from the public reference implementation (tests/golden/codetalker/README.md)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_codetalker import Golden, load
from torch import Tensor

from s2f_rl.models.codetalker.published import own_name

TOLERANCE = {
    "conv_features": 1e-4,
    "s2 hidden": 2e-4,
    "s1 hidden": 1e-4,
    "distances": 2e-3,
    "features": 5e-4,
    "feedback": 5e-4,
    "recon": 5e-5,
    "decoded_from_indices": 5e-5,
    "quantised": 5e-5,
    "vertices": 5e-5,
    "pred_tf": 5e-5,
    "perplexity": 2e-5,
    "loss": 2e-5,
    "grad": 2e-5,
}
"""Absolute, as the data's README suggests; several times the data's own distance to float64, which is run here too."""
STAGE1 = {"vocaset": ["len2", "len33", "len78", "batch"], "biwi": ["len2", "len28", "len66", "batch"]}


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


def agrees(golden: Golden, name: str, found: Tensor) -> None:
    """Indices are equal; floats within the tolerance of their kind."""
    expected, found = golden.arrays[name], found.detach().numpy()
    assert found.shape == expected.shape, name
    if expected.dtype == np.int64:
        assert np.array_equal(found, expected), f"{name}: {(found != expected).sum()} of {found.size} differ"
        return
    case, last = name.split("/")[0], name.split("/")[2].partition("_")[0]
    kinds = (name.split("/")[2], f"{case} {last}", last)
    tolerance = next(TOLERANCE[kind] for kind in kinds if kind in TOLERANCE)
    assert np.abs(found - expected).max() < tolerance, name


@pytest.mark.parametrize(("topology", "case"), [(t, case) for t, cases in STAGE1.items() for case in cases])
class TestStage1:
    def displacement(self, golden: Golden, case: str) -> tuple[Tensor, Tensor]:
        vertices, template = golden.given(
            f"s1/{case}/vertice", "s1/batch/template" if case == "batch" else "in/template"
        )
        return vertices - template.unsqueeze(1), template.unsqueeze(1)

    @torch.no_grad()
    def test_forward(self, topology: str, case: str, dtype: torch.dtype) -> None:
        golden = load(topology, dtype)
        book, (displacement, template) = golden.actor.codebook, self.displacement(golden, case)
        found, where = book(displacement), f"s1/{case}"
        agrees(golden, f"{where}/hidden", found.hidden.flatten(-2))
        agrees(golden, f"{where}/indices", found.indices)
        agrees(golden, f"{where}/indices", book.encode(displacement))
        agrees(golden, f"{where}/quantised", found.quantised.flatten(1, 2).transpose(1, 2))
        agrees(golden, f"{where}/recon", found.displacement + template)
        if case != "batch":
            agrees(golden, f"{where}/decoded_from_indices", book.decode(found.indices) + template)
        if case == "len2":
            agrees(golden, f"{where}/distances", book.distances(found.hidden)[0])

    def test_losses(self, topology: str, case: str, dtype: torch.dtype) -> None:
        golden = load(topology, dtype)
        book, (displacement, _), where = golden.actor.codebook, self.displacement(golden, case), f"s1/{case}"
        terms = book.losses(displacement)
        total = terms["rec"] + terms["quant"]
        for name, value in (("loss_rec", terms["rec"]), ("loss_quant", terms["quant"]), ("loss", total)):
            agrees(golden, f"{where}/{name}", value)
        agrees(golden, f"{where}/perplexity", terms["perplexity"])
        for name, loss in (("grad_loss", total), ("grad_loss_quant", terms["quant"])):
            expect_gradients(golden, f"{where}/{name}", loss, "grad_loss" if case == STAGE1[topology][1] else None)


def expect_gradients(golden: Golden, where: str, loss: Tensor, listed_in: str | None) -> None:
    """Of ``loss``, for every name that ``listed_in`` of the same case has; one absent under ``where`` has none."""
    if listed_in is None:
        return
    start = f"{where.rpartition('/')[0]}/{listed_in}/"
    names = [name.removeprefix(start) for name in golden.arrays if name.startswith(start)]
    assert len(names) >= 4
    parameters = dict(golden.actor.named_parameters())
    ours = [parameters[own_name(name)] for name in names]
    for name, gradient in zip(
        names, torch.autograd.grad(loss, ours, retain_graph=True, allow_unused=True), strict=True
    ):
        if f"{where}/{name}" not in golden.arrays:
            assert gradient is None, name
        else:
            assert gradient is not None, name
            assert np.abs(gradient.numpy() - golden.arrays[f"{where}/{name}"]).max() < TOLERANCE["grad"], name


@pytest.mark.parametrize("topology", ["vocaset", "biwi"])
class TestStage2:
    def style(self, golden: Golden, case: str) -> Tensor:
        first, second, weight = golden.given("in/one_hot", "in/one_hot2", "in/mix_weight")
        return weight * first + (1 - weight) * second if case == "predict_mix" else first

    @pytest.mark.parametrize("case", ["predict", "predict_mix"])
    def test_predict(self, topology: str, case: str, dtype: torch.dtype) -> None:
        golden = load(topology, dtype)
        actor, (audio, template), style = (
            golden.actor,
            golden.given("in/audio", "in/template"),
            self.style(golden, case),
        )
        actor.train()  # prediction is deterministic whatever the mode
        codes, vertices, mode = actor.predict_codes(audio, style), actor.predict(audio, template, style), actor.training
        actor.eval()
        agrees(golden, f"s2/{case}/indices", codes[0])
        agrees(golden, f"s2/{case}/vertices", vertices)
        assert mode
        if case == "predict":
            (truth,) = golden.given("s2/nat/vertice")
            agrees(golden, f"s2/{case}/loss_motion", (vertices - truth).square().mean())

        with torch.no_grad():
            heard = actor.encode(audio)
            steps, features, fed_back = actor.steps(style, heard.shape[1]), [], []
            for t, own in enumerate(zip(*(layer.unbind(1) for layer in actor.decoder.hear(heard)), strict=True)):
                if t:
                    steps.remember(codes[:, t - 1])
                    fed_back.append(actor.codebook.decoder.output(steps.latent))
                features.append(steps.advance(list(own))[0])
        agrees(golden, f"s2/{case}/features", torch.stack(features))
        agrees(golden, f"s2/{case}/feedback", torch.cat(fed_back))

    @torch.no_grad()
    def test_audio(self, topology: str, dtype: torch.dtype) -> None:
        golden = load(topology, dtype)
        (audio,), encoder = golden.given("in/audio"), golden.actor.audio_encoder
        agrees(golden, "s2/predict/conv_features", encoder.conv_features(audio))
        agrees(golden, "s2/predict/hidden", encoder(audio))

    @pytest.mark.parametrize("case", ["nat", "short", "long"])
    def test_teacher_forced(self, topology: str, case: str, dtype: torch.dtype) -> None:
        golden, where = load(topology, dtype), f"s2/{case}"
        actor, (audio, template, style, vertices) = golden.actor, golden.given(
            "in/audio", "in/template", "in/one_hot", f"{where}/vertice"
        )  # fmt: skip
        predicted = actor.teacher_forced(audio, template, style, vertices)
        agrees(golden, f"{where}/pred_tf", predicted)
        used = predicted.shape[1]
        assert used == golden.arrays[f"{where}/gt_used_len"]
        agrees(golden, f"{where}/hidden", actor.audio_encoder(audio, vertices.shape[1]))
        displacement = vertices[:, :used] - template.unsqueeze(1)
        features = actor.forced_features(actor.encode(audio, vertices.shape[1]), style, displacement)
        agrees(golden, f"{where}/features", features[0])
        agrees(golden, f"{where}/indices", actor.codebook.nearest(features)[0])
        truth = actor.codebook.encode(displacement)
        agrees(golden, f"{where}/indices_gt", truth[0])
        motion = (predicted - vertices[:, :used]).square().mean()
        regularity = (features - actor.codebook.codes[truth].detach()).square().mean()
        for name, loss in (("loss_motion", motion), ("loss_reg", regularity), ("loss", motion + regularity)):
            agrees(golden, f"{where}/{name}", loss)
            if name != "loss":
                expect_gradients(golden, f"{where}/grad_{name}", loss, "grad_loss_motion" if case == "nat" else None)
