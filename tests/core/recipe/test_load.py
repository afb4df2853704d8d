"""A recipe that cannot be read is an error that names the file, the line, the key, and the nearest key or value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from potstill.core.errors import RecipeError
from potstill.core.recipe import AnyRecipe, ClassifierRecipe, Recipe, load_recipe
from potstill.core.recipe.load import MOVED
from potstill.core.recipe.teacher import ApiTeacher

LANGUAGE: dict[str, Any] = {
    "name": "r",
    "data": {"prompts": "p.jsonl", "test": "t.jsonl"},
    "teacher": {"model": "someone/model"},
    "student": {"init": "teacher_layers", "layers": 2},
}
CLASSIFIER: dict[str, Any] = {
    "name": "r",
    "task": "classify",
    "data": {"train": "a.jsonl", "test": "t.jsonl"},
    "teacher": {"model": "someone/encoder"},
    "student": {"layers": 2},
}
BASES: dict[type[AnyRecipe], dict[str, Any]] = {Recipe: LANGUAGE, ClassifierRecipe: CLASSIFIER}
KEYS = [(kind, old) for kind, moved in MOVED.items() for old in moved]


def load(tmp_path: Path, value: dict[str, Any], changes: dict[str, str] | None = None) -> AnyRecipe:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    return load_recipe(path, changes)


def with_key(value: dict[str, Any], dotted: str) -> dict[str, Any]:
    """A copy of nested mappings with one more key."""
    first, _, rest = dotted.partition(".")
    inner = value.get(first, {})
    return {**value, first: with_key(inner, rest) if rest else 1}


@pytest.mark.parametrize(("kind", "old"), KEYS, ids=[f"{kind.__name__}-{old}" for kind, old in KEYS])
def test_a_key_of_an_earlier_version_says_what_became_of_it(tmp_path: Path, kind: type[AnyRecipe], old: str) -> None:
    value = with_key(BASES[kind], old)
    last = old.rpartition(".")[2]
    line = next(
        n for n, text in enumerate(yaml.safe_dump(value, sort_keys=False).splitlines(), 1) if f" {last}:" in text
    )
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, value)
    assert str(caught.value).endswith(f"r.yaml:{line}: {old} {MOVED[kind][old]}.")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": {"epoch": 1}}, ":11: unknown key 'train.epoch'; did you mean 'epochs'?"),
        ({"student": {"init": "checkpoint", "modle": "m"}}, ":9: unknown key 'student.modle'; did you mean 'model'?"),
        (
            {"student": {"layers": 2, "model": "m"}},
            ":9: unknown key 'student.model'; it belongs to init: checkpoint, and this is init: teacher_layers.",
        ),
        ({"train": {"objective": "jds"}}, ":11: train.objective.name: there is no 'jds'; did you mean 'jsd'?"),
        (
            {"train": {"objective": {"name": "sft", "temperature": 2}}},
            ":13: unknown key 'train.objective.temperature'; name: sft does not have it.",
        ),
        (
            {"train": {"objective": {"on_policy": {"loss": "objectiv"}}}},
            ":13: train.objective.on_policy.loss: there is no 'objectiv'; did you mean 'objective'?",
        ),
        (
            {"train": {"objective": {"targets": "topk"}}},
            ":12: train.objective.targets.kind: there is no 'topk'; did you mean 'top_k'?",
        ),
        ({"student": "layers 4"}, ":7: student: 'layers 4' is text, but the section has keys; write each as a key, a"),
        ({"gates": "exact 0.9"}, ":10: gates: 'exact 0.9' is text, but the section has keys; write each as a key, a"),
        ({"gates": {"exact": 95}}, ":11: gates.exact: 95 is too large; write a fraction, such as 0.95 for 95 %."),
        ({"teacher": {"kind": "api", "model": "m"}}, ":5: teacher.base_url is missing; the key is required."),
        ({"teacher": {"kind": "xyz", "model": "m"}}, ":6: teacher.kind: there is no 'xyz'; there are local, api,"),
        ({"gates": {"behaviours": {"refus": 1}}}, ":12: gates.behaviours.refus: there is no 'refus'; did you mean"),
        ({"gates": {"behaviours": {"refuse": 2}}}, ":12: gates.behaviours.refuse: Input should be less than or equal"),
        ({"task": "classfy"}, ":10: task: there is no task 'classfy'."),
    ],
)  # fmt: skip
def test_a_message_names_the_place_and_what_was_meant(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, {**LANGUAGE, **change})
    assert message.split(": ", 1)[1] in str(caught.value)
    assert f"r.yaml{message.split(': ', 1)[0]}" in str(caught.value)


def test_a_bare_string_stands_for_a_choice_with_its_defaults(tmp_path: Path) -> None:
    short = load(tmp_path, LANGUAGE | {"train": {"objective": "skew_kl"}})
    long = load(tmp_path, LANGUAGE | {"train": {"objective": {"name": "skew_kl", "alpha": 0.1}}})
    assert isinstance(short, Recipe) and isinstance(long, Recipe)
    assert short.train.objective == long.train.objective


def test_a_change_reaches_into_a_choice_that_is_written_as_a_string(tmp_path: Path) -> None:
    value = LANGUAGE | {"train": {"objective": "jsd"}}
    recipe = load(tmp_path, value, {"train.objective.beta": "0.3", "trainer.precision": "bf16"})
    assert isinstance(recipe, Recipe) and recipe.trainer.precision == "bf16"
    assert recipe.train.objective.model_dump(include={"name", "beta"}) == {"name": "jsd", "beta": 0.3}
    with pytest.raises(RecipeError, match=r"seed\.x: seed is not a section"):
        load(tmp_path, LANGUAGE | {"seed": 1}, {"seed.x": "1"})
    with pytest.raises(RecipeError, match=r"train\.temperature is called train\.objective\.temperature now"):
        load(tmp_path, LANGUAGE, {"train.temperature": "2"})


@pytest.mark.parametrize(("objective", "has"), [("forward_kl", True), ("sft", False)])
def test_plain_fine_tuning_has_no_control_unless_one_is_asked_for(tmp_path: Path, objective: str, has: bool) -> None:
    recipe = load(tmp_path, LANGUAGE | {"train": {"objective": objective}})
    assert isinstance(recipe, Recipe) and recipe.train.has_control is has


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("base_url", "http://me:hunter2@h/v1", "user name or a password"),
        ("base_url", "https://hunter2@h/v1", "user name or a password"),
        ("base_url", "https://h/v1?api-key=hunter2", "a query"),
        ("base_url", "https://h/v1#hunter2", "a fragment"),
        ("base_url", "https://h:hunter2/v1", "not an address"),
        ("base_url", "ftp://h/v1", "not an http or https address"),
        ("base_url", "h/v1", "not an http or https address"),
        ("base_url", "https://h/v1\nhunter2", "not an http or https address"),
        ("api_key_env", "sk-hunter2", "the name of an environment variable"),
        ("api_key_env", "hunter2hunter2hunter2hunter2", "the name of an environment variable"),
        ("api_key_env", "hf_hunter2hunter2", "the name of an environment variable"),
        ("api_key_env", "gsk_Hunter2hunter2", "the name of an environment variable"),
        ("api_key_env", "sk_live_hunter2", "the name of an environment variable"),
        ("api_key_env", "r8_hunter2", "the name of an environment variable"),
        ("api_key_env", "Ab3d_hunter2_Xyz_hunter2", "the name of an environment variable"),
        ("api_key_env", "key_0123456789abcdef_hunter20123456789abcdef", "the name of an environment variable"),
        ("api_key_env", "", "the name of an environment variable"),
    ],
)
def test_a_secret_in_the_recipe_is_refused_and_not_repeated(tmp_path: Path, key: str, value: str, reason: str) -> None:
    teacher = {"kind": "api", "model": "m", "base_url": "http://localhost/v1", key: value}
    with pytest.raises(RecipeError, match=rf"teacher\.(api\.)?{key}: .*{reason}") as caught:
        load(tmp_path, LANGUAGE | {"teacher": teacher, "student": {"init": "someone/small"}})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY",
        "HF_TOKEN",
        "SK_2",
        "hf_token",
        "my_key",
        "my_company_key_for_openai_2",
        "OPENAI_API_KEY_2_BACKUP",
    ],
)
def test_a_name_of_a_variable_is_not_taken_for_a_key(name: str) -> None:
    teacher = ApiTeacher(kind="api", model="m", base_url="http://localhost/v1", api_key_env=name)
    assert teacher.api_key_env == name
