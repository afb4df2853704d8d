"""Costs by hand, and how they move."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.plan.cost import Workload, break_even, device_cost, teacher_cost, training
from potstill.plan.devices import find_device
from potstill.recipe import Economy

WORK = Workload(rows=1000, prompt=100, answer=50, epochs=3)


def test_teacher_tokens_are_priced_apart() -> None:
    assert teacher_cost(WORK, 2.0, 10.0) == pytest.approx(1000 * (100 * 2.0 + 50 * 10.0) / 1e6)


def test_operations_are_counted_as_in_kaplan() -> None:
    card = find_device("RTX 3060")
    student, teacher = 10**8, 10**9
    online = training(student, teacher, WORK, card, control=False, stored=False, vocab=32000)
    assert online.operations == pytest.approx(150_000 * 3 * (6e8 + 2e9))
    stored = training(student, teacher, WORK, card, control=False, stored=True, vocab=32000)
    assert stored.operations == pytest.approx(150_000 * (3 * 6e8 + 2e9))
    assert stored.disk_bytes > online.disk_bytes
    control = training(student, teacher, WORK, card, control=True, stored=True, vocab=32000)
    assert control.operations - stored.operations == pytest.approx(150_000 * 3 * 6e8)
    low, high = card.compute_efficiency
    assert online.hours == pytest.approx(
        (online.operations / (card.compute * high) / 3600, online.operations / (card.compute * low) / 3600)
    )


def test_energy_and_wear_of_an_answer() -> None:
    # an hour at 100 W is 0.1 kWh
    assert device_cost(3600, Economy(watts=100, kwh_price=0.4)) == pytest.approx(0.04)
    # a year of full work wears a third of a device that lasts three
    worn = Economy(watts=0, device_price=300, years=3, busy=1.0)
    assert device_cost(365 * 24 * 3600, worn) == pytest.approx(100)


@given(once=st.floats(0, 1e5), device=st.floats(0, 1, width=16), api=st.floats(0, 1, width=16))
def test_break_even_is_where_both_cost_the_same(once: float, device: float, api: float) -> None:
    answers = break_even(once, device, api)
    if api <= device:
        assert answers is None
    else:
        assert answers is not None
        assert once + answers * device == pytest.approx(answers * api, rel=1e-6, abs=1e-6)
