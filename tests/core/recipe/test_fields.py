"""What a section hashes, and what a stage receives of it."""

from __future__ import annotations

import json
from typing import Annotated

import pytest
from pydantic import Field

from potstill.core.recipe import COSMETIC, ELSEWHERE, ApiTeacher, Chat, LocalTeacher, Recipe, Section, Trainer
from potstill.core.recipe.fields import LocalPath, split_revision
from potstill.core.recipe.shape import Shape


class Inner(Section):
    kept: int = 1
    looks: Annotated[str, COSMETIC] = "a"
    owned: Annotated[str | None, ELSEWHERE] = None


class Outer(Section):
    rows: LocalPath
    more: LocalPath | None = None
    inner: Inner = Inner()
    other: Annotated[Inner, ELSEWHERE] = Inner()
    many: tuple[Inner, ...] = ()
    named: dict[str, Inner] = Field(default_factory=dict)


FULL = {
    "rows": "/a/rows",
    "more": "/a/more",
    "inner": {"kept": 2, "looks": "b", "owned": "x"},
    "other": {"kept": 3},
    "many": [{"kept": 4, "owned": "y"}],
    "named": {"one": {"kept": 5, "looks": "c"}},
}


def test_neither_cosmetic_nor_elsewhere_is_hashed_at_any_depth() -> None:
    values = Outer.model_validate(FULL).hashed_values()
    assert values == {"inner": {"kept": 2}, "many": [{"kept": 4}], "named": {"one": {"kept": 5}}}
    assert json.loads(json.dumps(values)) == values


def test_a_stage_receives_no_field_that_is_elsewhere_but_all_cosmetic_ones() -> None:
    outer = Outer.model_validate(FULL)
    blank = outer.blanked()
    assert blank.rows is None and blank.more is None
    assert blank.inner == Inner(kept=2, looks="b")
    assert blank.other == Inner()
    assert blank.many == (Inner(kept=4),)
    assert blank.named == {"one": Inner(kept=5, looks="c")}
    assert blank.hashed_values() == outer.hashed_values()
    assert outer.inner.owned == "x"  # the original is as it was


@pytest.mark.parametrize(
    ("section", "change"),
    [
        (Trainer(), {"tracker": "none"}),
        (Trainer(), {"checkpoint_every": 3}),
        (LocalTeacher(model="m"), {"offload": "cpu"}),
        (ApiTeacher(kind="api", model="m", base_url="http://h/v1"), {"max_concurrency": 3}),
        (ApiTeacher(kind="api", model="m", base_url="http://h/v1"), {"api_key_env": "KEY"}),
    ],
)
def test_what_changes_no_answer_is_not_hashed_and_is_kept(section: Section, change: dict[str, object]) -> None:
    changed = section.model_copy(update=change)
    assert changed.hashed_values() == section.hashed_values()
    assert changed.blanked().model_dump().items() >= change.items()


@pytest.mark.parametrize(
    ("section", "change"),
    [
        (Trainer(), {"kernel": "torch"}),
        (Trainer(), {"activation_checkpointing": True}),
        (LocalTeacher(model="m"), {"dtype": "bfloat16"}),
        (ApiTeacher(kind="api", model="m", base_url="http://h/v1"), {"model": "n"}),
        (ApiTeacher(kind="api", model="m", base_url="http://h/v1"), {"base_url": "v"}),
        (Chat(), {"template": "plain"}),
    ],
)
def test_what_may_change_an_answer_is_hashed(section: Section, change: dict[str, object]) -> None:
    assert section.model_copy(update=change).hashed_values() != section.hashed_values()


def test_the_path_of_a_template_file_is_not_hashed() -> None:
    file = Chat(template="own").model_copy(update={"template": "/somewhere/template.jinja"})
    assert "template" not in file.hashed_values()
    assert file.blanked().template == "own"
    assert Chat(template="plain").blanked().template == "plain"


def test_licences_and_prices_are_elsewhere() -> None:
    value = {
        "name": "r",
        "data": {"prompts": "p.jsonl", "test": "t.jsonl", "limit": 5},
        "teacher": {"model": "m", "finetune": {"rows": "f.jsonl"}},
        "student": {"layers": 2},
    }
    plain = Recipe.model_validate(value)
    more = Recipe.model_validate({**value, "licenses": {"data": "mit"}, "prices": {"train_hour": 2}})
    assert plain.hashed_values() == more.hashed_values()
    assert more.blanked().licenses == {} and more.blanked().prices == {}
    assert plain.blanked().teacher.finetune is None
    assert plain.data.hashed_values() == {}


def test_a_shape_is_one_string_and_hashes_as_its_sizes() -> None:
    text = "qwen3:layers=2,hidden=64,ffn=128,heads=4,kv_heads=2,tied=0"
    shape = Shape.parse(text)
    assert str(shape) == text and Shape.parse(str(shape)) == shape
    assert (shape.kv_heads, shape.head_dim, shape.tied) == (2, None, False)
    with pytest.raises(
        ValueError, match=r"starts with an architecture .* and a colon, as in llama:layers=2,hidden=64$"
    ):
        Shape.parse("layers=2,hidden=64")
    student = Recipe.model_validate(
        {
            "name": "r",
            "data": {"prompts": "p.jsonl", "test": "t.jsonl"},
            "teacher": {"model": "m"},
            "student": {"init": "scratch", "shape": text},
        }
    ).student
    assert student.hashed_values()["shape"]["hidden"] == 64
    assert student.model_dump(mode="json")["shape"] == text


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ("org/name", ("org/name", None)),
        ("org/name@abc123", ("org/name", "abc123")),
        ("/models/odd@name", ("/models/odd@name", None)),
    ],
)
def test_a_revision_is_written_after_the_hub_id(model: str, parts: tuple[str, str | None]) -> None:
    assert split_revision(model) == parts
