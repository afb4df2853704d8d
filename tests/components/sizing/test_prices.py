"""What an answer costs: by hand, and how it moves; the price list is dated, and a recipe's own price comes first."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.components.sizing import prices as costs
from potstill.components.sizing.prices import Comparison, compare, device_cost, find_price
from potstill.core.recipe import Recipe

OWN = {"input": 2.0, "output": 10.0}
API: dict[str, Any] = {"kind": "api", "model": "gpt-4.1-mini", "base_url": "https://api.openai.com/v1"}
LOCAL = {"model": "org/teacher"}


def recipe(teacher: dict[str, Any], **prices: float) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "priced",
            "data": {"prompts": "p.jsonl", "test": "t.jsonl"},
            "teacher": teacher,
            "student": {"init": "checkpoint", "model": "org/student"},
            "train": {"objective": "sft"},
            "prices": prices,
        }
    )


def test_an_answer_costs_its_part_of_an_hour() -> None:
    assert device_cost(3600, recipe(LOCAL, device_hour=0.04).economy) == pytest.approx(0.04)
    assert device_cost(360, recipe(LOCAL).economy) == pytest.approx(0.0003)


@given(once=st.floats(0, 1e5), device=st.floats(0, 1, width=16), api=st.floats(0, 1, width=16))
def test_break_even_is_where_both_cost_the_same(once: float, device: float, api: float) -> None:
    answers = Comparison(once, device, api).break_even
    if api <= device:
        assert answers is None
    else:
        assert answers is not None
        assert once + answers * device == pytest.approx(answers * api, rel=1e-6, abs=1e-6)


def test_what_is_spent_before_the_first_answer() -> None:
    hours = {"device_hour": 0.38, "train_hour": 2.5}
    asked: dict[str, Any] = {"rows": 1000, "prompt": 100, "answer": 50, "seconds": 1.0, "training_hours": 4.0}

    def compared(given: Recipe) -> Comparison | None:
        return compare(find_price(given), given.economy, teacher_kind=given.teacher.kind, **asked)

    hosted, here = (compared(recipe(teacher, **OWN, **hours)) for teacher in (API, LOCAL))
    assert hosted and here
    # an answer is 100 x 2 + 50 x 10 millionths; nobody is paid for the answers of a local teacher
    assert hosted.by_api == here.by_api == pytest.approx(700e-6)
    assert hosted.once == pytest.approx(1000 * 700e-6 + 10)
    assert here.once == pytest.approx(10)
    assert hosted.on_device == pytest.approx(0.38 / 3600)
    assert compared(recipe(LOCAL, **hours)) is None


def test_the_recipes_own_price_comes_before_the_list() -> None:
    listed = find_price(recipe(API))
    assert listed and (listed.input, listed.output) == (0.40, 1.60)
    assert "OpenAI" in listed.label and listed.label.endswith("2026-06")
    own = find_price(recipe(API, **OWN))
    assert own and (own.input, own.output, own.label) == (2.0, 10.0, "prices")


@pytest.mark.parametrize(
    "change", [{"model": "gpt-unheard-of"}, {"base_url": "http://localhost:11434/v1"}, {"base_url": "https://a.b/v1"}]
)
def test_no_price_is_guessed(change: dict[str, str]) -> None:
    assert find_price(recipe(API | change)) is None


def test_every_price_is_dated_and_found_by_one_row() -> None:
    folder = costs.resources.files("potstill.components.sizing")
    rows = tomllib.loads((folder / "prices.toml").read_text(encoding="utf-8"))["price"]
    seen = set()
    for row in rows:
        assert 0 < row["input"] <= row["output"] < 1000
        assert row["source"] and row["entered"][:2] == "20" and row["entered"][4] == "-"
        for model in row["models"]:
            assert (row["host"], model) not in seen
            seen.add((row["host"], model))
            found = find_price(recipe(API | {"model": model, "base_url": f"https://{row['host']}/v1"}))
            assert found and found.input == row["input"]
