"""The rules of CONTRIBUTING.md that a program can check: who imports whom, file sizes, leftovers, configs, pins."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from packaging.requirements import Requirement

import s2f_rl
from s2f_rl.runs.configs import compose_config

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "s2f_rl"
CONF = ROOT / "recipes" / "conf"
SOURCES = sorted(
    path for folder in ("s2f_rl", "recipes", "benchmarks", "tests") for path in (ROOT / folder).rglob("*.py")
)

# a module imports only from its own line and the lines above it
LAYERS = [
    "errors",
    "moved",
    "lazy",
    "registry",
    "provenance",
    "keys",
    "patient",
    "threads",
    "ranks",
    "signs",
    "products",
    "device_rows",
    "machine",
    "completion",
    "pages",
    "data",
    "models",
    "streaming",
    "metrics",
    "rewards",
    "envs",
    "losses",
    "collectors",
    "render",
    "view",
    "exchange",
    "runs",
    "evaluation",
    "training",
    "schemas",
    "adaptation",
    "cli_commands",
    "cli_adapt",
    "cli_coefficients",
    "cli_corpus",
    "cli_exchange",
    "cli_recipes",
    "cli_reward",
    "cli_runs",
    "cli_view",
    "cli",
]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    """Every module of this package that a file imports, at its top or inside a function: ``data.files``, ``keys``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: imports are absolute here"
            if node.module == "s2f_rl":
                yield from (f"s2f_rl.{alias.name}" for alias in node.names)
            elif node.module:
                yield node.module


LAZY = sorted(
    ".".join(path.parent.relative_to(PACKAGE).parts)
    for path in PACKAGE.rglob("__init__.py")
    if "lazy_exports(" in path.read_text(encoding="utf-8")
)


def import_graph() -> dict[str, set[str]]:
    """Every module of this package -> the modules of it that it imports anywhere in its file."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= (inner & modules.keys()) | ({node.module or ""} if inner - modules.keys() else set())
        graph[module] = (found & modules.keys()) - {module}
    return graph


def strongly_connected(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Groups of more than one node that reach each other."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            new = graph[todo.pop()] - seen
            seen |= new
            todo += new
        return seen

    closure = {node: reached(node) for node in graph}
    groups: list[set[str]] = []
    for node, below in closure.items():
        circle = {other for other in below if node in closure[other]}
        if circle and circle not in groups:
            groups.append(circle)
    return groups


class TestImports:
    def test_only_from_above(self) -> None:
        wrong = []
        for path in sorted(PACKAGE.rglob("*.py")):
            layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
            if layer == "__init__":
                continue
            assert layer in LAYERS, f"{name_of(path)}: give it a place in the order of imports"
            for module in imports(path):
                parts = module.split(".")
                if parts[0] in ("recipes", "benchmarks", "tests"):
                    wrong.append(f"{name_of(path)} imports {module}")
                elif parts[0] == "s2f_rl" and len(parts) > 1 and parts[1] in LAYERS:
                    if LAYERS.index(parts[1]) > LAYERS.index(layer):
                        wrong.append(f"{name_of(path)} imports {module}")
        assert wrong == []

    def test_nobody_imports_a_recipe(self) -> None:
        recipes = {path.stem for path in (ROOT / "recipes").glob("*.py")}
        wrong = [
            f"{name_of(path)} imports {module}"
            for path in SOURCES
            if path.parent.name != "recipes" and "tests" not in path.parts
            for module in imports(path)
            if module.split(".")[0] == "recipes" or module in recipes
        ]
        assert wrong == []

    def test_no_circle(self) -> None:
        """Of all imports, those inside functions and those for type checkers alone too."""
        assert [sorted(circle) for circle in strongly_connected(import_graph())] == []

    def test_nobody_imports_a_private_name(self) -> None:
        wrong = [
            f"{name_of(path)}:{node.lineno} imports {alias.name} from {node.module}"
            for path in SOURCES
            if "tests" not in path.parts
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and node.module != "__future__"
            for alias in node.names
            if alias.name.startswith("_") and not alias.name.startswith("__")
        ]
        assert wrong == []

    @pytest.mark.parametrize("package", LAZY)
    def test_a_lazy_package_states_its_names_alike(self, package: str) -> None:
        """What it lends at run time is what it lists and what type checkers see, and all of it is there."""
        source = (PACKAGE.joinpath(*package.split(".")) / "__init__.py").read_text(encoding="utf-8")
        shown = {
            alias.name: node.module
            for block in ast.parse(source).body
            if isinstance(block, ast.If)  # TYPE_CHECKING
            for node in block.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        module = importlib.import_module(f"s2f_rl.{package}")
        assert module.__all__ == sorted(shown) and set(shown) <= set(dir(module))
        for name, home in shown.items():
            assert getattr(module, name) is getattr(importlib.import_module(home), name)
        with pytest.raises(AttributeError, match="absent"):
            _ = module.absent

    def test_every_folder_has_its_floor_plan(self) -> None:
        """The docstring of a package names each of its modules, and none that is gone."""
        wrong = []
        for path in sorted(PACKAGE.rglob("*/__init__.py")):
            package = path.parent.relative_to(PACKAGE).as_posix()
            plan = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            here = {other.stem for other in path.parent.glob("*.py")} - {"__init__"}
            here |= {other.parent.name for other in path.parent.glob("*/__init__.py")}
            wrong += [f"{package}: {name}" for name in sorted(here) if not re.search(rf"\b{name}\b", plan)]
            told = plan.partition("Floor plan:")[2].partition("Not here:")[0]
            wrong += [f"{package}: no {name}" for name in re.findall(r"``(\w+)``", told) if name not in here]
        assert wrong == []


class TestFiles:
    def test_no_file_is_long(self) -> None:
        lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
        assert {name: length for name, length in lengths.items() if length > 400} == {}

    def test_the_library_does_not_print(self) -> None:
        terminal = {f"s2f_rl/{name}.py" for name in LAYERS if name.startswith("cli")} | {"s2f_rl/runs/main.py"}
        wrong = [
            f"{name_of(path)}:{node.lineno}"
            for path in sorted(PACKAGE.rglob("*.py"))
            if name_of(path) not in terminal
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        ]
        assert wrong == []

    def test_no_leftovers(self) -> None:
        leftovers = re.compile(
            r"\b(TODO|FIXME|XXX)\b|raise NotImplementedError|pytest\.skip\(|mark\.(skip|xfail)\b|breakpoint\(\)"
            # paths of somebody's machine
            r"|(?<![\w.}/])/(home|root|work|Users)/"
        )
        texts = [*SOURCES, *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *CONF.rglob("*.yaml"), ROOT / "Makefile"]
        wrong = [
            f"{name_of(path)}:{number}: {line.strip()}"
            for path in texts
            if path != Path(__file__).resolve()
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
            if leftovers.search(line)
        ]
        assert wrong == []

    def test_pickles_are_never_loaded_as_code(self) -> None:
        unsafe = re.compile(
            r"pickle\.loads?\(|allow_pickle=True|weights_only=False|yaml\.(unsafe_)?load\(|\beval\(|\bexec\("
        )
        wrong = [
            f"{name_of(path)}:{number}: {line.strip()}"
            for path in SOURCES
            if "tests" not in path.parts
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
            if unsafe.search(line) and not re.search(r"\.eval\(\)", line)
        ]
        assert wrong == []

    def test_public_names_have_docstrings(self) -> None:
        wrong = []
        for path in sorted(PACKAGE.rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found: list[ast.Module | ast.ClassDef | ast.FunctionDef] = [tree]
            found += [node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
            for node in found:
                name = getattr(node, "name", "module")
                if not name.startswith("_") and ast.get_docstring(node) is None and path.stem[0] != "_":
                    wrong.append(f"{name_of(path)}: {name}")
        assert wrong == []


def configs() -> list[str]:
    return sorted(path.stem for path in CONF.glob("*.yaml"))


def options(group: Path) -> list[str]:
    return sorted(path.stem for path in group.glob("*.yaml"))


class TestConfigs:
    @pytest.mark.parametrize("name", configs())
    def test_composes_and_has_its_recipe(self, name: str) -> None:
        cfg = compose_config(CONF, name)
        for key in OmegaConf.missing_keys(cfg):
            OmegaConf.update(cfg, key, "given")
        OmegaConf.resolve(cfg)
        assert (ROOT / "recipes" / f"{name}.py").is_file()
        assert isinstance(cfg.name, str) and cfg.debug is False

    @pytest.mark.parametrize("group", sorted(path.name for path in CONF.iterdir() if path.is_dir()))
    def test_every_choice_composes_somewhere(self, group: str) -> None:
        for option in options(CONF / group):
            users = [name for name in configs() if group in _groups(name)] or configs()
            composed = 0
            for name in users:
                plus = "" if group in _groups(name) else "+"
                try:
                    compose_config(CONF, name, [f"{plus}{group}={option}"])
                    composed += 1
                except s2f_rl.errors.UserError:  # an experiment fits the recipe it was written for
                    assert plus, f"{name}: {group}={option} does not compose"
            assert composed, f"{group}={option} composes with no config"


def _groups(name: str) -> set[str]:
    defaults = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8")).get("defaults", [])
    return {key.split("@")[0].replace("optional ", "") for item in defaults if isinstance(item, dict) for key in item}


ANY_BUDGET = 197
"""Uses of ``Any`` in the package: contents of foreign files before they are checked, state dicts, rows of tables,
keyword arguments that are handed on."""


class TestTypes:
    def test_corpora_and_utterances_have_their_types(self) -> None:
        wrong = [
            f"{name_of(path)}:{node.lineno}: {node.arg}"
            for path in sorted(PACKAGE.rglob("*.py"))
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.arg) and node.arg in ("corpus", "utterance")
            if isinstance(node.annotation, ast.Name) and node.annotation.id == "Any"
        ]
        assert wrong == [], "s2f_rl.data.contract has Corpus and SpokenUtterance"

    def test_any_stays_the_exception(self) -> None:
        uses = {
            name_of(path): sum(
                isinstance(node, ast.Name) and node.id == "Any"
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            )
            for path in sorted(PACKAGE.rglob("*.py"))
        }
        most = sorted(uses.items(), key=lambda each: -each[1])[:5]
        assert sum(uses.values()) <= ANY_BUDGET, (
            f"{sum(uses.values())} uses of Any, {ANY_BUDGET} are allowed (most: {most}): say what it is, object where "
            "only isinstance is asked, or a Protocol; where nothing is known, raise the budget and say why"
        )


class TestPackaging:
    def project(self) -> dict[str, str]:
        """Arrays of requirements in pyproject.toml by name (read with a pattern: 3.10 has no TOML reader)."""
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        return dict(re.findall(r"^(\w+) = \[\n?(.*?)\]$", text, re.MULTILINE | re.DOTALL))

    def test_every_direct_dependency_is_pinned_within_its_bounds(self) -> None:
        pins = {}
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
            if line and not line.startswith("#"):
                requirement = Requirement(line)
                pins.setdefault(requirement.name, []).append(str(requirement.specifier).removeprefix("=="))
        wanted = self.project()
        for key in ("dependencies", "demo", "render", "export", "ray", "docs", "dev"):
            for text in re.findall(r'"([^"]+)"', wanted[key]):
                requirement = Requirement(text)
                assert requirement.name in pins, f"constraints.txt does not pin {requirement.name}"
                for version in pins[requirement.name]:
                    assert requirement.specifier.contains(version), f"{requirement.name} {version} is not {text}"

    def test_one_version(self) -> None:
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        assert f'\nversion = "{s2f_rl.__version__}"\n' in text
        assert f"## {s2f_rl.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    def test_decisions_are_numbered_without_gaps(self) -> None:
        pages = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))
        assert [int(page[:4]) for page in pages] == list(range(1, len(pages) + 1))
        for page in pages:
            text = (ROOT / "docs" / "decisions" / page).read_text(encoding="utf-8")
            assert text.startswith(f"# {int(page[:4])}. ")
            assert all(f"**{part}" in text for part in ("Decision.", "Why.", "Cost.", "Again when."))
