"""A recipe says what it means or says what is wrong, with file, line and key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from potstill.core.errors import RecipeError
from potstill.core.recipe import DIVERGENCES, AnyRecipe, ClassifierRecipe, Recipe, load_recipe, recipe_hash
from recipe_keys import leaf_keys

ROOT = Path(__file__).parents[2]
RECIPES = sorted([*ROOT.glob("recipes/*.yaml"), *ROOT.glob("examples/*/*.yaml")])

BASE: dict[str, Any] = {
    "name": "r",
    "data": {"prompts": "p.jsonl", "test": "t.jsonl"},
    "teacher": {"model": "someone/model"},
    "student": {"init": "teacher_layers", "layers": 2},
}

SHAPE = "llama:layers=1,hidden=8,ffn=16,heads=2"


CHECKPOINT = {"init": "checkpoint", "model": "m"}


def served(
    student: dict[str, Any] = CHECKPOINT, generate: dict[str, Any] | None = None, **objective: Any
) -> dict[str, Any]:
    """An endpoint that teaches by its log-probabilities; `objective` is of that section."""
    return {
        "teacher": {"kind": "api", "model": "m", "base_url": "http://x/v1"},
        "student": student,
        "generate": generate or {},
        "train": {"objective": {"targets": {"kind": "top_k", "k": 20}} | objective},
    }


def load(tmp_path: Path, value: dict[str, Any]) -> AnyRecipe:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    return load_recipe(path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipes_that_ship_are_valid(path: Path) -> None:
    assert load_recipe(path).name


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    recipe = load(tmp_path, BASE | {"teacher": {"model": "model"}})
    assert recipe.data.prompts == tmp_path / "p.jsonl"
    assert recipe.teacher.model == str(tmp_path / "model")
    assert load(tmp_path, BASE).teacher.model == "someone/model"


def test_unknown_key_names_file_line_and_nearest_key(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, BASE | {"train": {"epochs": 1, "objective": {"temprature": 2}}})
    assert "r.yaml:13: unknown key 'train.objective.temprature'; did you mean 'temperature'?" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a/b"}, "name"),
        ({"seed": "x"}, "seed"),
        ({"teacher": {"model": "m", "kind": "api"}}, "teacher.base_url is missing"),
        ({"teacher": {"model": "m", "base_url": "http://x"}}, "unknown key 'teacher.base_url'"),
        ({"teacher": {"model": "m", "kind": "api", "base_url": "http://x"}}, "set train.objective: sft"),
        (served(targets={}), "cannot run while the student trains: set train.objective: sft.*kind: top_k, k: 20"),
        (served(student={"init": "teacher_layers", "layers": 2}), "no weights to start from"),
        (
            served(targets={"kind": "counts"}),
            "train.objective.targets.kind: counts are sampled from whole distributions.*top_k, k: 20",
        ),
        (
            served(targets={"kind": "top_k"}),
            "targets.k: 32 is more tokens than endpoints give.*k: 20 or less",
        ),
        (served(temperature=2.0), "train.objective.temperature: 2 would soften"),
        (served(hidden={}), "train.objective.hidden needs the teacher's weights"),
        (served(on_policy={}), "on_policy needs the teacher to score each sampled answer"),
        (served(name="jsd"), "unknown key 'train.objective.targets'"),
        (served(student=CHECKPOINT | {"vocabulary": "workload"}), "student.vocabulary: workload drops tokens"),
        (served(generate={"temperature": 0.7}), "generate.temperature: 0.7: some endpoints"),
        (served(generate={"temperature": 1.0, "top_p": 0.9}), "generate.top_p: 0.9: some endpoints"),
        ({"student": {"init": "scratch"}}, "student.shape is missing"),
        ({"student": {"init": "teacher_layers", "layers": 2, "model": "m"}}, "unknown key 'student.model'"),
        ({"train": {"objective": "sft", "control": "sft"}}, "its control would be itself"),
        ({"train": {"control": "none"}, "gates": {"beats_control": True}}, "needs train.control"),
        ({"student": {"init": "scratch", "shape": "llama:layers=1,hidden=10,ffn=4,heads=3"}}, "not a multiple"),
        (
            {"student": {"init": "scratch", "shape": SHAPE}, "train": {"lora_rank": 4}},
            "leave it out with init 'scratch'",
        ),
        (
            {"student": {"init": "scratch", "shape": {"layers": 1}}},
            "student.shape: a shape is one string, such as llama:",
        ),
        ({"student": {"init": "scratch", "shape": "lama:layers=1"}}, "no architecture 'lama'; did you mean 'llama'?"),
        ({"student": {"init": "scratch", "shape": "llama:layer=1"}}, "no size 'layer'; did you mean 'layers'?"),
        ({"student": {"init": "scratch", "shape": "llama:layers=1"}}, "the shape has no hidden"),
        ({"student": {"init": "scratch", "shape": "llama:layers=0"}}, "layers=0: the size is not a whole number"),
        ({"prices": {"input": 1.0}}, "prices.input and prices.output belong together"),
        ({"licenses": {"student": "mit"}}, "init: teacher_layers has no such model"),
        ({"teacher": {"model": "m", "finetune": {"rows": "r", "shape": SHAPE, "lora_rank": 4}}}, "those are random"),
        (
            {"teacher": {"model": "m", "finetune": {"rows": "r", "shape": SHAPE, "shallow_layers": 9}}},
            "is not less than",
        ),
        ({"train": {"objective": {"name": "sft", "temperature": 2.0}}}, "unknown key 'train.objective.temperature'"),
        ({"train": {"objective": {"name": "sft", "hard_label_weight": 0.5}}}, "unknown key"),
        ({"train": {"objective": {"targets": {"kind": "counts", "k": 256}}}}, "less than or equal to 255"),
        ({"train": {"objective": {"targets": {"k": 8}}}}, "unknown key 'train.objective.targets.k'"),
        ({"gates": {"retention": 1.5}}, "less than or equal to 1"),
        ({"gates": {"behaviours": {"dance": 0.5}}}, "dance"),
    ],
)
def test_values_that_cannot_be_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load(tmp_path, BASE | change)


def test_an_endpoint_may_teach_by_text_or_by_its_likeliest_tokens(tmp_path: Path) -> None:
    for generate in ({}, {"temperature": 1.0}, {"top_p": 0.9}):
        recipe = load(tmp_path, BASE | served(generate=generate, hard_label_weight=0.2))
        assert isinstance(recipe, Recipe)
        assert (recipe.requested_logprobs, recipe.trains_with_teacher) == (20, False)
    text = load(tmp_path, BASE | served() | {"train": {"objective": "sft", "control": "none"}})
    assert isinstance(text, Recipe) and text.requested_logprobs is None
    local = load(tmp_path, BASE | {"train": {"objective": {"targets": "top_k"}}})
    assert isinstance(local, Recipe) and local.requested_logprobs is None


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "not valid YAML"), ("- 1", "mapping of sections"), ("", "mapping")]
)
def test_files_that_are_no_recipe(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)
    with pytest.raises(RecipeError, match="no such recipe"):
        load_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize(("kind", "most"), [(Recipe, 123), (ClassifierRecipe, 45)])
def test_a_recipe_stays_small(kind: type[AnyRecipe], most: int) -> None:
    assert len(leaf_keys(kind)) <= most


@pytest.mark.parametrize("kind", [Recipe, ClassifierRecipe])
def test_every_key_is_read_somewhere(kind: type[AnyRecipe]) -> None:
    """An option that nothing reads is a lie."""
    source = "\n".join(p.read_text() for p in (ROOT / "src").rglob("*.py") if p.name != "load.py")
    parameters = {name for divergence in DIVERGENCES.values() for name in divergence.model_fields}
    unread = [key for key in leaf_keys(kind) if not re.search(rf"\.{(last := key.split('.')[-1])}\b", source)
              and last not in parameters]  # fmt: skip
    assert unread == []


def test_hash_is_of_values() -> None:
    first = Recipe.model_validate(BASE)
    assert recipe_hash(first) == recipe_hash(Recipe.model_validate(BASE | {"seed": 0}))
    assert recipe_hash(first) != recipe_hash(Recipe.model_validate(BASE | {"seed": 1}))


def test_recipe_hash_does_not_change_with_the_folder(tmp_path: Path) -> None:
    text = (
        "name: r\ndata: {prompts: a.jsonl, test: t.jsonl}\nteacher: {model: ./m}\n"
        "student: {init: teacher_layers, layers: 2}\n"
    )
    hashes = set()
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").write_text(text)
        hashes.add(recipe_hash(load_recipe(tmp_path / name / "recipe.yaml")))
    (tmp_path / "there" / "recipe.yaml").write_text(text.replace("a.jsonl", "b.jsonl"))
    assert len(hashes) == 1
    assert recipe_hash(load_recipe(tmp_path / "there" / "recipe.yaml")) not in hashes
