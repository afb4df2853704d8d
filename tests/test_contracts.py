"""The house rules, held by tests: who may import whom, how long a file may be, what the help says."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "potstill"
FILES = sorted(SOURCE.rglob("*.py"))

CORE = {
    "recipe", "sections", "classifier_sections", "fields", "objectives", "records", "steps", "stats", "errors",
    "progress", "memory", "costs", "weights",
}  # fmt: skip
PARTS = {"answers", "chat", "gguf_types", "losses", "targets", "runtimes", "trimming"}
STAGES = {"plan", "generate", "train", "evaluate", "export", "package", "serve", "report"}
TOP = {"pipeline", "show", "cli"}
HEAVY = {"torch", "transformers", "accelerate", "xllamacpp", "gguf", "matplotlib", "openai", "httpx", "safetensors"}


def room(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported_rooms(path: Path) -> set[str]:
    """Rooms of potstill that a file imports, at any depth of its syntax tree."""
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("potstill"):
            parts = node.module.split(".")
            rooms |= {parts[1]} if len(parts) > 1 else {a.name for a in node.names}
    return rooms - {"__version__"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    here = room(path)
    allowed = {
        **dict.fromkeys(CORE, CORE),
        **dict.fromkeys(PARTS, CORE | PARTS),
        **{stage: CORE | PARTS | {stage} for stage in STAGES},
        "pipeline": CORE | PARTS | {"language_pipeline", "classifier_pipeline"},
        "language_pipeline": CORE | PARTS | STAGES,
        "classifier_pipeline": CORE | PARTS | STAGES,
        "show": CORE | {"pipeline", "plan"},
        "cli": CORE | STAGES | TOP | {"targets"},
        "__main__": {"cli"},
        "__init__": set(),
    }
    assert here in allowed, f"{here} is no room of the house: say in which layer it belongs"
    assert imported_rooms(path) <= allowed[here]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") < 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


def test_verbs_of_the_base_install_load_nothing_heavy() -> None:
    code = (
        "import sys, potstill.cli.main, potstill.pipeline.run, potstill.core.recipe.recipe, potstill.cli.render.run\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_public_names_are_there_and_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the module says nothing of itself"
    defined = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    names = next(
        (
            [e.value for e in n.value.elts if isinstance(e, ast.Constant)]
            for n in tree.body
            if isinstance(n, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in n.targets)
            and isinstance(n.value, ast.List)
        ),
        [],
    )  # fmt: skip
    for name in names:
        if str(name) in defined:
            assert ast.get_docstring(defined[str(name)]), f"{name} has no docstring"


def test_written_pages_are_what_the_code_says() -> None:
    # in a process of its own: other tests change how click lays out its pages
    code = "import sys, json, make_help; sys.stdout.write(json.dumps([make_help.help_page(), make_help.recipe_page()]))"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "docs", capture_output=True, text=True, check=True)
    help_page, recipe_page = json.loads(out.stdout)
    assert (ROOT / "docs" / "help.md").read_text() == help_page, "run `make docs`"
    assert (ROOT / "docs" / "recipe.md").read_text() == recipe_page, "run `make docs`"
