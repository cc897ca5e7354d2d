"""CodeTalker: the fast ways against the published one, lanes, windows, files."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_codetalker import GOLDEN, load
from small_codetalker import small_actor
from tiny import make_tiny_corpus

from benchmarks.speed import codetalker
from benchmarks.speed.codetalker import published_way
from s2f_rl import cli
from s2f_rl.data import FaceCorpus
from s2f_rl.data.tensor_files import save_tensors
from s2f_rl.errors import UserError
from s2f_rl.evaluation import predict_corpus
from s2f_rl.models import Actor, CodeTalker, Wav2Vec2AudioEncoder
from s2f_rl.models.audio_cache import CachedAudio
from s2f_rl.models.checkpoint import actor_payload, load_actor

TOPOLOGIES = ["vocaset", "biwi"]


# -- prediction ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_generate_is_the_published_way(topology: str) -> None:
    """Which runs everything again for every frame; three lanes at once here, of which one is shorter."""
    golden = load(topology, torch.float64)
    actor, (audio,) = golden.actor, golden.given("in/audio")
    with torch.no_grad():
        heard = torch.cat([actor.encode(audio), actor.encode(audio.flip(1)), actor.encode(0.1 * audio)])[:, :45]
        style = torch.eye(actor.n_styles, dtype=torch.float64)[[0, 2, 1]]
        codes = actor.generate(heard, style)
        for lane, n_frames in enumerate((45, 30, 45)):
            expected, motion = published_way(actor, heard[lane : lane + 1, :n_frames], style[lane : lane + 1])
            assert torch.equal(codes[lane : lane + 1, :n_frames], expected)
            torch.testing.assert_close(actor.decode(expected), motion, rtol=0, atol=1e-9)
    assert codes.unique().numel() > 10 and not torch.equal(codes[0], codes[1])


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_prefix_is_decoded_as_a_whole(topology: str) -> None:
    """The newest frame's latent is that of the decoder on all codes so far, from the first frame on."""
    golden = load(topology, torch.float64)
    book = golden.actor.codebook
    codes = torch.randint(book.n_codes, (2, 12, book.codes_per_frame), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        steps = golden.actor.steps(torch.eye(golden.actor.n_styles)[:2], 12)
        for t in range(12):
            steps.remember(codes[:, t])
            assert steps.latent is not None
            whole = book.decode(codes[:, [0, 0]] if t == 0 else codes[:, : t + 1], shared_row=True)[:, -1]
            torch.testing.assert_close(book.decoder.output(steps.latent), whole, rtol=0, atol=1e-9)


def test_lanes_are_alone_when_rows_are_shared() -> None:
    """In the public code a sequence's place in the batch decides what its codes are."""
    golden = load("vocaset", torch.float64)
    book, (vertices, template) = golden.actor.codebook, golden.given("s1/batch/vertice", "s1/batch/template")
    displacement = vertices - template.unsqueeze(1)
    with torch.no_grad():
        alone = [book(row[None]) for row in displacement]
        shared, own = book(displacement, shared_row=True), book(displacement)
        torch.testing.assert_close(shared.hidden, torch.cat([each.hidden for each in alone]))
        torch.testing.assert_close(shared.displacement, torch.cat([each.displacement for each in alone]))
        assert torch.equal(book.encode(displacement, shared_row=True), shared.indices)
        torch.testing.assert_close(book.decode(shared.indices, shared_row=True), shared.displacement)
        assert (own.hidden[1] - shared.hidden[1]).abs().max() > 0.1
        losses = book.losses(displacement, shared_row=True)
        torch.testing.assert_close(losses["rec"], (shared.displacement - displacement).abs().mean())


def test_one_frame_is_two_equal_ones() -> None:
    book = load("biwi", torch.float64).actor.codebook
    codes = torch.arange(book.codes_per_frame)[None, None]
    with torch.no_grad():
        doubled = book.decode(codes.repeat(1, 2, 1))
        torch.testing.assert_close(book.decode(codes), doubled[:, :1])
        torch.testing.assert_close(doubled[:, 0], doubled[:, 1])


class TestWindow:
    """``feedback_window``: the transformer of stage 1 sees the newest frames alone, the norm over time sees all."""

    @torch.no_grad()
    def test_against_the_mixer(self) -> None:
        golden = load("vocaset", torch.float64)
        book = golden.actor.codebook
        codes = torch.randint(book.n_codes, (1, 20, book.codes_per_frame), generator=torch.Generator().manual_seed(0))
        actor = copy.deepcopy(golden.actor)
        actor.feedback_window = 6
        steps, mixer = actor.steps(torch.eye(actor.n_styles)[:1], 20), book.decoder.mixer
        for t in range(20):
            steps.remember(codes[:, t])
            x = book.vectors(codes[:, : t + 1])
            x = torch.cat([x[:, :1], x[:, :1], x, x[:, -1:], x[:, -1:]], 1)
            x = torch.nn.functional.leaky_relu(mixer.convolution(x.transpose(1, 2)), 0.2).transpose(1, 2)
            x = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
            x = mixer.map(x[:, -6:]) + torch.tensor([0.0, 1.0]).repeat(x.shape[-1] // 2)
            for block in mixer.blocks:
                x = block(x)
            torch.testing.assert_close(steps.latent, x[:, -1])

    def test_as_long_as_the_speech_it_changes_nothing(self) -> None:
        features, style = torch.randn(2, 25, 1, 8, generator=torch.Generator().manual_seed(0)), torch.eye(2)
        exact = small_actor().generate(features, style)
        assert torch.equal(small_actor(feedback_window=25).generate(features, style), exact)
        assert not torch.equal(small_actor(feedback_window=1).generate(features, style), exact)

    def test_is_in_the_file(self, tmp_path: Path) -> None:
        save_tensors(tmp_path / "best.pt", {"actor": actor_payload(small_actor(feedback_window=7), ["a", "b"])})
        actor, _ = load_actor(tmp_path)
        assert isinstance(actor, CodeTalker) and actor.feedback_window == 7


def test_benchmark(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It compares the two ways before it prints a row, and says what a window changes."""
    monkeypatch.setattr("sys.argv", "codetalker.py --small --frames 3 6 --lanes 2 --windows 2".split())
    codetalker.main()
    rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert rows == ["frames", "---", "3", "6", "lanes", "---", "2", "window, frames", "---", "all", "2"]


def test_feedback_map_follows_the_weights() -> None:
    actor = small_actor()
    matrix, offset = actor.feedback_map()
    z = torch.randn(3, 16)
    with torch.no_grad():
        expected = actor.decoder.vertice_map(actor.codebook.decoder.output(z))
        torch.testing.assert_close(z @ matrix.t() + offset, expected, rtol=0, atol=1e-5)
        actor.codebook.decoder.output.weight.mul_(2.0)
    assert (
        torch.allclose(actor.feedback_map()[0], 2 * matrix) and actor.double().feedback_map()[0].dtype == torch.float64
    )


def test_to_metres() -> None:
    """Faces in another unit: the same codes, displacements times the unit."""
    golden = load("vocaset", torch.float64)
    actor, (audio, style, vertices, template) = copy.deepcopy(golden.actor), golden.given(
        "in/audio", "in/one_hot", "s1/len33/vertice", "in/template"
    )  # fmt: skip
    displacement = vertices - template.unsqueeze(1)
    codes, heard = actor.codebook.encode(displacement), actor.encode(audio)
    with torch.no_grad():
        motion, picked = actor.decode(codes), actor.generate(heard, style)
        actor.to_metres(0.186)
        assert torch.equal(actor.codebook.encode(0.186 * displacement), codes)
        torch.testing.assert_close(actor.decode(codes), 0.186 * motion)
        assert torch.equal(actor.generate(heard, style), picked)


# -- the rest of the package ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> FaceCorpus:
    return FaceCorpus(make_tiny_corpus(tmp_path_factory.mktemp("codetalker") / "corpus"), split="train")


def test_contract() -> None:
    actor = small_actor()
    assert isinstance(actor, Actor) and actor.linear_decode is None and len(list(actor.output_map())) == 2
    with pytest.raises(UserError, match="an actor of codes learns teacher-forced"):
        actor.imitate(torch.zeros(1, 2, 1, 8), torch.eye(2)[:1], torch.zeros(1, 2, 120), False)


def test_predictions_of_a_corpus(corpus: FaceCorpus) -> None:
    """Many utterances in lanes, each as if it were alone."""
    actor = small_actor(corpus.n_vertices, len(corpus.subjects))
    audio = CachedAudio(actor.audio_encoder, corpus)
    for prediction in predict_corpus(actor, audio, [0, 1, 2], [[0, 1], [1], [0]]):
        utterance = corpus[prediction.utterance]
        for column, displacement in zip(prediction.styles, prediction.displacement, strict=True):
            style, template = torch.eye(len(corpus.subjects))[[column]], torch.as_tensor(utterance.template)
            wave = torch.as_tensor(utterance.waveform)
            expected = actor.predict(wave[None], template.float()[None], style)[0] - template
            torch.testing.assert_close(displacement, expected.float(), rtol=0, atol=1e-4)


def test_commands(corpus: FaceCorpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    actor = small_actor(corpus.n_vertices, len(corpus.subjects))
    templates = {name: torch.as_tensor(corpus.template(name)) for name in corpus.subjects}
    payload = actor_payload(actor, list(corpus.subjects), corpus.mesh_identity, templates=templates)
    save_tensors(tmp_path / "best.pt", {"actor": payload})
    sound, here, root = next((corpus.root / "wav").glob("*.wav")), str(tmp_path / "best.pt"), str(corpus.root)
    assert cli.main(["export", "--checkpoint", here, "--out", str(tmp_path / "actor.pt")]) == 0
    out = tmp_path / "face.npy"
    assert cli.main(["animate", str(sound), "--checkpoint", str(tmp_path / "actor.pt"), "--out", str(out)]) == 0
    assert np.load(out).shape[1] == 3 * corpus.n_vertices and np.isfinite(np.load(out)).all()
    rows = tmp_path / "rows"
    assert cli.main(["evaluate", "--checkpoint", here, "--corpus", root, "--out", str(rows)]) == 0
    assert json.loads((rows / "summary.json").read_text())


# -- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", TOPOLOGIES)
class TestPublished:
    def test_layout(self, topology: str) -> None:
        """Names and shapes at the published sizes, without allocating the weights."""
        layout = json.loads((GOLDEN / f"checkpoint_layout_codetalker_{topology}.json").read_text())
        biwi = topology == "biwi"
        sizes = {"n_layers": 12, "n_subjects": 6, "code_width": 128, "codes_per_frame": 8} if biwi else {}
        with torch.device("meta"):
            encoder = Wav2Vec2AudioEncoder({}, topology)
            actor = CodeTalker(encoder, 23370 if biwi else 5023, mapped_codes=biwi, **sizes)
        for number, stage in enumerate(actor.to_reference(), start=1):
            ours = {
                k.replace("parametrizations.weight.original0", "weight_g").replace(
                    "parametrizations.weight.original1", "weight_v"
                ): list(v.shape)
                for k, v in stage.items()
            }
            assert ours == layout[f"{topology}_stage{number}.pth.tar"]

    def test_files(self, topology: str, tmp_path: Path) -> None:
        """Both spellings of weight norm, the wrapper, the tables of positions; a file."""
        golden = load(topology)
        one, two = golden.actor.to_reference()
        assert {k: v for k, v in one.items() if not k.endswith(".pe")}.keys() == golden.stages[0].keys()
        assert all(torch.equal(one[k], v) for k, v in golden.stages[0].items())
        assert all(torch.equal(two[k], v) for k, v in golden.stages[1].items())
        two = {
            k.replace("parametrizations.weight.original0", "weight_g").replace(
                "parametrizations.weight.original1", "weight_v"
            ): v
            for k, v in two.items()
        }
        assert "audio_encoder.encoder.pos_conv_embed.conv.weight_g" in two
        again = CodeTalker.from_reference(
            {"state_dict": one}, {f"module.{k}": v for k, v in two.items()}, **golden.options
        )
        audio, template, style = golden.given("in/audio", "in/template", "in/one_hot")
        assert torch.equal(again.predict(audio, template, style), golden.actor.predict(audio, template, style))
        for number, stage in ((1, one), (2, two)):
            torch.save({"state_dict": stage}, tmp_path / f"x_stage{number}.pth.tar")
        settings = golden.options["audio_config"]  # a file has the published number of heads and period
        found, about = load_actor(tmp_path / "x_stage2.pth.tar", topology, settings, metres_per_unit=1.0)
        assert isinstance(found, CodeTalker) and about == {} and not found.training
        expected = CodeTalker.from_reference(*golden.stages, topology, audio_config=settings).eval()
        assert torch.equal(found.predict(audio, template, style), expected.predict(audio, template, style))

    @pytest.mark.parametrize(
        ("stage", "name", "wrong"),
        [
            (1, "decoder.decoder_linear_embedding.net.bias", None),
            (1, "encoder.encoder_transformer.net.2.fn.fn.to_qkv.weight", torch.zeros(2, 2)),
            (1, "encoder.encoder_transformer.net.2.fn.fn.stray.weight", torch.zeros(2)),
            (1, "feat_map.bias", torch.zeros(2)),
            (2, "transformer_decoder.layers.1.norm3.bias", None),
            (2, "transformer_decoder.layers.1.norm3.bias", torch.zeros(3)),
            (2, "stray", torch.zeros(3)),
            (2, "decoder.vertice_map_reverse.weight", torch.zeros(3)),
        ],
    )
    def test_refusals(self, topology: str, stage: int, name: str, wrong: torch.Tensor | None) -> None:
        golden = load(topology)
        stages = [dict(each) for each in golden.stages]
        what = "missing" if wrong is None else "wrong shape" if name in stages[stage - 1] else "unknown"
        stages[stage - 1].pop(name, None)
        if wrong is not None:
            stages[stage - 1][name] = wrong
        with pytest.raises(UserError, match=rf"does not fit CodeTalker \({what}: stage {stage} {name}\)"):
            CodeTalker.from_reference(*stages, **golden.options)

    def test_swapped_or_cut(self, topology: str) -> None:
        golden = load(topology)
        one, two = golden.stages
        with pytest.raises(UserError, match="lacks encoder.vertice_mapping.0.weight: is it a .* stage 1"):
            CodeTalker.from_reference(two, one, **golden.options)
        with pytest.raises(UserError, match="lacks feat_map.weight: is it a .* stage 2"):
            CodeTalker.from_reference(one, {k: v for k, v in two.items() if k != "feat_map.weight"}, **golden.options)
        other = {**golden.options, "topology": "biwi" if topology == "vocaset" else "vocaset"}
        with pytest.raises(UserError, match=r"does not fit CodeTalker \(.*(vertice_map_reverse|do not make the width)"):
            CodeTalker.from_reference(one, two, **other)
        with pytest.raises(UserError, match="7 heads"):
            CodeTalker.from_reference(one, two, **{**golden.options, "codebook_heads": 7})


def test_stage_1_lies_beside(tmp_path: Path) -> None:
    one, two = load("vocaset").stages
    torch.save({"state_dict": two}, tmp_path / "x_stage2.pth.tar")
    with pytest.raises(
        UserError, match=r"x_stage2.pth.tar: is stage 2 of CodeTalker; put stage 1 beside it as x_stage1"
    ):
        load_actor(tmp_path / "x_stage2.pth.tar")
    torch.save({"state_dict": two}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="put stage 1 beside it \\(X_stage2.pth.tar: X_stage1.pth.tar\\)"):
        load_actor(tmp_path / "other.pth")
    torch.save({"state_dict": one}, tmp_path / "x_stage1.pth.tar")
    with pytest.raises(UserError, match="x_stage1.pth.tar: is stage 1 of CodeTalker; name the file of stage 2"):
        load_actor(tmp_path / "x_stage1.pth.tar")


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("n_layers", 900, "n_layers is 900, but the file holds"),
        ("codebook_layers", 900, "codebook_layers is 900, but the file holds"),
        ("n_codes", 0, "n_codes is 0; it must be a whole number"),
        ("n_codes", 13, r"codebook.codes is \[12, 4\], its config asks for \[13, 4\]"),
        ("codebook_heads", 3, "a codebook of width 16 with 3 heads"),
        ("codes_per_frame", 3, "3 codes of 4 numbers do not make the width 16"),
        ("feedback_window", 0, "feedback_window is 0"),
        ("window", 3, "no setting that a file may have"),
    ],
)
def test_settings_of_a_file(name: str, value: int, match: str, tmp_path: Path) -> None:
    payload = actor_payload(small_actor(), ["a", "b"])
    payload["config"][name] = value
    save_tensors(tmp_path / "best.pt", {"actor": payload})
    with pytest.raises(UserError, match=rf"best\.pt: no actor of this project inside \(.*{match}"):
        load_actor(tmp_path)
