"""What a distillation takes, counted by hand and on a small workload."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fixtures import write_jsonl
from potstill.chat import load_chat
from potstill.plan.cost import Workload, training
from potstill.plan.devices import find_device

if TYPE_CHECKING:
    from conftest import Workshop

WORK = Workload(rows=1000, prompt=100, answer=50, epochs=3)


def test_operations_are_counted_as_in_kaplan(workshop: Workshop) -> None:
    card = find_device("RTX 3060")
    student, teacher = 10**8, 10**9
    alone = {"control": "none"}
    counts, more = ({**alone, "targets": {"kind": "counts", "draws": draws}} for draws in (50, 200))
    online = training(student, teacher, workshop.recipe(train=alone), WORK, card, 32000)
    assert online.operations == pytest.approx(150_000 * 3 * (6e8 + 2e9))
    assert online.target_bytes == 0
    stored = training(student, teacher, workshop.recipe(train=counts), WORK, card, 32000)
    assert stored.operations == pytest.approx(150_000 * (3 * 6e8 + 2e9))
    assert stored.target_bytes > 0
    assert training(student, teacher, workshop.recipe(train=more), WORK, card, 32000).target_bytes > stored.target_bytes
    both = training(student, teacher, workshop.recipe(train={"control": "sft"}), WORK, card, 32000)
    assert both.operations - online.operations == pytest.approx(150_000 * 3 * 6e8)
    low, high = card.compute_efficiency
    assert online.hours == pytest.approx(
        (online.operations / (card.compute * high) / 3600, online.operations / (card.compute * low) / 3600)
    )


def test_a_workload_is_counted_in_the_teachers_tokens(workshop: Workshop) -> None:
    recipe, chat = workshop.recipe(), load_chat(workshop.model)
    work = Workload.of(recipe, chat)
    assert work.rows == len(workshop.rows("train.jsonl"))
    assert (work.answer_from, work.answer < recipe.generate.max_new_tokens) == ("as in the test file", True)
    rows = [{key: value for key, value in row.items() if key != "completion"} for row in workshop.rows("test.jsonl")]
    write_jsonl(workshop.test, rows)
    blind = Workload.of(recipe, chat)
    assert (blind.prompt, blind.answer) == (work.prompt, recipe.generate.max_new_tokens / 2)
    # tools are in every prompt, which is what an endpoint charges for
    assert work.prompt > 1.5 * Workload.of(workshop.recipe(data={"tools": None}), chat).prompt
