"""Values of single keys that no stage could use are refused when the recipe is read, with the key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from potstill.core.errors import RecipeError
from potstill.core.recipe import AnyRecipe, load_recipe

BASE: dict[str, dict[str, Any]] = {
    "data": {"prompts": "p.jsonl", "test": "t.jsonl"},
    "teacher": {"model": "someone/model"},
    "student": {"init": "teacher_layers", "layers": 2},
}
QUOTES, LINES, LONG = 'say """hello"""', "mit\nFROM evil", "x" * 5000
NOT_ONE_LINE = "must be one line of at most 200 printable characters"
INF, NAN = float("inf"), float("nan")


def load(folder: Path, key: str, value: Any) -> AnyRecipe:
    recipe: dict[str, Any] = {"name": "r", **{name: dict(section) for name, section in BASE.items()}}
    *parents, last = key.split(".")
    section = recipe
    for parent in parents:
        section = section.setdefault(parent, {})
    section[last] = value
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return load_recipe(folder / "recipe.yaml")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("name", "-x", "name"),
        ("name", LONG, "name"),
        ("seed", -1, "greater than or equal to 0"),
        ("seed", 2**32, "less than"),
        ("seed", 2**64, "needs more than 64 bits"),
        ("package.system", QUOTES, "an Ollama Modelfile cannot hold this text"),
        ("package.system", "a\u202eb", "an Ollama Modelfile cannot hold this text"),
        *((f"licenses.{what}", LINES, NOT_ONE_LINE) for what in ("data", "teacher", "package")),
        ("licenses.data", LONG, NOT_ONE_LINE),
        ("licenses.data", QUOTES, "an Ollama Modelfile cannot hold this text"),
        ("target.device", "a\u202eb", NOT_ONE_LINE),
        ("target.measured", LONG, "cannot be opened"),
        ("teacher.model", LONG, "cannot be opened"),
        ("data.prompts", "~nobody-of-this-name/x", "no home folder"),
        ("chat.template", "~nobody-of-this-name/x", "no home folder"),
        ("chat.context", 2**31, "less than or equal to 2147483647"),
        ("chat.template_kwargs.a", INF, "valid"),
        ("train.epochs", INF, "less than|finite"),
        ("train.epochs", 1e308, "less than"),
        ("generate.temperature", NAN, "finite|greater than"),
        ("gates.kl_mean", INF, "less than|finite"),
        ("prices.device_hour", INF, "less than|finite"),
        ("train.objective.name", LONG, r"there is no 'x+\.\.\."),
    ],
)
def test_a_value_that_no_stage_can_use_is_refused(tmp_path: Path, key: str, value: Any, says: str) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        load(tmp_path, key, value)
    assert key in str(caught.value) or "64 bits" in says
    assert len(str(caught.value)) < 6000 and str(tmp_path / "recipe.yaml") in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("package.system", 'You say "hello".\n\n\tBe brief: é 😀'),
        ("licenses.data", "CC BY 4.0 (© someone, 2024)"),
        ("target.device", "Raspberry Pi 5"),
        ("seed", 2**31),
        ("train.epochs", 0.5),
    ],
)
def test_a_value_that_stages_can_use_is_read(tmp_path: Path, key: str, value: Any) -> None:
    found: Any = load(tmp_path, key, value).model_dump()
    for part in key.split("."):
        found = found[part]
    assert found == value


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every folder")
def test_a_path_that_may_not_be_looked_up_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0)
    with pytest.raises(RecipeError, match="cannot be opened \\(Permission denied\\)"):
        load(tmp_path, "data.prompts", "shut/rows.jsonl")
