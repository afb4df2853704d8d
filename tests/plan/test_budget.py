"""What `potstill plan RECIPE` says: one device for everything, costs against the endpoint, the licences' words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from potstill.cli import main
from potstill.plan.devices import find_device
from potstill.plan.fit import Wish, fit
from potstill.plan.models import load_models

if TYPE_CHECKING:
    from conftest import Workshop

PRICE = {"price": {"input": 2.0, "output": 10.0}}


def run(*words: str) -> str:
    done = CliRunner().invoke(main, [*words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def planned(workshop: Workshop, *words: str, **changes: Any) -> dict[str, Any]:
    workshop.recipe(**changes)
    return dict(json.loads(run("plan", str(workshop.folder / "recipe.yaml"), "--json", *words)))


def test_a_device_is_the_recipes_or_the_command_lines(workshop: Workshop) -> None:
    words = planned(workshop, target={"device": "a board of ours"})
    assert words["device"] == "a board of ours"
    assert all(row["decode_tokens_per_s"] is None for row in words["quantizations"])
    own = planned(workshop, target={"device": "pi 5"})
    asked = planned(workshop, "--device", "pi5", target={"device": "a board of ours"})
    assert own["device"] == asked["device"] == "Raspberry Pi 5"
    assert own["quantizations"] == asked["quantizations"]
    chosen = next(row for row in own["quantizations"] if row["chosen"])
    recipe = workshop.recipe()
    alone = fit(load_models(recipe).student_anatomy, "Q8_0", find_device("pi5"), Wish(recipe.chat.context))
    assert chosen["memory_bytes"] == alone.memory.total
    assert alone.speed and chosen["decode_tokens_per_s"] == pytest.approx(alone.speed.decode, abs=1e-3)


def test_options_count_for_a_recipe_too(workshop: Workshop) -> None:
    small, large = planned(workshop, "--context", "256"), planned(workshop, "--context", "512", "--parallel", "2")
    assert large["kv_bytes"] == 4 * small["kv_bytes"]
    assert planned(workshop, "--context", "256", "--kv-type", "q8_0")["kv_bytes"] == small["kv_bytes"] * 17 // 32
    tight = planned(workshop, "--device", "pi5", "--memory", "0.01")
    assert all("device" in row["missed"] for row in tight["quantizations"])


def test_costs_are_compared_with_the_endpoint(workshop: Workshop) -> None:
    target = {"device": "pi5", "economy": {"train_hour_price": 2.0}}
    found = planned(workshop, teacher=PRICE, target=target)["cost"]
    answer = found["answer"]
    per_row = (answer["prompt_tokens"] * 2 + answer["tokens"] * 10) / 1e6
    assert answer["api_cost_per_million"] == pytest.approx(1e6 * per_row, rel=0.01)
    assert found["teacher_price"] == pytest.approx(found["rows"] * per_row, rel=0.05)
    assert answer["once"] == pytest.approx(2 * found["training"]["hours"][1], abs=1e-3)
    gain = (answer["api_cost_per_million"] - answer["cost_per_million"]) / 1e6
    assert answer["break_even_answers"] * gain == pytest.approx(answer["once"], abs=1e-3)
    assert found["training"]["memory"]["needed"] > 0 and found["assumed"]["watts"] == 10


def test_a_person_is_told_in_the_same_words_by_both_verbs(workshop: Workshop) -> None:
    workshop.recipe(teacher=PRICE, target={"device": "pi5"})
    path = str(workshop.folder / "recipe.yaml")
    text, verdict = run("plan", path), run("licences", path)
    assert verdict.startswith("May it ship: allowed with obligations")
    assert text.endswith(verdict)
    for words in ("tokens in and", "hours on this machine", "a million by teacher.price", "10 W at 0.3 a kWh"):
        assert words in text
    assert json.loads(run("licences", path, "--json")) == planned(workshop)["licences"]


def test_a_trimmed_vocabulary_is_counted_and_told(workshop: Workshop) -> None:
    trimmed = {"vocabulary": "workload"}
    assert planned(workshop)["notes"] == []
    assert planned(workshop, student=trimmed)["notes"][0].startswith("student.vocabulary: sizes and memory are given")
    # the recipe's own wish stays when a row of the table is written into it
    search = ["plan", str(workshop.folder / "recipe.yaml"), "--search", "--device", "pi5", "--json"]
    found = json.loads(run(*search))
    assert 256 < found["vocabulary"] <= 384
    assert all(row["student"]["vocabulary"] == "workload" for row in found["students"])
