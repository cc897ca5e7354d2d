"""What the site of the documents does to pages while it is built (docs/hooks), and what its navigation lists."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def hook(name: str):
    """A module of docs/hooks: they are no package, MkDocs loads them from their files."""
    spec = importlib.util.spec_from_file_location(f"hook_{name}", ROOT / "docs" / "hooks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestFormulas:
    def test_inline_and_displayed(self):
        page = r'<p>a <span class="arithmatex">\(x_t &lt; 1\)</span></p><div class="arithmatex">\[\frac{a}{b}\]</div>'
        shown = hook("formulas").on_page_content(page)
        assert "arithmatex" not in shown and "<mfrac><mrow><mi>a</mi></mrow><mrow><mi>b</mi></mrow></mfrac>" in shown
        assert "<msub><mi>x</mi><mi>t</mi></msub>" in shown and "&#x0003C;" in shown
        assert shown.count("<math") == 2 and shown.count('<div class="formula">') == 1

    @pytest.mark.parametrize("latex", [r"\unheardof{x}", r"\left( x"])
    def test_what_cannot_be_shown_is_an_error(self, latex):
        with pytest.raises(ValueError):
            hook("formulas").mathml(latex, "inline")


class TestNotebooks:
    def test_cells_and_outputs(self):
        cells = [
            {"cell_type": "markdown", "source": ["# Title\n", "text"]},
            {
                "cell_type": "code",
                "source": ["print(1)\n", "figure"],
                "outputs": [
                    {"output_type": "stream", "text": ["\x1b[31m1\x1b[0m\n"]},
                    {"output_type": "display_data", "data": {"image/png": "QUJD\n", "text/plain": ["<Figure>"]}},
                ],
            },
            {"cell_type": "code", "source": [], "outputs": []},
        ]
        assert hook("notebooks").as_markdown({"cells": cells}) == (
            "# Title\ntext\n\n```python\nprint(1)\nfigure\n```\n\n```text\n1\n```\n\n"
            "![what the cell above draws](data:image/png;base64,QUJD)\n"
        )


class TestReference:
    def page(self, text: str):
        return SimpleNamespace(markdown=text, file=SimpleNamespace(src_uri="reference/x.md"))

    def test_tells_of_names_that_the_page_misses(self, tmp_path, caplog):
        (tmp_path / "pack").mkdir()
        (tmp_path / "pack" / "__init__.py").write_text('__all__ = ["Shown", "same", "Missing"]\n')
        config = SimpleNamespace(config_file_path=str(tmp_path / "mkdocs.yml"))
        shown = '<h2 id="pack.Shown">a</h2><h2 id="pack.same.same">b</h2><h2 id="pack.Missing_too">c</h2>'
        reference = hook("reference")
        assert reference.on_page_content(shown, self.page("# x\n\n::: pack\n"), config) == shown
        assert [record.getMessage() for record in caplog.records] == [
            "reference/x.md: pack: no docstring to show of Missing"
        ]
        caplog.clear()
        reference.on_page_content("", self.page("# no directive: pack\n"), config)
        assert caplog.records == []

    def test_docstrings(self):
        readable = hook("roles").readable
        assert readable("a :class:`~s2f_rl.data.FaceCorpus`, :func:`f`") == "a `s2f_rl.data.FaceCorpus`, `f`"
        text = "Args:\n    a, b: two\n    c: one, two: three\n"
        assert readable(text) == "Args:\n    a,\N{NO-BREAK SPACE}b: two\n    c: one, two: three\n"


class TestPages:
    def test_decisions_are_listed(self):
        page = SimpleNamespace(
            file=SimpleNamespace(
                src_uri="decisions/README.md", abs_src_path=str(ROOT / "docs" / "decisions" / "README.md")
            )
        )
        listed = hook("decisions").on_page_markdown("text", page)
        files = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
        assert listed.startswith("text\n\n- [1. ") and listed.count("\n- [") == len(files) > 20
        assert f"]({files[-1].name})" in listed

    def test_every_package_has_a_page(self):
        packages = {path.parent.name for path in (ROOT / "s2f_rl").glob("*/__init__.py")} - {"schemas"}
        pages = {path.stem for path in (ROOT / "docs" / "reference").glob("*.md")} - {"index"}
        assert pages == packages

    def test_nothing_is_loaded_from_a_network(self):
        config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
        assert config["theme"]["font"] is False and "extra_javascript" not in config
        assert all("://" not in str(entry) for entry in config["extra_css"])
        assert "offline" not in config["plugins"], "it loads a script of a CDN"
