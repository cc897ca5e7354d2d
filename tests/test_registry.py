"""Names of kinds: what a person may name and what a file may."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from s2f_rl import keys
from s2f_rl.errors import UserError
from s2f_rl.registry import Registry


@pytest.fixture
def registry() -> Registry:
    return Registry("actors", {"faceformer": "s2f_rl.models.faceformer:FaceFormer"})


class TestRegistry:
    def test_ours(self, registry: Registry) -> None:
        from s2f_rl.models.faceformer import FaceFormer

        assert registry.named_by_person("faceformer") is FaceFormer
        assert registry.named_by_file("faceformer", "best.pt") is FaceFormer
        assert "faceformer" in registry.names()

    def test_registered(self, registry: Registry) -> None:
        class Mine: ...

        assert registry.register("mine", Mine) is Mine
        assert registry.named_by_file("mine", "best.pt") is Mine and "mine" in registry.names()
        registry.register("mine", Mine)
        for name in ("mine", "faceformer"):
            with pytest.raises(UserError, match=f"{name}: there is one of the actors of this name"):
                registry.register(name, object())

    def test_a_person_may_name_a_module_and_a_file_may_not(
        self, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "their_actor.py").write_text("class TheirActor: pass\n")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(UserError, match="best.pt: its kind is 'their_actor:TheirActor', which none of the known"):
            registry.named_by_file("their_actor:TheirActor", "best.pt")
        assert "their_actor" not in sys.modules
        assert registry.named_by_person("their_actor:TheirActor").__name__ == "TheirActor"
        monkeypatch.delitem(sys.modules, "their_actor")

    def test_installed_packages(self, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
        homes = {"theirs": "s2f_rl.keys:ACTION", "faceformer": "s2f_rl.keys:AUDIO", "gone": "no_such_module:X"}
        points = EntryPoints(EntryPoint(name, value, "s2f_rl.actors") for name, value in homes.items())
        monkeypatch.setattr("s2f_rl.registry.entry_points", lambda group: points.select(group=group))
        assert registry.named_by_file("theirs", "best.pt") == keys.ACTION and "theirs" in registry.names()
        assert registry.named_by_person("faceformer") != keys.AUDIO  # ours goes first
        with pytest.raises(UserError, match="^gone: cannot be imported from the package that brings it"):
            registry.named_by_person("gone")
        with pytest.raises(UserError, match="^best.pt: its kind is gone: cannot be imported"):
            registry.named_by_file("gone", "best.pt")

    @pytest.mark.parametrize(
        "name", ["nothing", "no_such_module:X", ".near:X", "..up:X", "a/b:X", "s2f_rl.keys:Nothing", ":", "a:b:c"]
    )
    def test_unknown(self, registry: Registry, name: str) -> None:
        with pytest.raises(UserError, match="package.module:Name"):
            registry.named_by_person(name)

    @pytest.mark.parametrize(
        ("code", "told"),
        [
            ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
            ("import sys; sys.exit(0)", "SystemExit: 0"),
            ("def f(:", "SyntaxError"),
            ("x = 1\0", "SyntaxError|ValueError"),
            ("import no_such_module", "No module named 'no_such_module'"),
        ],
    )
    def test_a_module_that_fails_is_one_line(
        self, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, told: str
    ) -> None:
        """Not a traceback, and not the exit code of a script that was imported."""
        (tmp_path / "their_broken.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(UserError, match=rf"their_broken:X: cannot be imported \(({told}).*package.module:Name"):
            registry.named_by_person("their_broken:X")
        brought = EntryPoints([EntryPoint("theirs", "their_broken:X", "s2f_rl.actors")])
        monkeypatch.setattr(registry, "_points", lambda: brought)
        for look in (registry.named_by_person, lambda name: registry.named_by_file(name, "best.pt")):
            with pytest.raises(UserError, match=rf"theirs: .*package that brings it \(({told})"):
                look("theirs")

    @pytest.mark.parametrize("name", [None, 3, ["faceformer"], "nothing"])
    def test_a_file_with_another_kind(self, registry: Registry, name: object) -> None:
        with pytest.raises(UserError, match="its kind is .*none of the known actors has"):
            registry.named_by_file(name, "best.pt")
