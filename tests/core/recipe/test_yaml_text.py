"""YAML that could be read in two ways, or that grows when it is read, is refused with the reason."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from potstill.core.errors import RecipeError
from potstill.core.recipe import load_recipe
from potstill.core.recipe.yaml_text import read_yaml

_MERGES = "x0: &x0 {k: 1}\n" + "".join(f"x{i + 1}: &x{i + 1} {{<<: [{','.join([f'*x{i}'] * 9)}]}}\n" for i in range(9))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: a\nname: b\n", "the key 'name' appears a second time in line 2"),
        ("data:\n  limit: 1\n  limit: 2\n", "'limit' appears a second time in line 3"),
        (_MERGES, r"more than 20,000 keys and values"),
        (_MERGES.replace("{<<: ", "").replace("}", "").replace("{k: 1", "[1]"), r"more than 20,000 keys and values"),
        ("data: &a [*a]\n", "an anchor in line 1 holds an alias of itself"),
        ("data: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("seed: " + "9" * 5000, "cannot be read"),
        ("seed: 0x" + "f" * 6000, "more than 64 bits"),
        ("name: 2020-99-99", "cannot be read"),
        ('name: "a\\ud800"', r"control character \\ud800"),
        ('name: "\\e[31m"', r"control character \\x1b"),
        ("name: !!python/object/apply:os.system [x]", "could not determine a constructor"),
        (b"name: \xff", "not UTF-8"),
        ("- a", "a recipe is a mapping"),
        ("task: [classify]", "there is no task"),
        ("x" * 300_000, "larger than"),
    ],
)
def test_a_hostile_recipe_is_refused_at_once(tmp_path: Path, text: str | bytes, says: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    began = time.monotonic()
    with pytest.raises(RecipeError, match=says) as caught:
        load_recipe(path)
    assert time.monotonic() - began < 5
    assert len(str(caught.value)) < 2000


def test_aliases_and_merge_keys_of_ordinary_size_are_read() -> None:
    """PyYAML writes an alias where a value is used twice."""
    shared = {"epochs": 1, "batch": [1, 2]}
    assert read_yaml(yaml.safe_dump({"a": shared, "b": shared})) == {"a": shared, "b": shared}
    assert read_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n")["b"] == {"x": 1, "y": 3}
    nested = read_yaml("a: &a {y: 2}\nb: {deep: {deeper: &c {<<: *a, y: 3}}}\nd: {<<: *c, z: 4}\n")
    assert nested["b"]["deep"]["deeper"] == {"y": 3} and nested["d"] == {"y": 3, "z": 4}
