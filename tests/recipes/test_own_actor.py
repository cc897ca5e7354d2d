"""An actor of one's own through the recipes: named by a person it trains and is tuned; a file imports nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from recipe_tools import load_recipe

from s2f_rl.cli import main as command
from s2f_rl.errors import UserError
from s2f_rl.models import MelAudioEncoder
from s2f_rl.models.actors import ACTORS, use_actor
from s2f_rl.models.checkpoint import load_actor, load_tensors

KIND = "examples.actor.gru:GRUActor"


@pytest.fixture(autouse=True)
def nobody_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ACTORS, "_added", {})


@pytest.fixture(scope="module")
def trained(workshop: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ACTORS, "_added", {})
        load_recipe("supervised").run(
            [
                f"corpus.root={workshop / 'corpus'}",
                f"root={workshop / 'runs'}",
                "name=gru",
                f"actor.kind={KIND}",
                "~actor.dropout",
                "actor.feature_dim=12",
                "iterations=8",
                "evaluation.every=4",
                "optimizer.lr=0.01",
                "progress=false",
                "actor.audio.width=8",
            ]
        )
    return workshop / "runs" / "gru"


def test_tuned_by_ppo(trained: Path, workshop: Path) -> None:
    values = load_recipe("ppo").run(
        [
            f"corpus.root={workshop / 'corpus'}",
            f"root={workshop / 'runs'}",
            f"start={trained}",
            f"reward.folder={workshop / 'reward'}",
            f"actor.kind={KIND}",
            "name=gru_ppo",
            "lanes=4",
            "group_size=2",
            "iterations=2",
            "evaluation.every=2",
            "kl=fixed",
            "progress=false",
        ]
    )
    assert values["lve"] > 0
    before, after = (load_actor(folder / "last.pt")[0] for folder in (trained, workshop / "runs" / "gru_ppo"))
    assert type(after).__name__ == "GRUActor" and after.styles == before.styles
    same = {name: torch.equal(v, after.state_dict()[name]) for name, v in before.state_dict().items()}
    assert same["decoder.decode.weight"] and same["audio_encoder.input.weight"]  # the output map and what is frozen
    assert not same["decoder.gru.weight_hh_l0"]


def test_evaluated(trained: Path, workshop: Path, tmp_path: Path) -> None:
    summary = load_recipe("evaluate").run(
        [f"corpus.root={workshop / 'corpus'}", f"checkpoint={trained}", f"actor.kind={KIND}", f"out={tmp_path}"]
    )
    assert summary["style_dependent"]["lve"] > 0


def test_lanes_that_begin_again() -> None:
    torch.manual_seed(0)
    actor = use_actor(KIND)(MelAudioEncoder(width=6), 10, 3)
    torch.nn.init.normal_(actor.decoder.decode.weight, std=1e-3)
    audio, style, latent = torch.randn(2, 9, 1, 6), torch.eye(3)[:2], torch.randn(2, 9, actor.decoder.latent_width)
    steps, means = actor.decoder.steps(style), []
    first = torch.zeros(2, 1, dtype=torch.bool)
    for t in range(9):
        if t == 4:
            steps.restart(torch.tensor([False, True]), style)
            first[1] = True
        means.append(steps.advance(steps.hear(audio[:, t]), latent[:, t - 1] if t else None, first if t == 4 else None))
    found = torch.stack(means, 1)
    whole = actor.decoder.sequence(latent, audio, style)
    later = actor.decoder.sequence(latent[1:, 4:], audio[1:, 4:], style[1:])
    torch.testing.assert_close(found[0], whole[0])
    torch.testing.assert_close(found[1], torch.cat([whole[1, :4], later[0]]))


def test_animated_by_the_command(
    trained: Path, workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wav, out = workshop / "corpus" / "wav" / "S1_sentence01.wav", tmp_path / "face.npy"
    options = ["animate", str(wav), "--checkpoint", str(trained), "--out", str(out), "--device", "cpu"]
    assert command(options) == 2 and "its kind is 'gru'" in capsys.readouterr().err
    assert command([*options, "--actor-kind", "nowhere:Actor"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1 and not out.exists()
    assert command([*options, "--actor-kind", KIND]) == 0
    assert np.load(out).shape[1] == 120


class TestFile:
    def test_kind_is_in_the_file(self, trained: Path, workshop: Path) -> None:
        entries = [load_tensors(folder / "last.pt")["actor"] for folder in (trained, workshop / "runs" / "start")]
        assert [entry["kind"] for entry in entries] == ["gru", "faceformer"]
        assert entries[0]["config"]["feature_dim"] == 12

    def test_unknown_until_a_person_names_it(self, trained: Path) -> None:
        with pytest.raises(UserError, match="its kind is 'gru', which none of the known actors has"):
            load_actor(trained)
        use_actor(KIND)
        assert load_actor(trained)[0].kind == "gru"

    def test_imports_nothing(self, trained: Path, tmp_path: Path) -> None:
        content = load_tensors(trained / "last.pt")
        content["actor"]["kind"] = KIND
        torch.save({"actor": content["actor"]}, tmp_path / "evil.pt")
        with pytest.raises(UserError, match="which none of the known actors has"):
            load_actor(tmp_path / "evil.pt")

    @pytest.mark.parametrize(
        ("name", "value"), [("feature_dim", 10**9), ("feature_dim", 13), ("surprise", 1), ("n_vertices", -1)]
    )
    def test_settings_are_compared_with_the_tensors(self, trained: Path, tmp_path: Path, name: str, value: int) -> None:
        use_actor(KIND)
        entry = load_tensors(trained / "last.pt")["actor"]
        entry["config"][name] = value
        torch.save({"actor": entry}, tmp_path / "other.pt")
        with pytest.raises(UserError):
            load_actor(tmp_path / "other.pt")

    def test_without_kind_is_faceformer(self, workshop: Path, tmp_path: Path) -> None:
        entry = load_tensors(workshop / "runs" / "start" / "last.pt")["actor"]
        del entry["kind"]
        torch.save({"actor": entry}, tmp_path / "old.pt")
        assert load_actor(tmp_path / "old.pt")[0].kind == "faceformer"


class TestNames:
    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("s2f_rl.models.decoder:MotionDecoder", "is no class of an actor"),
            ("nowhere.at_all:Actor", "cannot be imported"),
            ("transformer", "not one of the actors"),
        ],
    )
    def test_that_are_no_actor(self, name: str, words: str) -> None:
        with pytest.raises(UserError, match=words):
            use_actor(name)

    def test_two_of_one_kind(self) -> None:
        class Other(use_actor(None)):  # type: ignore[misc]
            pass

        ACTORS.register("other", Other)
        with pytest.raises(UserError, match="its kind 'faceformer' is that of another actor"):
            use_actor("other")

    def test_options_that_it_does_not_have(self, workshop: Path) -> None:
        run = [f"corpus.root={workshop / 'corpus'}", f"root={workshop / 'runs'}", f"actor.kind={KIND}", "name=other"]
        with pytest.raises(UserError, match=r"actor: .*'dropout'; see GRUActor"):
            load_recipe("supervised").run(run)
