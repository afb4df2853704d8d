"""What an answer costs: by hand, and how it moves; the price list is dated, and a recipe's own price comes first."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.components.sizing import prices as costs
from potstill.components.sizing.prices import Comparison, compare, device_cost, find_price
from potstill.core.recipe import ApiTeacher, Economy, LocalTeacher, Price

OWN = Price(input=2.0, output=10.0)
API: dict[str, Any] = {"kind": "api", "model": "gpt-4.1-mini", "base_url": "https://api.openai.com/v1"}


def test_energy_and_wear_of_an_answer() -> None:
    # an hour at 100 W is 0.1 kWh
    assert device_cost(3600, Economy(watts=100, kwh_price=0.4)) == pytest.approx(0.04)
    # a year of full work wears a third of a device that lasts three
    worn = Economy(watts=0, device_price=300, years=3, busy=1.0)
    assert device_cost(365 * 24 * 3600, worn) == pytest.approx(100)


@given(once=st.floats(0, 1e5), device=st.floats(0, 1, width=16), api=st.floats(0, 1, width=16))
def test_break_even_is_where_both_cost_the_same(once: float, device: float, api: float) -> None:
    answers = Comparison(once, device, api).break_even
    if api <= device:
        assert answers is None
    else:
        assert answers is not None
        assert once + answers * device == pytest.approx(answers * api, rel=1e-6, abs=1e-6)


def test_what_is_spent_before_the_first_answer() -> None:
    economy = Economy(watts=0, device_price=1000, train_hour_price=2.5)
    asked: dict[str, Any] = {"rows": 1000, "prompt": 100, "answer": 50, "seconds": 1.0, "training_hours": 4.0}
    hosted = compare(ApiTeacher(**API, price=OWN), economy, **asked)
    here = compare(LocalTeacher(model="org/teacher", price=OWN), economy, **asked)
    assert hosted and here
    # an answer is 100 x 2 + 50 x 10 millionths; a teacher that runs here is paid by nobody for teaching
    assert hosted.by_api == here.by_api == pytest.approx(700e-6)
    assert hosted.once == pytest.approx(1000 * 700e-6 + 10)
    assert here.once == pytest.approx(10)
    # the device's price is in each answer, and so not spent once more
    assert hosted.on_device == pytest.approx(device_cost(1.0, economy)) and hosted.on_device > 0
    assert compare(LocalTeacher(model="org/teacher"), economy, **asked) is None


def test_the_recipes_own_price_comes_before_the_list() -> None:
    listed = find_price(ApiTeacher(**API))
    assert listed and (listed.input, listed.output) == (0.40, 1.60)
    assert "OpenAI" in listed.label and listed.label.endswith("2026-06")
    own = find_price(ApiTeacher(**API, price=OWN))
    assert own and (own.input, own.output, own.label) == (2.0, 10.0, "teacher.price")


@pytest.mark.parametrize(
    "change", [{"model": "gpt-unheard-of"}, {"base_url": "http://localhost:11434/v1"}, {"base_url": "https://a.b/v1"}]
)
def test_no_price_is_guessed(change: dict[str, str]) -> None:
    assert find_price(ApiTeacher(**{**API, **change})) is None


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
            found = find_price(ApiTeacher(kind="api", model=model, base_url=f"https://{row['host']}/v1"))
            assert found and found.input == row["input"]
