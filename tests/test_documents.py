"""What the documents show works: Python runs, commands have the options and keys they are given."""

from __future__ import annotations

import contextlib
import io
import json
import re
from unittest import mock

import pytest
import yaml
from config_tools import composed, groups
from document_blocks import DOCUMENTS, NOT_RUN, ROOT, blocks_of, commands_in, indented_commands, inline_commands
from document_commands import Refused, check

from s2f_rl import cli
from s2f_rl.errors import UserError
from s2f_rl.runs.overrides import flat
from s2f_rl.schemas import SCHEMAS

LANGUAGES = {"python", "bash", "yaml", "json", "text", "csv"}


def having(language: str) -> list[str]:
    return [name for name in DOCUMENTS if any(block.language == language and block.runs for block in blocks_of(name))]


@pytest.fixture
def demo_folder(tmp_path, monkeypatch):
    """What `make demo` leaves behind, in small: data/demo, checkpoints/demo/{reward,supervised}."""
    import torch
    from tiny import make_tiny_corpus

    from s2f_rl.data import FaceCorpus
    from s2f_rl.models import FaceFormer, MelAudioEncoder
    from s2f_rl.rewards import RewardModel, ScoreHead, SpeechMeshTransformer
    from s2f_rl.rewards.corruptions import CORRUPTIONS
    from s2f_rl.training import actor_entry

    torch.manual_seed(0)
    make_tiny_corpus(tmp_path / "data" / "demo", n_subjects=4)
    checkpoints = tmp_path / "checkpoints" / "demo"
    RewardModel(SpeechMeshTransformer(120, width=16, depth=1, n_heads=2), ScoreHead(16, 16, 8)).save(
        checkpoints / "reward"
    )
    corpus = FaceCorpus(tmp_path / "data" / "demo", split="train")
    actor = FaceFormer(MelAudioEncoder(width=16), corpus.n_vertices, feature_dim=16, n_subjects=len(corpus.subjects))
    torch.nn.init.normal_(actor.decoder.vertice_map_r.weight, std=1e-3)
    (checkpoints / "supervised").mkdir(parents=True)
    torch.save({"actor": actor_entry(actor, corpus)}, checkpoints / "supervised" / "best.pt")
    monkeypatch.chdir(tmp_path)
    with mock.patch.dict(CORRUPTIONS):  # a document registers one of its own
        yield


def run_python(document: str) -> dict:
    """Run a document's Python blocks in order, as a reader would type them; returns the names they leave."""
    names: dict = {"__name__": "document"}
    for block in blocks_of(document):
        if block.language == "python" and block.runs:
            # the empty lines make the line of an error that of the document
            exec(compile("\n" * block.line + block.text, document, "exec", dont_inherit=True), names)
    return names


class TestPython:
    @pytest.mark.parametrize("document", [name for name in having("python") if name != "docs/library.md"])
    def test_runs(self, document, demo_folder):
        run_python(document)

    def test_library_gives_what_it_says(self, demo_folder, capsys):
        import torch

        names = run_python("docs/library.md")
        printed = capsys.readouterr().out
        assert "frames animated" in printed and "grad_norm_policy" in printed
        in_step, deferred = names["in_step"], names["deferred"]
        torch.testing.assert_close(in_step["next", "reward"], deferred["next", "reward"], rtol=1e-4, atol=1e-5)
        assert float(names["out"]["grad_norm_policy"]) > 0


class TestCommands:
    @pytest.mark.parametrize("document", having("bash"))
    def test_would_be_taken(self, document):
        copies: dict[str, str] = {}
        wrong = []
        for block in blocks_of(document):
            if block.language == "bash" and block.runs:
                for words in commands_in(block.text):
                    try:
                        check(words, copies)
                    except Refused as error:
                        wrong.append(f"{block.place}: {' '.join(words)}: {error}")
        assert wrong == []

    def test_within_sentences(self):
        wrong = []
        for document in DOCUMENTS:
            for text in inline_commands(document):
                try:
                    check_named(text)
                except Refused as error:
                    wrong.append(f"{document}: {text}: {error}")
        assert wrong == []


def check_named(text: str) -> None:
    """Of a command in a sentence only what is there must be right: the subcommand, and the names of options."""
    words = text.split()
    help_of = subcommand_help(words[1])
    for word in words[2:]:
        name = word.split("=")[0]
        if name.startswith("--") and name not in help_of:
            raise Refused(f"no option {name}")


def subcommand_help(name: str) -> str:
    said = io.StringIO()
    arguments = [name] if name.startswith("-") else [name, "--help"]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            cli.main(arguments)
        except SystemExit as error:
            if error.code:
                raise Refused(said.getvalue().strip().splitlines()[-1]) from error
    return said.getvalue()


def test_links_of_the_readme_lead_somewhere():
    """Those of the pages are checked when the site is built."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).is_file()] == []


class TestBlocks:
    @pytest.mark.parametrize("document", DOCUMENTS)
    def test_every_block_has_a_language_that_is_checked_or_says_why_not(self, document):
        blocks = blocks_of(document)
        assert [block.place for block in blocks if block.language not in LANGUAGES] == []
        assert indented_commands(document) == []
        for block in blocks:
            if "not run" in block.about:
                assert NOT_RUN.search(block.about), f'{block.place}: write title="not run: WHY"'
            if block.language == "json":
                json.loads(block.text)
            if block.language == "yaml":
                yaml.safe_load(block.text)


class TestKeys:
    """The tables of docs/recipes.md: `key` is one of the recipe's, `key=value` is taken."""

    @staticmethod
    def named(cell: str) -> list[str]:
        return [text for text in re.findall(r"`([^`]+)`", cell) if re.fullmatch(r"[a-z0-9_.+]+(=[a-z0-9_.]+)?", text)]

    def rows(self, heading: str) -> list[list[str]]:
        text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
        table = text.split(heading, 1)[1].split("|---|", 1)[1].split("\n\n", 1)[0]
        return [line.strip("|").split(" | ") for line in table.splitlines()[1:]]

    def refused(self, recipe: str, texts: list[str]) -> list[str]:
        """Those of the texts that are no key, choice or setting of a recipe; a bare word may be a value."""
        known = set(flat(composed(recipe))) | set(groups(recipe))
        known |= {key.rpartition(".")[0] for key in known}
        wrong = []
        for text in texts:
            if "=" in text:
                try:
                    composed(recipe, text)
                except UserError as error:
                    wrong.append(f"{recipe}: {error}")
            elif text not in known and not any(text in choices for choices in groups(recipe).values()):
                wrong.append(f"{recipe}: {text}")
        return wrong

    def test_of_each_recipe(self):
        rows = self.rows("# Recipes")
        names = [self.named(row[0])[0] for row in rows]
        assert set(names) == set(SCHEMAS), "docs/recipes.md: a row for each recipe"
        wrong = []
        for name, row in zip(names, rows, strict=True):
            keys = [key for key in self.named(row[2]) if key != "window"]  # a value of credit
            wrong += self.refused(name, keys)
        assert wrong == []

    def test_of_all_rl_recipes(self):
        keys = [key for row in self.rows("## Keys that every RL recipe has") for key in self.named(row[0])]
        assert len(keys) > 15 and self.refused("ppo", [key for key in keys if key != "none"]) == []


class TestTheseChecks:
    """They fail where they should."""

    def test_blocks(self):
        text = 'a\n\n```python\nx = 1\n```\n\n- item\n\n    ```bash title="not run: no data"\n    make x\n    ```\n'
        first, second = blocks_of("-", text)
        assert (first.line, first.language, first.text, first.runs) == (3, "python", "x = 1\n", True)
        assert (second.language, second.text, second.runs) == ("bash", "make x\n", False)

    def test_words(self):
        text = "$ make demo  # from nothing\nA=1 python x.py a=1 \\\n    b='2 3' && make test\n"
        commands = [["make", "demo"], ["A=1", "python", "x.py", "a=1", "b=2 3"], ["make", "test"]]
        assert list(commands_in(text)) == commands

    @pytest.mark.parametrize(
        "line",
        [
            "make demo test",
            "pip install 's2f_rl[demo,render]'",
            "s2f-rl synthesize data/x --subjects 4",
            "s2f-rl animate a.wav --checkpoint c --out face.mp4 --debug",
            "python recipes/ppo.py start=a reward.folder=b exploration=fine control=true",
            "python recipes/ppo.py start=a reward.folder=b -m seed=1,2,3 hydra/launcher=joblib",
            "python recipes/ppo.py --cfg job",
            "torchrun --nproc-per-node 2 recipes/supervised.py parallel=ddp parallel.timeout_s=60",
            "python benchmarks/run.py suite=smoke seeds=[0]",
            "python benchmarks/report.py folder",
            "python -m benchmarks.slope data/x out --checkpoint a --reward b --judge c",
            "OMP_NUM_THREADS=1 python benchmarks/leave_one_out.py --help",
        ],
    )
    def test_right_commands(self, line):
        for words in commands_in(line):
            check(words)

    @pytest.mark.parametrize(
        ("line", "why"),
        [
            ("make demos", "not in the Makefile"),
            ("pip install 's2f_rl[demos]'", "no extra"),
            ("s2f-rl synthesise data/x", "invalid choice"),
            ("s2f-rl synthesize data/x --speakers 4", "unrecognized arguments"),
            ("s2f-rl synthesize", "required"),
            ("python recipes/pppo.py start=a", "no such script"),
            ("python recipes/ppo.py start=a", "reward.folder"),
            ("python recipes/ppo.py start=a reward.folder=b explore=fine", "unknown key"),
            ("python recipes/ppo.py start=a reward.folder=b lanes=few", "lanes"),
            ("python recipes/ppo.py start=a reward.folder=b critic", "no override"),
            ("python benchmarks/run.py suite=smoke seed=[0]", "seed"),
            ("python benchmarks/report.py folder --fast", "unrecognized arguments"),
            ("python -m benchmarks.slope data/x out --actor a", "required"),
            ("rm -rf checkpoints", "not a command"),
            ("torchrun --nproc-per-node 2 recipes/ppo.py parallel=dpp start=a reward.folder=b", "parallel"),
        ],
    )
    def test_wrong_commands(self, line, why):
        with pytest.raises(Refused, match=why):
            for words in commands_in(line):
                check(words)

    @pytest.mark.parametrize("text", ["s2f-rl chek CORPUS", "s2f-rl check CORPUS --all"])
    def test_wrong_names_within_sentences(self, text):
        with pytest.raises(Refused):
            check_named(text)
