"""The documentation agrees with the code: links resolve, recipes load, commands exist, error messages are real."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import click
import pytest
import yaml
from pydantic import BaseModel

from potstill.cli.main import main
from potstill.core.recipe import ClassifierGates, ClassifierRecipe, Gates, Recipe, Target, load_recipe
from potstill.core.recipe.problems import sections_of
from potstill.core.records import read_labelled, read_rows

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [
        ROOT / "README.md",
        *ROOT.glob("docs/**/*.md"),
        *(ROOT / folder / "README.md" for folder in ("recipes", "benchmarks", "examples/home-assistant")),
    ]
)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
_INLINE_COMMAND = re.compile(r"`(potstill [^`]+)`")


def page_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, *languages: str) -> list[str]:
    """Code blocks of a page, by the language of the fence."""
    return [text for language, text in _FENCE.findall(path.read_text()) if language in languages]


def prose(path: Path) -> str:
    """A page without its code blocks, with wrapped lines joined."""
    return re.sub(r"\s+", " ", _FENCE.sub("", path.read_text()))


def anchors(path: Path) -> set[str]:
    """GitHub's anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", path.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_resolve(page: Path) -> None:
    for target in _LINK.findall(prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{target}: no such file"
        assert not anchor or anchor in anchors(path), f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_recipes_load(page: Path, tmp_path: Path) -> None:
    """A YAML block with a name is a whole recipe; any other holds sections, which are tried in a small recipe."""
    for text in blocks(page, "yaml"):
        value = yaml.safe_load(text)
        if "name" not in value:
            value = {
                "name": "fragment",
                "data": {"prompts": "p.jsonl", "test": "t.jsonl"},
                "teacher": {"model": "someone/model"},
                "student": {"layers": 4},
                **value,
            }
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(value, sort_keys=False))
        assert load_recipe(path)


def has_key(kind: type[BaseModel], key: str) -> bool:
    """Whether a recipe has a dotted key, in any of its choices."""
    first, _, rest = key.partition(".")
    field = kind.model_fields.get(first)
    if field is None or not rest:
        return field is not None
    inner = sections_of(field)
    return any(has_key(section, rest) for section in inner.values()) or "dict" in str(field.annotation)


_SECTIONS = "|".join(
    sorted({name for kind in (Recipe, ClassifierRecipe) for name, f in kind.model_fields.items() if sections_of(f)})
)
_KEY = re.compile(rf"`((?:{_SECTIONS})(?:\.[a-z_0-9]+)+)(?=[`: ])")


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "changelog.md"], ids=page_id)
def test_recipe_keys_exist(page: Path) -> None:
    """Every dotted key in the prose is one of a recipe; names of files and of modules have other endings."""
    for key in _KEY.findall(prose(page)):
        if not key.endswith((".py", ".md", ".json", ".jsonl", ".yaml", ".html", ".toml")):
            assert has_key(Recipe, key) or has_key(ClassifierRecipe, key), key


def command_lines(page: Path) -> Iterator[str]:
    """Every command line that begins with potstill, from code blocks and from prose."""
    for text in blocks(page, "", "console"):
        for line in text.replace("\\\n", " ").splitlines():
            line = line.strip().removeprefix("$ ")
            start = re.search(r"(?:^|-m )(potstill [a-z-].*)$", line)
            if start:
                yield re.sub(r"\s+#.*$", "", start[1])
    yield from _INLINE_COMMAND.findall(prose(page))


def reject_unknown(words: list[str]) -> None:
    """Follow the words from the root command, and refuse a command or an option that does not exist."""
    command: click.Command = main
    context = click.Context(main, info_name="potstill")
    for word in words:
        if word.startswith("-"):
            name = word.partition("=")[0]
            options = {opt: p for p in command.get_params(context) for opt in (*p.opts, *p.secondary_opts)}
            assert name in options, f"{context.info_name} has no option {name}"
        elif isinstance(command, click.Group):
            found = command.get_command(context, word)
            assert found is not None, f"{context.info_name} has no command {word}"
            command, context = found, click.Context(found, info_name=word, parent=context)
            context.help_option_names = ["-h", "--help"]


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in ("help.md", "changelog.md")], ids=page_id)
def test_commands_exist(page: Path) -> None:
    for line in command_lines(page):
        words = shlex.split(re.split(r"\s[|>&]|\s\|\|", line)[0])
        try:
            reject_unknown(words[1:])
        except AssertionError as error:
            raise AssertionError(f"`{line}`: {error}") from None
        in_checkout = [word for word in words if word.startswith(("tests/", "recipes/", "examples/"))]
        assert all((ROOT / word).exists() for word in in_checkout), f"`{line}`: no such file"


def test_every_gate_is_explained() -> None:
    page = (ROOT / "docs" / "gates.md").read_text()
    for section, kind in (("gates", Gates), ("gates", ClassifierGates), ("target", Target)):
        for key in set(kind.model_fields) - {"device"}:
            assert f"`{section}.{key}`" in page


def test_rows_of_the_row_format_are_valid(tmp_path: Path) -> None:
    page = ROOT / "docs" / "row-format.md"
    found = blocks(page, "jsonl")
    assert found
    for text in found:
        path = tmp_path / "rows.jsonl"
        path.write_text(text)
        assert read_labelled(path) if '"label"' in text else read_rows(path)


@lru_cache
def messages() -> list[str]:
    """Every string of the source, with a space between words, and "..." for what is filled in."""
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [str(v.value) if isinstance(v, ast.Constant) else "..." for v in node.values]
                found.append(" ".join("".join(parts).split()))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(" ".join(node.value.split()))
    return found


def in_source(message: str) -> bool:
    """Whether one string of the source has the message's words in order; "..." stands for anything."""
    parts = [part.strip() for part in message.split("...") if part.strip()]
    pattern = re.compile(".*".join(map(re.escape, parts)))
    return any(pattern.search(text) for text in messages())


def test_error_messages_are_those_of_the_code() -> None:
    """Every symptom of the page on troubleshooting is a message of the code."""
    page = ROOT / "docs" / "troubleshooting.md"
    symptoms = [" ".join(text.split()) for text in blocks(page, "text")]
    assert len(symptoms) >= 15
    assert [text for text in symptoms if not in_source(text)] == []


def load_script(name: str) -> ModuleType:
    """A script of the docs folder as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_artifact_tables_are_those_of_the_code() -> None:
    maker = load_script("make_artifacts")
    assert maker.PAGE.read_text() == maker.page(), "run `make docs`"
    for kind in maker.artifacts():
        assert f"### {kind.__name__}: `{kind.FILE}`" in maker.PAGE.read_text()
