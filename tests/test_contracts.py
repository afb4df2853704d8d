"""Rules that hold for the whole source: who may import whom, how long a file may be, what the help says."""

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

HEAVY = {
    "torch",
    "transformers",
    "accelerate",
    "xllamacpp",
    "gguf",
    "matplotlib",
    "openai",
    "httpx",
    "httpx2",
    "safetensors",
    "cryptography",
    "starlette",
    "uvicorn",
    "prometheus_client",
}
NOT_IN_CORE = HEAVY | {"tokenizers", "huggingface_hub", "numpy"}

LAYERS = ("core", "components", "stages", "pipeline", "apps", "cli")
"""From the bottom to the top. `pipeline` and `apps` stand on one level: neither imports the other."""
COMPONENTS = (
    "chat", "losses", "models", "conversion", "checkers", "filters", "curriculum", "licences", "runtimes", "suites",
    "deferral", "parity", "targets", "hardware", "sizing", "packages", "training",
)  # fmt: skip
"""A component imports core and those before it."""


def place(module: str) -> tuple[str, str]:
    """Layer and folder of a dotted module name inside potstill."""
    layer, _, rest = module.partition(".")
    return layer, rest.partition(".")[0]


def may_import(here: tuple[str, str], there: tuple[str, str]) -> bool:
    """Whether a module at one place may import one at another."""
    (layer, folder), (other_layer, other_folder) = here, there
    if here == there:
        return True
    if layer == other_layer:
        if layer == "components":
            return COMPONENTS.index(other_folder) < COMPONENTS.index(folder)
        return layer in ("core", "pipeline", "cli")  # one stage never imports another, nor does an app
    if {layer, other_layer} == {"pipeline", "apps"}:
        return False
    return LAYERS.index(other_layer) < LAYERS.index(layer)


def imported_modules(path: Path) -> set[str]:
    """Modules of potstill that a file imports, at any depth of its syntax tree, without the package's own name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "potstill":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("potstill."):
            base = node.module.removeprefix("potstill.")
            found |= {f"{base}.{alias.name}" for alias in node.names} if "." not in base else {base}
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("potstill.") for a in node.names if a.name.startswith("potstill.")}
    return found - {"__version__"}


def own_module(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


LAYERED = [path for path in FILES if path.parent != SOURCE]


def test_every_folder_is_a_layer_or_a_component_in_order() -> None:
    assert {path.name for path in SOURCE.iterdir() if path.is_dir()} - {"__pycache__"} == set(LAYERS)
    folders = {path.name for path in (SOURCE / "components").iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders == set(COMPONENTS)
    assert {path.name for path in SOURCE.glob("*.py")} == {"__init__.py", "__main__.py"}


@pytest.mark.parametrize("path", LAYERED, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_downwards(path: Path) -> None:
    here = place(own_module(path))
    wrong = sorted(module for module in imported_modules(path) if not may_import(here, place(module)))
    assert wrong == []


@pytest.mark.parametrize("path", sorted((SOURCE / "core").rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_core_needs_no_heavy_library(path: Path) -> None:
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        )
    }  # fmt: skip
    assert imported & NOT_IN_CORE == set()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") < 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


def test_verbs_of_the_base_install_load_nothing_heavy() -> None:
    code = (
        "import sys, potstill.cli.main, potstill.pipeline.run, potstill.core.recipe, potstill.cli.render.run\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_help_loads_no_recipe() -> None:
    code = "import sys, potstill.cli.main; print(sorted({'pydantic', 'yaml', 'rich', 'numpy'} & set(sys.modules)))"
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
