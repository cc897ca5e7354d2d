"""``s2f-rl info`` tells what is there and how to get what is not."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from s2f_rl import __version__, cli, machine


def test_extras_from_their_requirements() -> None:
    found = machine.extras(
        [
            "numpy>=2.0",
            'numpy>=1; extra == "render"',
            "no-such-thing-here (>=2) ; extra == 'render'",
            'scipy[x]<2,>=1; python_version > "3" and extra == "more"',
        ]
    )
    assert [(extra.name, extra.missing) for extra in found] == [("render", ["no-such-thing-here"]), ("more", [])]
    assert found[0].packages["numpy"] == metadata.version("numpy")


def test_gpus(tmp_path: Path) -> None:
    assert machine.gpus(tmp_path) == []
    for number, text in enumerate(("Model: \t NVIDIA H100\nIRQ: 1\n", "IRQ: 2\n")):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "information").write_text(text)
    assert machine.gpus(tmp_path) == ["NVIDIA H100", "unknown"]


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: ["NVIDIA H100"])
    known = machine.version_of
    monkeypatch.setattr(machine, "version_of", lambda name: None if name == "numba" else known(name))
    assert cli.main(["info"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"s2f_rl {__version__}") and f"torch {metadata.version('torch')}" in said
    assert 'render: missing (numba): pip install "s2f_rl[render]"' in said and "GPU: NVIDIA H100" in said
    assert f"python {sys.version_info.major}.{sys.version_info.minor}" in said
    assert ("built for CPUs alone" in said) == ("+cpu" in metadata.version("torch"))
